"""Training from Python: `fit` trains on arrays, DataFrames, files or named data sets, and returns a `Run`."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import configs as named_configs
from ae_jax import data, errors, objectives, overrides
from ae_jax.config import automatic, shipped
from ae_jax.data import (
  detection,
  frames,
  in_memory,
  inspection,
  placements,
  remarks,
  several_files,
  sources,
  table_inspection,
)
from ae_jax.runs import progress, temporary_folder
from ae_jax.system import paths
from ae_jax.trained_run import Run
from ae_jax.types import KINDS

AUTOMATIC = "auto"  # `model` of `fit`, and the name of configs/auto.py
_TFDS_NAME = re.compile(r"[\w-]+(/[\w-]+)?(:[\d.*]+)?")  # such as "mnist:3.0.1" and "emnist/letters"
_SIZES = ("model.latent", "epochs", "batch_size")  # keys on which the automatic choice depends, besides config.data
_NOT_OF_CHOICE = ("data.name", "data.path", "data.range")  # with the range, likelihood and scale would not be chosen
# source -> key of config.data with the name of the column or array of labels
_LABEL_KEYS = {"csv": "label", "parquet": "label", "frame": "label", "npz": "y", "npy": "y", "hdf5": "y"}


def fit(
  x: Any,
  labels: Any = None,
  *,
  model: str | ConfigDict = AUTOMATIC,
  latent: int | None = None,
  epochs: int | None = None,
  workdir: str | os.PathLike[str] | None = None,
  validation: Any = None,
  test: Any = None,
  verbose: bool = True,
  **changes: Any,
) -> Run:
  """Trains an autoencoder and returns the trained model.

  With `model="auto"`, the keys of the config `dense` are chosen for the data (see `automatic.choose`): a dense network
  learns a correction to PCA. If `model` is a name, tables and floats outside [0, 1] are standardised
  (config.data.range="real", config.data.scale="standard", config.objective.likelihood="gaussian"), unless the config or
  an argument sets another range; and a latent size above the number of elements of an example is replaced by a third of
  this number. A printed line lists the keys that were chosen. If `model` is a config, it is used unchanged.

  Example:
    >>> run = ae_jax.fit(x, latent=8, epochs=50)
    >>> run = ae_jax.fit(images, labels, model="cnn", batch_size=128, optimizer__learning_rate=1e-3)
    >>> run = ae_jax.fit("photos", model="cnn", workdir="runs/photos", data__size=64)

  Args:
    x: Examples [N, ...] as a NumPy or JAX array, PyTorch tensor or nested lists; a table as a DataFrame or a dict of
      columns; the path of data that `ae_jax data PATH` can read; a list of CSV, Parquet or .npy files; or the name of a
      data set, such as "mnist". Images are [N, H, W] or [N, H, W, C]; see `config.data.kind`.
    labels: One integer or string per example; or the name of the column (of a table) or array (of a file of arrays)
      that contains them. Only conditional models use labels for training; the report uses them, too.
    model: "auto", the name of another shipped config (see `ae_jax.configs.names`), or a config.
    latent: Latent size; None for the value in the config, or for an automatic choice if `model` is "auto".
    epochs: Number of epochs; None for the value in the config, or for an automatic choice if `model` is "auto".
    workdir: The run folder. If it contains an unfinished run of the same config and data, this run is resumed. None:
      a temporary folder, which is removed when the returned `Run` is deleted. If the training ends with an error after
      the first checkpoint, the temporary folder is kept, and a note in the exception contains its path.
    validation: Validation examples in a form of `x`, or (examples, labels), or the fraction of the training examples
      to draw as validation set; None for no validation set.
    test: Test examples, in the same forms as `validation`. None: if `x` is a path or name of data with a test set, this
      test set; otherwise the fraction `config.data.test` of the examples (by default a fifth), drawn from `x`.
    verbose: Whether to print the progress. Warnings are always written to stderr.
    **changes: Values of config keys other than `data.name` and `data.path`, with two underscores instead of each dot:
      `batch_size=64`, `model__widths=(128, 64)`, `data__range="symmetric"`. `ae_jax describe --config=NAME` lists
      the keys.

  Raises:
    UserError: An argument or the data are invalid (a subclass of ValueError).
    Interrupted: A signal, such as Ctrl-C, stopped the training; the same call with the same `workdir` resumes it.
  """
  from ae_jax.training import train

  changes = overrides.with_keys({"model.latent": latent, "epochs": epochs}, overrides.dotted(changes))
  with progress.quiet(not verbose), temporary_folder.run_folder_of(workdir) as (folder, keep):
    config, dataset = problem(x, labels, model=model, validation=validation, test=test, changes=changes)
    return keep(train.train_run(config, folder, dataset))


def problem(
  x: Any,
  labels: Any,
  *,
  model: str | ConfigDict,
  validation: Any,
  test: Any,
  changes: dict[str, Any],
) -> tuple[ConfigDict, data.Dataset]:
  """Returns the config and the data set for the arguments of `fit`; `changes` is {dotted config key: value}."""
  arguments = {"model": model, "validation": validation, "test": test, "changes": changes}
  config, dataset, lines = _problem(x, labels, **arguments, no_devices=False)
  return config, dataclasses.replace(dataset, remarks=(*lines, *dataset.remarks))


def _problem(
  x: Any, labels: Any, *, model: str | ConfigDict, validation: Any, test: Any, changes: dict[str, Any], no_devices: bool
) -> tuple[ConfigDict, data.Dataset, list[str]]:
  """Returns the result of `problem`, and lines about the table if `model` is "auto".

  With `no_devices`, only the memory of the host decides how the data are read, and JAX does not start.
  """
  for key in ("data.name", "data.path", "data"):
    if key in changes:
      raise errors.UserError(
        f"{overrides.argument(key)}={changes[key]!r}: cannot be set, because x determines it; pass the data or the "
        "path as x, and other keys of config.data as arguments such as data__range='unit'"
      )
  of_data = {key: value for key, value in changes.items() if key.startswith("data.")}
  section = overrides.apply(configs.base(""), of_data).data  # with the types of the keys, such as (64,) for 64
  of_user = {key: section[key] for key in (each.removeprefix("data.") for each in of_data)}
  source = _source(x, labels, {"validation": validation, "test": test}, of_user)
  overrides.check_once(source.keys, changes)
  config, set_by_user = _config(model, source.found.name), source.keys | changes
  chosen = {} if isinstance(model, ConfigDict) else _chosen(source.found, config, of_user)
  lines: list[str] = []
  if model == AUTOMATIC:
    of_table, lines = _of_table(source, of_user)
    chosen |= of_table
  config = overrides.apply(config, _without(chosen, set_by_user) | set_by_user)
  configs.check(config)
  section = config.data.to_dict()
  if no_devices:
    section["budget_gib"] = section["budget_gib"] or placements.host_budget() / placements.GIB
  dataset = data.load(**section, given=source.given)
  if model == AUTOMATIC:
    chosen |= automatic.choose(dataset.train, **_set_sizes(config, changes))
    chosen |= automatic.analyses(dataset.anomalous, config.evaluators)
  elif not isinstance(model, ConfigDict) and _without({"model.latent": None}, set_by_user):
    narrower = objectives.narrower_latent(config.objective.name, config.model.latent, dataset.shape)
    chosen |= {"model.latent": narrower} if narrower else {}
  if kept := _without(chosen, set_by_user):
    keys = ", ".join(f"config.{key}={value!r}" for key, value in kept.items())
    note = f"{keys}: chosen for x; an argument such as data__range='unit' replaces the choice"
    dataset = dataclasses.replace(dataset, remarks=(note, *dataset.remarks))
  return overrides.apply(config, kept), dataset, lines


def _of_table(source: "_Source", of_user: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Returns {config key: value} that the automatic choice sets for a table, and lines about it."""
  name, arrays = source.found.name, source.found.arrays
  if name == "frame":
    options = {key: of_user[key] for key in ("label", "group", "columns") if key in of_user}
    options |= {"label": source.keys["data.label"]} if "data.label" in source.keys else {}
    arrays = sources.read(name, "", options, given=source.given)
  elif arrays and not of_user.get("window"):
    arrays = inspection.with_kind(source.found, in_memory.WHERE)[1]
  found, lines = table_inspection.automatic(arrays, name, of_user)
  return {f"data.{key}": value for key, value in found.items()}, lines


def _without(chosen: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of `chosen` whose key the user does not set, neither directly nor as part of a section."""
  return {key: value for key, value in chosen.items() if not any(f"{key}.".startswith(f"{of}.") for of in changes)}


def _set_sizes(config: ConfigDict, changes: Mapping[str, Any]) -> dict[str, int]:
  """Returns {"latent": ..., "epochs": ..., "batch_size": ...}, with only the keys that the user sets."""
  values = configs.flat(config.to_dict())
  return {key.removeprefix("model."): values[key] for key in _SIZES if key in changes}


def automatic_config(data_name: str, flags: shipped.Flags) -> tuple[ConfigDict, list[str]]:
  """Returns the automatic config for data, and lines: the command that trains it, and what it assumes of a table.

  Args:
    data_name: A path or the name of a data set.
    flags: Function that returns {dotted key: value} of the flags --config.KEY=VALUE for a config with these keys. The
      choice depends on some of them; the caller applies all flags to the result.

  JAX does not start, because flags of the command, such as --gpu_memory and --coordinator, have an effect only before.
  """
  changes = {key: value for key, value in flags(named_configs.get("dense")).items() if _is_of_choice(key)}
  arguments = {"model": AUTOMATIC, "validation": None, "test": None, "changes": changes}
  config, _, lines = _problem(data_name, None, **arguments, no_devices=True)
  defaults = configs.flat(named_configs.get("dense", config.data.name).to_dict())
  values = configs.flat(config.to_dict())
  keys = [remarks.as_flag(key, value) for key, value in values.items() if value != defaults[key]]
  return config, [paths.command_line(["ae_jax", "train", f"--config=dense:{config.data.name}", *keys]), *lines]


def _is_of_choice(key: str) -> bool:
  """Returns whether the automatic choice depends on the value that a flag sets for a config key."""
  return key in _SIZES or (key.startswith("data.") and key not in _NOT_OF_CHOICE)


class _Source(NamedTuple):
  """Data source for the arguments of `fit`."""

  found: detection.Found
  keys: dict[str, Any]  # {config key: value} that the arguments determine
  given: dict[str, in_memory.SplitData] | None = None  # {split: examples and labels}, if the data are in memory


def _source(x: Any, labels: Any, others: Mapping[str, Any], of_user: Mapping[str, Any]) -> _Source:
  """Determines the data source for the arguments of `fit`.

  Args:
    x: See `fit`.
    labels: See `fit`.
    others: {"validation": argument, "test": argument}; see `fit`.
    of_user: {key of `config.data`: value} that the user sets.
  """
  shares = {split: value for split, value in others.items() if isinstance(value, float | int)}
  keys = {f"data.{split}": value for split, value in shares.items()}
  by_split = {split: value for split, value in others.items() if value is not None and split not in shares}
  x = several_files.as_path(x) if several_files.are_files(x) else x
  if isinstance(x, str | os.PathLike):
    for split in by_split:
      raise errors.UserError(
        f"{split}=: for data at a path, pass a fraction such as {split}=0.1, or store the {split} set there"
      )
    found, path = _stored(x, of_user)
    return _Source(found, keys | {"data.name": found.name, "data.path": path} | _label_key(labels, found.name))
  name = "frame" if frames.is_frame(x) else "arrays"
  is_column = isinstance(labels, str)
  keys |= {"data.name": name, "data.path": ""} | (_label_key(labels, name) if is_column else {})
  given = {"train": in_memory.SplitData(x, None if is_column else labels)}
  given |= {
    split: in_memory.SplitData(*(value if isinstance(value, tuple) else (value,))) for split, value in by_split.items()
  }
  options = {key: of_user[key] for key in ("layout", "kind") if key in of_user}
  layout = {"layout": options["layout"]} if "layout" in options else {}
  arrays = {} if name == "frame" else sources.read(name, "", layout, given=given)
  return _Source(detection.Found(name, options, arrays, {}, []), keys, given)


def _stored(x: str | os.PathLike[str], of_user: Mapping[str, Any]) -> tuple[detection.Found, str]:
  """Returns the source of the data `x`, and its path; the path is "" if `x` is the name of a data set."""
  path = str(paths.local_path("x", x))
  is_name = isinstance(x, str) and not os.path.exists(path) and _TFDS_NAME.fullmatch(x)
  if is_name and x not in sources.SOURCES:
    return detection.Found(x, {}, {}, {}, []), ""  # a data set of TensorFlow Datasets
  found = detection.detect(path, of_user)
  return found, "" if found.name == path else path


def _label_key(labels: Any, name: str) -> dict[str, Any]:
  """Returns {config key: name of the column or array of labels}; {} without labels. `name` is the data source."""
  if labels is None:
    return {}
  if not isinstance(labels, str) or name not in _LABEL_KEYS:
    value = f"labels={errors.format_value(labels)}"
    if name == "arrays":
      raise errors.UserError(f"{value}: pass one label per example; the name of a column is for DataFrames")
    raise errors.UserError(
      f"{value}: label arrays are accepted only if x is an array or a DataFrame; remove this argument, or "
      f"for the sources {', '.join(_LABEL_KEYS)} pass the name of the label column or array"
    )
  return {f"data.{_LABEL_KEYS[name]}": labels}


def _config(model: str | ConfigDict, name: str) -> ConfigDict:
  """Returns the config `model` for the data source `name`; "auto" begins with the config `dense`."""
  model = "dense" if model == AUTOMATIC else model
  if isinstance(model, ConfigDict):
    configs.check(model)
    return model
  if isinstance(model, str) and ":" in pathlib.PurePath(model).name:
    raise errors.UserError(
      f"model={model!r}: the part after the colon names a data set, but the data are passed as x; remove this part"
    )
  return named_configs.get(model, name)


def _chosen(found: detection.Found, config: ConfigDict, of_user: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {config key: value} that the data need: options of the source, and a range that suits the values.

  The range is left out if the config or the user sets it.
  """
  is_record = bool(of_user.get("window"))
  as_found = found.options, found.arrays
  options, arrays = as_found if is_record or not found.arrays else inspection.with_kind(found, in_memory.WHERE)
  values = {}
  if config.data.range == "unit" and "range" not in of_user and (found.arrays or found.name == "frame"):
    kind = "series" if is_record else KINDS[len(arrays["train"].shape) - 1] if arrays else "table"
    values = inspection.value_options(found.name, arrays, kind, in_memory.WHERE)
  chosen = {f"data.{key}": value for key, value in (options | values).items()}
  if "range" in values and config.objective.likelihood == "bernoulli":
    chosen["objective.likelihood"] = "gaussian"
  return chosen

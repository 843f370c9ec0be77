"""Training from Python: `fit` trains on arrays, DataFrames, files or data sets and returns a `trained_run.Run`."""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import configs as named_configs
from ae_jax import data, errors, overrides
from ae_jax.config import automatic
from ae_jax.data import detection, frames, in_memory, inspection, sources
from ae_jax.runs import progress
from ae_jax.system import paths
from ae_jax.trained_run import Run
from ae_jax.types import KINDS

_T = TypeVar("_T")
_WHERE = in_memory.WHERE
AUTOMATIC = "auto"  # `model` of `fit`, and the name of configs/auto.py
_TFDS_NAME = re.compile(r"[\w-]+(/[\w-]+)?(:[\d.*]+)?")  # such as "mnist:3.0.1" and "emnist/letters"
# source -> key of config.data that names the labels
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

  With `model="auto"`, the keys of the config `dense` are chosen for the data (see `automatic.changes`): a dense network
  learns a correction to PCA. With any name, floats outside [0, 1] and tables are standardised
  (config.data.range="real", config.data.scale="standard", config.objective.likelihood="gaussian") unless the config or
  an argument sets another range, and a latent size above the number of elements becomes a third of them. A printed line
  says so. A config of your own is used as it is.

  Example:
    >>> run = ae_jax.fit(x, latent=8, epochs=50)
    >>> run = ae_jax.fit(images, labels, model="cnn", batch_size=128, optimizer__learning_rate=1e-3)
    >>> run = ae_jax.fit("photos", model="cnn", workdir="runs/photos", data__size=64)

  Args:
    x: Examples [N, ...] as a NumPy or JAX array, PyTorch tensor or nested lists; a table as a DataFrame or a dict of
      columns; the path of data that `ae_jax data PATH` can read; or the name of a data set, such as "mnist". Images are
      [N, H, W] or [N, H, W, C]; see `config.data.kind`.
    labels: One integer or string per example, or for a table the name of the column, for a file of arrays the name of
      the array. Labels are not used for training, except by conditional models; the report uses them.
    model: "auto", the name of another shipped config (see `ae_jax.configs.names`), or a config.
    latent: Latent size; None for that of the config.
    epochs: Number of epochs; None for that of the config.
    workdir: The run folder. If it holds an unfinished run of the same config and data, the run is continued. None: a
      temporary folder, which is removed when the returned `Run` is deleted. If the training ends with an error after
      the first checkpoint, it is kept, and a note of the exception names it.
    validation: Validation examples in the form of `x`, or (examples, labels), or the share of the training examples
      that are drawn; None for no validation set.
    test: Test examples, in the same forms. None: those of `x`, if it names data with a test set; otherwise
      `config.data.test` of the examples, by default a fifth, are drawn.
    verbose: Whether to print the progress. Warnings go to stderr in both cases.
    **changes: Values of config keys other than `data.name` and `data.path`, with two underscores for the dot:
      `batch_size=64`, `model__widths=(128, 64)`, `data__range="symmetric"`. `ae_jax describe --config=NAME` lists
      the keys.

  Raises:
    UserError: An argument or the data are invalid. It is a ValueError.
    Interrupted: A signal, such as Ctrl-C, stops the training; the same call with the `workdir` continues it.
  """
  from ae_jax.training import train

  changes = with_keys({"model.latent": latent, "epochs": epochs}, overrides.dotted(changes))
  with progress.quiet(not verbose), run_folder_of(workdir) as (folder, keep):
    config, dataset = problem(x, labels, model=model, validation=validation, test=test, changes=changes)
    return keep(train.train_run(config, folder, dataset))


def problem(
  x: Any, labels: Any, *, model: str | ConfigDict, validation: Any, test: Any, changes: dict[str, Any]
) -> tuple[ConfigDict, data.Dataset]:
  """Returns the config and the data set for the arguments of `fit`; `changes` are values of dotted config keys."""
  for key in ("data.name", "data.path", "data"):
    if key in changes:
      raise errors.UserError(
        f"{overrides.argument(key)}={changes[key]!r}: cannot be set, because x determines it; pass the data or the "
        "path as x, and other keys of config.data as arguments such as data__range='unit'"
      )
  of_user = {key.removeprefix("data."): value for key, value in changes.items() if key.startswith("data.")}
  source = _source(x, labels, {"validation": validation, "test": test}, of_user)
  check_once(source.keys, changes)
  config, set_by_user = _config(model, source.found.name), source.keys | changes
  chosen = {} if isinstance(model, ConfigDict) else _chosen(source.found, config, of_user)
  config = overrides.apply(config, _without(chosen, set_by_user) | set_by_user)
  configs.check(config)
  dataset = data.load(**config.data.to_dict(), given=source.given)
  elements, is_copied = math.prod(dataset.shape), config.objective.name == "reconstruction"
  if model == AUTOMATIC:
    chosen |= automatic.changes(dataset.shape, len(dataset.train), **_lengths(config, changes))
  elif not isinstance(model, ConfigDict) and is_copied and config.model.latent > elements:
    chosen["model.latent"] = max(1, elements // 3)  # as the refusal of a larger latent code suggests
  kept = _without(chosen, set_by_user)
  if kept:
    keys = ", ".join(f"config.{key}={value!r}" for key, value in kept.items())
    note = f"{keys}: chosen for x; an argument such as data__range='unit' replaces the choice"
    dataset = dataclasses.replace(dataset, remarks=(note, *dataset.remarks))
  return overrides.apply(config, kept), dataset


def _without(chosen: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the chosen keys without those that the user sets, alone or as part of a section."""
  return {key: value for key, value in chosen.items() if not any(f"{key}.".startswith(f"{of}.") for of in changes)}


def _lengths(config: ConfigDict, changes: Mapping[str, Any]) -> dict[str, int]:
  """Returns the number of epochs and the batch size, as far as the user sets them."""
  return {key: config[key] for key in ("epochs", "batch_size") if key in changes}


def automatic_config(data_name: str) -> tuple[ConfigDict, str]:
  """Returns the config for data at a path or with a name, and the command that trains it; see `configs/auto.py`."""
  config, _ = problem(data_name, None, model=AUTOMATIC, validation=None, test=None, changes={})
  defaults = configs.flat(named_configs.get("dense", config.data.name).to_dict())
  values = configs.flat(config.to_dict())
  flags = [inspection.as_flag(key, value) for key, value in values.items() if value != defaults[key]]
  return config, paths.command_line(["ae_jax", "train", f"--config=dense:{config.data.name}", *flags])


class _Source(NamedTuple):
  """The data that `x` stands for."""

  found: detection.Found
  keys: dict[str, Any]  # config keys that follow from the arguments
  given: dict[str, in_memory.Half] | None = None  # the data, if they are in memory


def _source(x: Any, labels: Any, others: Mapping[str, Any], of_user: Mapping[str, Any]) -> _Source:
  """Returns the source of the data.

  Args:
    x: See `fit`.
    labels: See `fit`.
    others: {half: argument} of the validation and the test set; see `fit`.
    of_user: Keys of `config.data` that the user sets.
  """
  shares = {half: value for half, value in others.items() if _is_share(value)}
  keys = {f"data.{half}": value for half, value in shares.items()}
  halves = {half: value for half, value in others.items() if value is not None and half not in shares}
  if isinstance(x, str | os.PathLike):
    for half in halves:
      raise errors.UserError(
        f"{half}=: for data at a path, pass a fraction such as {half}=0.1, or store the {half} set there"
      )
    found, path = _stored(x)
    return _Source(found, keys | {"data.name": found.name, "data.path": path} | _label_key(labels, found.name))
  name = "frame" if frames.is_frame(x) else "arrays"
  is_column = isinstance(labels, str)
  keys |= {"data.name": name, "data.path": ""} | (_label_key(labels, name) if is_column else {})
  given = {"train": in_memory.Half(x, None if is_column else labels)}
  given |= {half: in_memory.Half(*(value if isinstance(value, tuple) else (value,))) for half, value in halves.items()}
  options = {key: of_user[key] for key in ("layout", "kind") if key in of_user}
  layout = {"layout": options["layout"]} if "layout" in options else {}
  arrays = {} if name == "frame" else sources.read(name, "", layout, given=given)
  return _Source(detection.Found(name, options, arrays, {}, []), keys, given)


def _is_share(value: Any) -> bool:
  return isinstance(value, float | int)


def _stored(x: str | os.PathLike[str]) -> tuple[detection.Found, str]:
  """Returns the source of data at a path, and the path; "" for a data set by name."""
  path = str(paths.local_path("x", x))
  is_name = isinstance(x, str) and not os.path.exists(path) and _TFDS_NAME.fullmatch(x)
  if is_name and x not in sources.SOURCES:
    return detection.Found(x, {}, {}, {}, []), ""  # of TensorFlow Datasets
  found = detection.detect(path)
  return found, "" if found.name == path else path


def _label_key(labels: Any, name: str) -> dict[str, Any]:
  """Returns the config key that names the labels of a source; {} without labels."""
  if labels is None:
    return {}
  if not isinstance(labels, str) or name not in _LABEL_KEYS:
    value = f"labels={errors.format_value(labels)}"
    if name == "arrays":
      raise errors.UserError(f"{value}: pass one label per example; the name of a column is for DataFrames")
    raise errors.UserError(
      f"{value}: data at a path or by name must contain their labels; remove this argument, or for the sources "
      f"{', '.join(_LABEL_KEYS)} pass the name of a column or array"
    )
  return {f"data.{_LABEL_KEYS[name]}": labels}


def _config(model: str | ConfigDict, name: str) -> ConfigDict:
  """Returns the config of a model for a source; the automatic choice changes the config `dense`."""
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
  """Returns config keys that make the data readable, and those of their range if neither config nor user sets it."""
  is_record = bool(of_user.get("window"))
  options, arrays = (
    (found.options, found.arrays) if is_record or not found.arrays else inspection.with_kind(found, _WHERE)
  )
  values = {}
  if config.data.range == "unit" and "range" not in of_user and (found.arrays or found.name == "frame"):
    kind = "series" if is_record else KINDS[len(arrays["train"].shape) - 1] if arrays else "table"
    values = inspection.value_options(found.name, arrays, kind, _WHERE)
  chosen = {f"data.{key}": value for key, value in (options | values).items()}
  if "range" in values and config.objective.likelihood == "bernoulli":
    chosen["objective.likelihood"] = "gaussian"
  return chosen


def with_keys(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the changes with the keys of the arguments that are not None; raises UserError if a key is given twice."""
  given = {key: value for key, value in arguments.items() if value is not None}
  check_once(given, changes)
  return given | dict(changes)


def check_once(given: Iterable[str], changes: Mapping[str, Any]) -> None:
  """Raises UserError if the changes contain a key that other arguments give."""
  for key in given:
    if key in changes:
      value = errors.format_value(changes[key])
      raise errors.UserError(f"{overrides.argument(key)}={value}: is given twice; remove one of them")


@contextlib.contextmanager
def run_folder_of(workdir: str | os.PathLike[str] | None) -> Iterator[tuple[pathlib.Path, Callable[[_T], _T]]]:
  """Yields the run folder, and a function that returns its argument and keeps a temporary folder as long as it lives.

  If an exception is raised, a temporary folder is removed unless it has a checkpoint; then a note names it.
  """
  if workdir is not None:
    yield paths.local_path("workdir", workdir), lambda owner: owner
    return
  folder = pathlib.Path(tempfile.mkdtemp(prefix="ae_jax-"))

  def keep(owner: _T) -> _T:
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return owner

  try:
    yield folder, keep
  except BaseException as error:
    from ae_jax.runs import checkpoints  # imports Orbax

    if any(checkpoints.newest_step(each) is not None for each in folder.rglob("checkpoints")):
      error.add_note(f"The trained state is kept in {folder}; the same call with workdir={str(folder)!r} continues it.")
    else:
      shutil.rmtree(folder, ignore_errors=True)
    raise

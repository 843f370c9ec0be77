"""Run folders: starts, resumes and extends runs, and reads and writes config.json."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import data, errors, models
from ae_jax.data import loss_columns
from ae_jax.system import atomic, paths
from ae_jax.types import KINDS

LOCK = ".lock"  # lock file in a run folder, held by the process that trains in it
FORMAT = 2  # format of config.json; a file without the key "format" has format 1, where one_class=-1 means all labels
_PACKAGES = ("ae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(config: ConfigDict, dataset: data.Dataset, model: models.Model, devices: Iterable[Any]) -> dict[str, Any]:
  """Returns the contents of config.json: the config, and information to repeat the run or to load its model."""
  resolved = configs.as_json(config)
  resolved["data"]["one_class"] = dataset.one_class
  return {
    "format": FORMAT,
    "config": resolved,
    "data": _describe_data(dataset) | _describe_inputs(model),
    "code": {"shape": list(model.code.shape), "numbers": model.code.size, "bits": model.code.bits},
    "parameters": model.parameter_count(),
    "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES},
    "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
    "git_commit": _git_commit(),
    "command": paths.command_line([pathlib.Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
  }


def _describe_inputs(model: models.Model) -> dict[str, Any]:
  """Returns the arguments of `models.build` that depend on the data; only those that differ from their defaults."""
  inputs: dict[str, Any] = {"label_values": list(model.labels)} if model.labels else {}
  inputs |= {"groups": [list(group) for group in model.groups]} if model.groups else {}
  return inputs | ({"masked": True} if model.masked else {})


def _describe_data(dataset: data.Dataset) -> dict[str, Any]:
  sizes = {"train": len(dataset.train), "test": len(dataset.test)}
  if dataset.validation is not None:
    sizes["validation"] = len(dataset.validation)
  description = {"shape": list(dataset.shape), **sizes, **dataset.fingerprints, "remarks": list(dataset.remarks)}
  if dataset.anomalous is not None:  # earlier versions lack this key; their test loss includes the anomalies
    description["test_anomalies"] = int(dataset.anomalous.sum())
  optional = {
    "unset_anomalies": dataset.unset_anomalies,
    "usual_class": None if dataset.usual_class is None else dataset.class_name(dataset.usual_class),
    "faults": list(dataset.faults),
    "split": dataset.split and dataset.split.as_json(),
    "class_names": list(dataset.class_names or ()),
    "record_columns": dataset.record_columns and dataset.record_columns.as_json(),
    "scaling": dataset.scaling and dataclasses.asdict(dataset.scaling),
    "standardisation": dataset.standardisation and dataset.standardisation.as_json(),
    "schema": dataset.schema and dataset.schema.as_json(),
  }
  return description | {key: value for key, value in optional.items() if value}


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Locks a run folder against other processes; creates the folder if necessary.

  Raises:
    UserError: Another process holds the lock, or the folder contains files but no run.
  """
  import filelock

  lock = filelock.FileLock(workdir / LOCK, blocking=False)
  with errors.convert_os_errors(f"--workdir={workdir}"):
    workdir.mkdir(parents=True, exist_ok=True)
    _check_is_run_or_empty(workdir)
    try:
      lock.acquire()
    except filelock.Timeout:
      raise errors.UserError(
        f"--workdir={workdir}: another process is training in this folder; wait for it, or use another folder"
      ) from None
  try:
    yield
  finally:
    lock.release()


def _check_is_run_or_empty(workdir: pathlib.Path) -> None:
  if not (workdir / "config.json").exists():
    others = sorted(path.name for path in workdir.iterdir() if path.name not in ("config.json.part", LOCK))
    if others:
      raise errors.UserError(f"--workdir={workdir}: holds {others[0]!r} but no run; use a new or an empty folder")


def begin(workdir: pathlib.Path, description: Mapping[str, Any]) -> list[str]:
  """Writes config.json into a `locked` folder, or checks that the folder holds a run with the same config and data.

  If the config differs only by a larger number of epochs, the run is extended, and config.json is replaced. If it
  differs only by the path of the same data, the new path is stored.

  Args:
    workdir: The run folder.
    description: Contents of config.json; see `describe`.

  Returns:
    Messages for the user about the extension or the new path.

  Raises:
    UserError: The folder holds a run with another config or other data, or it is not writable. Nothing is changed.
  """
  file = workdir / "config.json"
  notes, contents = _extension(workdir, description), description
  if not notes and file.exists():
    check_same(workdir, description)
    notes, contents = _moved(workdir, description)
  with errors.convert_os_errors(f"--workdir={workdir}"):
    if notes or not file.exists():
      atomic.write_text(file, json.dumps(contents, indent=2) + "\n")
    elif not os.access(workdir, os.W_OK):
      raise PermissionError(13, "Permission denied")
  return notes


def _moved(workdir: pathlib.Path, description: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
  """Returns a message if the path of the data has changed ([] if not), and the stored description with the new path."""
  stored, path = read_description(workdir), description["config"]["data"]["path"]
  before = stored["config"]["data"]["path"]
  stored["config"]["data"]["path"] = path
  note = f"config.data.path: the same data are now read from {path!r}, not {before!r}"
  return [] if before == path else [note], stored


def _extension(workdir: pathlib.Path, description: Mapping[str, Any]) -> list[str]:
  """Returns messages for the user if the description extends the run in a folder; [] if it does not.

  Raises:
    UserError: The description extends the run, but its data differ from the data of the run.
  """
  if not (workdir / "config.json").exists():
    return []
  stored, config = read_description(workdir), description["config"]
  before, after = stored["config"].get("epochs"), config["epochs"]
  extended = {**stored["config"], "epochs": after}
  if not errors.is_number(before) or before >= after or configs.differences(extended, config):
    return []
  _check_same_data(workdir, stored["data"], description["data"], config["data"])
  sentence = f"config.epochs: the run is extended from {before} to {after} epochs"
  schedule, last = config["optimizer"]["schedule"], sum(stage["epochs"] for stage in config["stages"])
  if schedule == "constant":
    return [f"{sentence}; the learning rate stays constant"]
  return [
    f"{sentence}; the {schedule} schedule of the learning rate now ends after epoch {last + after}. The rate after "
    f"epoch {last + before} is not 0, so the result differs from a run that is started with {after} epochs"
  ]


def check_same(workdir: pathlib.Path, description: Mapping[str, Any]) -> None:
  """Raises UserError if the run in a folder has another config or other data than the description."""
  stored = read_description(workdir)
  differences = configs.differences(stored["config"], description["config"])
  if differences:
    raise errors.UserError(
      f"--workdir={workdir}: holds a run of another config, which differs in {', '.join(differences)}; use another "
      "folder"
    )
  _check_same_data(workdir, stored["data"], description["data"], description["config"]["data"])


def load_data(workdir: str | os.PathLike[str], config: ConfigDict, path: str = "") -> data.Dataset:
  """Loads the data set of the run in a folder.

  Args:
    workdir: The run folder.
    config: The config of the run.
    path: Path of the data if it differs from `config.data.path`; "" if not.

  Raises:
    UserError: The data differ from the data that the run was trained on, or they cannot be loaded.
  """
  workdir = paths.local_path("workdir", workdir)
  configs.check_analyzed(config)
  section = config.data.to_dict() | ({"path": path} if path else {})
  dataset = data.load(**section)
  _check_same_data(workdir, read_description(workdir)["data"], _describe_data(dataset), section)
  return dataset


# keys of "data" in config.json that exist only if the data have these columns
_COLUMNS = {f"{name}_fingerprint": f"{name}s" for name in loss_columns.NAMES}
# key of "data" in config.json -> name in messages; runs of earlier versions lack the fingerprints of labels and
# factors, and runs without a validation set lack its keys
_COMPARED = {
  "shape": "shape",
  "train": "number of training examples",
  "test": "number of test examples",
  "fingerprint": "examples",
  "labels_fingerprint": "labels",
  "factors_fingerprint": "factors",
  **_COLUMNS,
  "validation": "number of validation examples",
  "validation_fingerprint": "validation examples",
}


def _check_same_data(
  workdir: str | os.PathLike[str], stored: Mapping[str, Any], current: Mapping[str, Any], section: Mapping[str, Any]
) -> None:
  """Raises UserError if two descriptions of the data differ; the message names the differences.

  Args:
    workdir: The run folder, for the message.
    stored: "data" in config.json, the description of the data of the run.
    current: Description of the current data.
    section: `config.data`, for the message.
  """
  optional = ("fingerprint", "validation", "validation_fingerprint", *_COLUMNS)
  compared = [key for key in _COMPARED if key in stored or key in optional]
  differing = [_COMPARED[key] for key in compared if stored.get(key) != current.get(key)]
  if differing:
    raise errors.DifferentData(
      f"--workdir={workdir}: config.data.name={section['name']!r} ({section['path']}) is not the data of the run; "
      f"different: {', '.join(differing)}. Restore the data, or train in another folder{_hint(stored, current)}",
      differing,
    )


def _hint(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
  """Returns advice, as the end of a message, if the data may differ because an earlier version split them otherwise."""
  if "split" in stored or not ("split" in current or "validation" in current):
    return ""
  return (
    ". If the run was started with an earlier version, add --config.data.split=random "
    "--config.data.read_validation=False"
  )


def read_description(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the contents of config.json in a run folder; see `describe`.

  If config.json was written by an earlier version, keys that were added since then get their default values.

  Raises:
    UserError: config.json is missing, cannot be read, or was not written by ae_jax.
  """
  if not (workdir / "config.json").exists():
    raise errors.UserError(f"{workdir}: there is no run here (no config.json); use the folder of a run")
  try:
    description = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f"{workdir}/config.json: cannot be read: {error}; restore the file, or use another folder"
    ) from None
  contents = description if isinstance(description, dict) else {}
  config, data = (contents.get(key) for key in ("config", "data"))
  shape = data.get("shape") if isinstance(data, dict) else None
  valid = isinstance(shape, list) and len(shape) in KINDS and all(isinstance(n, int) and 0 < n < 2**31 for n in shape)
  if not isinstance(config, dict) or not valid:
    raise errors.UserError(f"{workdir}/config.json: was not written by ae_jax; use another folder")
  if "format" not in description:
    _migrate(config)
  description["config"] = configs.completed(config)
  return description


def _migrate(stored: dict[str, Any]) -> None:
  """Updates a stored config of format 1 to the current format, in place."""
  section = stored.get("data")
  if isinstance(section, dict) and section.get("one_class") == -1:
    section["one_class"] = None


def chosen(workdir: pathlib.Path) -> dict[str, tuple[Any, Any]]:
  """Returns {config key: (value in the config that started the run, value that was chosen at its start)}.

  The result is {} if there is no run in the folder, or if nothing was chosen.
  """
  if not (workdir / "config.json").exists():
    return {}
  return {key: tuple(values) for key, values in read_description(workdir).get("chosen", {}).items()}


def _git_commit() -> str | None:
  """Returns the Git commit of this package, with "+" if files have changed since; None outside a repository."""
  git = ("git", "-C", str(pathlib.Path(__file__).parent))
  try:
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout.decode().strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit + ("+" if changed else "")

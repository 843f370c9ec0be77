"""The folder of a run: how it is begun, continued and extended, and what its config.json holds."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

from ae_jax import config as configs
from ae_jax import data, errors
from ae_jax.system import paths

LOCK = ".lock"  # the file in a run's folder that the process which trains there holds
FORMAT = 2  # of config.json; without the key it is 1, where config.data.one_class=-1 meant examples of any label
_PACKAGES = ("ae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(config, dataset, model, devices):
  """What config.json holds: the resolved config and what else it takes to repeat the run or to use its model."""
  resolved = configs.as_json(config)
  resolved["data"]["one_class"] = dataset.one_class
  return {
    "format": FORMAT,
    "config": resolved,
    "data": _describe_data(dataset) | ({"label_values": list(model.labels)} if model.labels else {}),
    "code": {"shape": list(model.code.shape), "numbers": model.code.numbers, "bits": model.code.bits},
    "parameters": model.parameter_count(),
    "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES},
    "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
    "git_commit": _git_commit(),
    "command": shlex.join([pathlib.Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
  }


def _describe_data(dataset):
  halves = {"train": len(dataset.train), "test": len(dataset.test)}
  return {"shape": list(dataset.shape), **halves, **dataset.fingerprints}


@contextlib.contextmanager
def locked(workdir):
  """Holds a run's folder, which is made if need be, against every other process; UserError if another one holds it."""
  import filelock

  lock = filelock.FileLock(workdir / LOCK, blocking=False)
  with errors.writing(f"--workdir={workdir}"):
    workdir.mkdir(parents=True, exist_ok=True)
    _check_holds_a_run_or_nothing(workdir)
    try:
      lock.acquire()
    except filelock.Timeout:
      raise errors.UserError(f"--workdir={workdir}: another process is training there; wait, or name another") from None
  try:
    yield
  finally:
    lock.release()


def _check_holds_a_run_or_nothing(workdir):
  if not (workdir / "config.json").exists():
    others = sorted(path.name for path in workdir.iterdir() if path.name not in ("config.json.part", LOCK))
    if others:
      raise errors.UserError(f"--workdir={workdir}: holds {others[0]!r} but no run; name a new or an empty folder")


def begin(workdir, description) -> list[str]:
  """Writes config.json into a `locked` folder, or makes sure that the run already there is the same one.

  A run with fewer epochs is extended: its config.json is written anew. Returns sentences about that, [] for none.

  Raises UserError, and changes nothing, for a run of another config or other data, and for a folder that cannot be
  written.
  """
  file = workdir / "config.json"
  part = workdir / "config.json.part"
  extended = _extension(workdir, description)
  if not extended and file.exists():
    check_same(workdir, description)
  with errors.writing(f"--workdir={workdir}"):
    if extended or not file.exists():
      part.write_text(json.dumps(description, indent=2) + "\n")
      os.replace(part, file)
    elif not os.access(workdir, os.W_OK):
      raise PermissionError(13, "Permission denied")
  return extended


def _extension(workdir, description) -> list[str]:
  """Returns sentences on how a description extends the run in a folder by more epochs; [] if it does not.

  Raises UserError if the run there has other data.
  """
  if not (workdir / "config.json").exists():
    return []
  there, config = read_description(workdir), description["config"]
  before, after = there["config"].get("epochs"), config["epochs"]
  shorter = {**there["config"], "epochs": after}
  if not errors.is_number(before) or before >= after or configs.differences(shorter, config):
    return []
  _check_same_data(workdir, there["data"], description["data"], config["data"])
  said = f"config.epochs: the run is extended from {before} to {after} epochs"
  schedule, last = config["optimizer"]["schedule"], sum(stage["epochs"] for stage in config["stages"])
  if schedule == "constant":
    return [f"{said}; the learning rate stays constant"]
  return [
    f"{said}; the {schedule} schedule of the learning rate now ends after epoch {last + after}, so the rate after "
    f"epoch {last + before} is not 0, and the result differs from a run of {after} epochs from the start"
  ]


def check_same(workdir, description):
  """Raises UserError for a folder whose run has another config than a description, or other data."""
  there = read_description(workdir)
  differences = configs.differences(there["config"], description["config"])
  if differences:
    raise errors.UserError(
      f"--workdir={workdir}: holds a run of another config: it differs in {', '.join(differences)}; name another folder"
    )
  _check_same_data(workdir, there["data"], description["data"], description["config"]["data"])


def data_of(workdir, config):
  """The data set that the run in a folder was trained on, from its config; UserError where it is another by now."""
  workdir = paths.local_path("workdir", workdir)
  configs.check_analyzed(config)
  dataset = data.load(**config.data)
  _check_same_data(workdir, read_description(workdir)["data"], _describe_data(dataset), config.data.to_dict())
  return dataset


# Keys of the description of the data -> what differs if they do. Runs of earlier versions have no labels or factors.
_PARTS = {
  "shape": "shape",
  "train": "number of training examples",
  "test": "number of test examples",
  "fingerprint": "examples",
  "labels_fingerprint": "labels",
  "factors_fingerprint": "factors",
}


def _check_same_data(workdir, there, here, section):
  """Raises UserError, which names the parts that differ, unless the data are those of the run in a folder."""
  compared = [key for key in _PARTS if key in there or key == "fingerprint"]
  differing = [_PARTS[key] for key in compared if there.get(key) != here[key]]
  if differing:
    raise errors.UserError(
      f"--workdir={workdir}: its run was trained on other data than {section}: different {', '.join(differing)}; "
      "restore the data, or train in another folder"
    )


def read_description(workdir):
  """What config.json of a run's folder holds (see `describe`); UserError where that is not what a run wrote."""
  try:
    description = json.loads((workdir / "config.json").read_text())
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{workdir}/config.json: cannot be read: {error}") from None
  found = description if isinstance(description, dict) else {}
  config, data = (found.get(key) for key in ("config", "data"))
  shape = data.get("shape") if isinstance(data, dict) else None
  sides = isinstance(shape, list) and len(shape) in (2, 3) and all(isinstance(n, int) and 0 < n < 2**31 for n in shape)
  if not isinstance(config, dict) or not sides:
    raise errors.UserError(f"{workdir}/config.json: is not that of a run; name another folder")
  if "format" not in description:
    _migrate(config)
  description["config"] = configs.completed(config)
  return description


def _migrate(stored):
  """Changes a stored config of format 1 to what the same keys mean today."""
  section = stored.get("data")
  if isinstance(section, dict) and section.get("one_class") == -1:
    section["one_class"] = None


def _git_commit():
  """The commit of the checkout that this package runs from, "+" behind it if there are changes; None outside one."""
  git = ("git", "-C", str(pathlib.Path(__file__).parent))
  try:
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit + ("+" if changed else "")

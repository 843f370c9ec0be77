"""The folder of a run: how it is begun or continued, and `load`, a trained model as pure functions."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from ae_jax import checkpoints, data, errors, logs, losses, memory, models, paths
from ae_jax import config as configs
from ae_jax.data import ranges

LOCK = ".lock"  # the file in a run's folder that the process which trains there holds
_LARGEST_BATCH = 256  # examples that `Run`'s functions put through the model at once: more leave a CPU's cache
FORMAT = 2  # of config.json; without the key it is 1, where config.data.one_class=-1 meant examples of any label
_PACKAGES = ("ae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(config, dataset, model, devices):
  """What config.json holds: the resolved config and what else it takes to repeat the run or to use its model."""
  resolved = configs.as_json(config)
  resolved["data"]["one_class"] = dataset.one_class
  return {
    "format": FORMAT,
    "config": resolved,
    "data": _describe_data(dataset),
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


def begin(workdir, description):
  """Writes config.json into a `locked` folder, or makes sure that the run already there is the same one.

  Raises UserError, and changes nothing, for a run of another config or other data, and for a folder that cannot be
  written.
  """
  file = workdir / "config.json"
  part = workdir / "config.json.part"
  with errors.writing(f"--workdir={workdir}"):
    if not file.exists():
      part.write_text(json.dumps(description, indent=2) + "\n")
      os.replace(part, file)
    elif not os.access(workdir, os.W_OK):
      raise PermissionError(13, "Permission denied")
  check_same(workdir, description)


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
  configs.check_studied(config)
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


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model as pure functions of NumPy arrays.

  Examples are images [N, H, W, C] (without C if there is one channel) or series [N, T, C], as the run was trained on,
  uint8 or floating point in the run's range; any N.
  """

  params: dict
  config: ConfigDict
  metrics: dict  # name -> value, as of the checkpoint's step
  history: list  # the records of metrics.jsonl up to that step
  model: models.Model
  step: int  # of the checkpoint

  def encode(self, x):
    """Examples -> codes float32 [N, latent]."""
    return self.apply("encode", self._checked(x))

  def decode(self, z):
    """Codes [N, latent] -> examples float32 [N, ...] in the run's range."""
    z = np.asarray(z, np.float32)
    if z.shape[1:] != (self.config.model.latent,):
      raise errors.UserError(f"codes of shape {z.shape}: this run takes [N, {self.config.model.latent}]")
    return self.apply("decode", z)

  def reconstruct(self, x):
    """Examples -> their reconstructions, float32 [N, ...] in the run's range."""
    return self.apply("reconstruct", self._checked(x))

  def score(self, x):
    """Examples -> their squared reconstruction errors, float32 [N]: the larger, the less like the training data."""
    return np.asarray(losses.squared_error(self.reconstruct(x), self._checked(x)))

  def attention(self, x):
    """Examples -> {layer of the encoder: attention weights float32 [N, heads, queries, keys]}; {} without attention."""
    x = self._checked(x)
    if not jax.eval_shape(self.model.attention, self.params, x):
      return {}  # without compiling anything
    return jax.tree.map(np.asarray, _attention(self.params, x, model=self.model))

  def apply(self, method, array):
    """`encode`, `decode` or `reconstruct` of a float32 array that is not checked; codes, or examples in the range.

    It goes in batches padded to a power of two, so that few sizes are compiled.
    """
    shape = (self.config.model.latent,) if method == "encode" else self.model.shape
    results = [np.zeros((0, *shape), np.float32)]
    for start in range(0, len(array), _LARGEST_BATCH):
      batch = array[start : start + _LARGEST_BATCH]
      size = 1 << (len(batch) - 1).bit_length()
      padded = np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), np.float32)])
      found = _apply(self.params, padded, model=self.model, method=method, value_range=self.config.data.range)
      results.append(np.asarray(found)[: len(batch)])
    return np.concatenate(results)

  def _checked(self, x):
    """The examples as float32 [N, ...] in the run's range."""
    x = np.asarray(x)
    if x.ndim == len(self.model.shape) and self.model.shape[-1] == 1:
      x = x[..., None]
    if x.shape[1:] != self.model.shape:
      raise errors.UserError(
        f"examples of shape {x.shape}: this run takes [N, {', '.join(map(str, self.model.shape))}]"
      )
    fault = ranges.fault(x, self.config.data.range)
    if fault:
      raise errors.UserError(f"the array of examples {fault}")
    return ranges.normalise(x, self.config.data.range)


def of(params, config, model, workdir, step):
  """The `Run` in a folder, as of a step at which its parameters are these."""
  history = [record for record in logs.stream(workdir) if record["step"] <= step]
  metrics = {name: value for record in history for name, value in record.items()}
  return Run(params, config, metrics, history, model, step)


def load(workdir, which="last"):
  """The `Run` in a folder, with the parameters of its "last" or its "best" checkpoint (smallest test error).

  Raises UserError for a folder without a run, or without a checkpoint yet.
  """
  workdir = paths.local_path("workdir", workdir)
  if not (workdir / "config.json").exists():
    raise errors.UserError(f"{workdir}: there is no run here (no config.json)")
  description = read_description(workdir)
  config = configs.from_json(description["config"])
  configs.check_trained(config)
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  model = models.build(shape=description["data"]["shape"], compute_dtype=config.compute_dtype, **config.model)
  memory.check_parameters(model)
  with checkpoints.open_folder(workdir / "checkpoints", to_save=False) as opened:
    steps = checkpoints.kept(opened)
    if not steps:
      raise errors.UserError(f"{workdir}: no checkpoint yet; let the run train for a while")
    if which not in steps:
      raise errors.UserError(f"which={which!r}: must be one of {', '.join(steps)}")
    like = model.abstract_params()
    params = checkpoints.restore_params(opened, steps[which], like)
  return of(params, config, model, workdir, steps[which])


@functools.partial(jax.jit, static_argnames=("model", "method", "value_range"))
def _apply(params, x, *, model, method, value_range):
  found = getattr(model, method)(params, x)
  return found if method == "encode" else losses.OUTPUT_ACTIVATIONS[value_range](found)


@functools.partial(jax.jit, static_argnames="model")
def _attention(params, x, *, model):
  return model.attention(params, x)


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

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


def begin(workdir, description):
  """Writes config.json into a `locked` folder, or makes sure that the run already there is the same one.

  A run with fewer epochs is extended: its config.json is written anew.

  Raises UserError, and changes nothing, for a run of another config or other data, and for a folder that cannot be
  written.
  """
  file = workdir / "config.json"
  part = workdir / "config.json.part"
  extended = extension(workdir, description)
  if not extended and file.exists():
    check_same(workdir, description)
  with errors.writing(f"--workdir={workdir}"):
    if extended or not file.exists():
      part.write_text(json.dumps(description, indent=2) + "\n")
      os.replace(part, file)
    elif not os.access(workdir, os.W_OK):
      raise PermissionError(13, "Permission denied")


def extension(workdir, description) -> list[str]:
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
  uint8 or floating point in the run's range; any N. A model that was trained on more columns than the examples takes
  these by name: `run.encode(x, label=labels)`, where one label stands for all examples.
  """

  variables: models.Variables
  config: ConfigDict
  metrics: dict  # name -> value, as of the checkpoint's step
  history: list  # the records of metrics.jsonl up to that step
  model: models.Model
  step: int  # of the checkpoint

  @property
  def params(self):
    """The trained parameters, nested dicts of arrays."""
    return self.variables.params

  def encode(self, x, **columns) -> np.ndarray:
    """Returns the latent codes float32 [N, *code shape] of examples."""
    x = self._checked(x)
    return self.apply("encode", x, self._given(len(x), columns))

  def encode_indices(self, x, **columns) -> np.ndarray:
    """Returns the discrete codes int32 [N, ...] of examples; UserError if the latent code is not discrete."""
    if self.model.code.levels is None:
      raise errors.UserError(
        "encode_indices: the latent code of this run is real, not discrete; use encode, or train a model with a "
        "quantised code (configs/vqvae.py, or config.model.bottleneck='fsq5')"
      )
    x = self._checked(x)
    return self.apply("indices", x, self._given(len(x), columns))

  def decode(self, z, **columns) -> np.ndarray:
    """Returns the examples float32 [N, ...] in the run's range that latent codes [N, *code shape] decode to."""
    z, shape = np.asarray(z, np.float32), self.model.code.shape
    if z.shape[1:] != shape:
      raise errors.UserError(f"latent codes of shape {z.shape}: this run takes [N, {', '.join(map(str, shape))}]")
    return self.apply("decode", z, self._given(len(z), columns))

  def decode_indices(self, indices, **columns) -> np.ndarray:
    """Returns what discrete codes, as `encode_indices` returns them, decode to; see `decode`."""
    code, indices = self.model.code, np.asarray(indices)
    if code.levels is None:
      raise errors.UserError("decode_indices: the latent code of this run is real, not discrete; use decode")
    if indices.shape[1:] != code.index_shape or not np.issubdtype(indices.dtype, np.integer):
      wanted = ", ".join(map(str, code.index_shape))
      raise errors.UserError(f"indices {indices.dtype} {indices.shape}: this run takes integers [N, {wanted}]")
    if indices.size and not 0 <= indices.min() <= indices.max() < code.levels:
      raise errors.UserError(f"indices from {indices.min()} to {indices.max()}: must be from 0 to {code.levels - 1}")
    z = self.apply("lookup", indices.astype(np.int32), {})
    return self.apply("decode", z, self._given(len(z), columns))

  def reconstruct(self, x, **columns) -> np.ndarray:
    """Returns the reconstructions of examples, float32 [N, ...] in the run's range."""
    x = self._checked(x)
    return self.apply("reconstruct", x, self._given(len(x), columns))

  def score(self, x, **columns) -> np.ndarray:
    """Returns the squared reconstruction errors float32 [N]: large for examples unlike those trained on."""
    return np.asarray(losses.squared_error(self.reconstruct(x, **columns), self._checked(x)))

  def attention(self, x, **columns) -> dict[str, np.ndarray]:
    """Returns {layer of the encoder: attention weights float32 [N, heads, queries, keys]}; {} without attention."""
    x = self._checked(x)
    return self.attention_of(x, self._given(len(x), columns))

  def attention_of(self, x, given) -> dict[str, np.ndarray]:
    """Returns the same of examples and columns that are not checked; see `apply`."""
    if not jax.eval_shape(self.model.attention, self.variables, x, given):
      return {}  # without compiling anything
    return jax.tree.map(np.asarray, _attention(self.variables, x, given, model=self.model))

  def apply(self, method, array, given) -> np.ndarray:
    """Returns a method of FUNCTIONS of a float32 array that is not checked: latent codes, or examples in the range.

    `given` holds the columns that the model needs, int32 [N]. The array is processed in batches padded to a power of
    two, so that few sizes are compiled.
    """
    function = functools.partial(_apply, model=self.model, method=method, value_range=self.config.data.range)
    one = lambda rows: jax.ShapeDtypeStruct((1, *rows.shape[1:]), rows.dtype)
    empty = jax.eval_shape(function, self.variables, one(array), {name: one(rows) for name, rows in given.items()})
    results = [np.zeros((0, *empty.shape[1:]), empty.dtype)]
    for start in range(0, len(array), _LARGEST_BATCH):
      batch = {name: rows[start : start + _LARGEST_BATCH] for name, rows in (given | {"": array}).items()}
      size = len(batch[""])
      padding = (1 << (size - 1).bit_length()) - size
      padded = {name: np.concatenate([r, np.zeros((padding, *r.shape[1:]), r.dtype)]) for name, r in batch.items()}
      results.append(np.asarray(function(self.variables, padded.pop(""), padded))[:size])
    return np.concatenate(results)

  def _given(self, count, columns):
    """The columns that the model needs besides x, as it takes them; UserError for one that is missing or unknown."""
    needed = self.model.columns
    for name in {*columns} - {*needed}:
      raise errors.UserError(f"{name}=: this run takes no column {name!r}; it takes {', '.join(('x', *needed))}")
    for name in needed:
      if name not in columns:
        raise errors.UserError(f"{name}= is missing: this run was trained on x and {', '.join(needed)}; give it too")
    return {name: data.class_numbers(columns[name], self.model.labels, count) for name in needed}

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


def of(variables, config, model, workdir, step):
  """Returns the `Run` in a folder at a step, where its variables are these."""
  history = [record for record in logs.stream(workdir) if record["step"] <= step]
  metrics = {name: value for record in history for name, value in record.items()}
  return Run(variables, config, metrics, history, model, step)


WEIGHTS = ("auto", "ema", "raw")


def load(workdir, which="last", weights="auto") -> Run:
  """Returns the `Run` in a folder.

  Args:
    workdir: the folder.
    which: "last" checkpoint, or the "best" one, with the smallest test error.
    weights: "ema" for the moving averages of the parameters (`config.ema_decay`), "raw" for the parameters of the last
      step, or "auto" for those that the run's metrics belong to: the averages if there are any.

  Raises:
    UserError: if the folder has no run, no checkpoint yet, or no averages where they are asked for.
  """
  workdir = paths.local_path("workdir", workdir)
  if not (workdir / "config.json").exists():
    raise errors.UserError(f"{workdir}: there is no run here (no config.json)")
  description = read_description(workdir)
  config = configs.from_json(description["config"])
  configs.check_trained(config)
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  errors.choose(dict.fromkeys(WEIGHTS), weights, "weights")
  averaged = config.to_dict().get("ema_decay", 0.0) > 0  # runs of earlier versions have no such key
  if weights == "ema" and not averaged:
    raise errors.UserError(f"weights='ema': {workdir} was trained with config.ema_decay=0; use weights='raw'")
  known = description["data"]
  model = models.build(
    shape=known["shape"],
    compute_dtype=config.compute_dtype,
    labels=known.get("label_values", ()),
    **config.model,
  )
  like = memory.check_parameters(model)
  with checkpoints.open_folder(workdir / "checkpoints", to_save=False) as opened:
    steps = checkpoints.kept(opened)
    if not steps:
      raise errors.UserError(f"{workdir}: no checkpoint yet; let the run train for a while")
    if which not in steps:
      raise errors.UserError(f"which={which!r}: must be one of {', '.join(steps)}")
    name = "ema_params" if averaged and weights != "raw" else "params"
    wanted = {name: like.params} | ({"model_state": like.state} if jax.tree.leaves(like.state) else {})
    parts = checkpoints.restore_parts(opened, steps[which], wanted)
  return of(models.Variables(parts[name], parts.get("model_state", {})), config, model, workdir, steps[which])


# What `Run.apply` computes: (model, output activation) -> (variables, array, given) -> array.
FUNCTIONS = {
  "encode": lambda model, activation: lambda *args: model.encode(*args).z,
  "indices": lambda model, activation: lambda *args: model.encode(*args).indices,
  "decode": lambda model, activation: lambda *args: activation(model.decode(*args)),
  "lookup": lambda model, activation: lambda variables, array, given: model.lookup(variables, array),
  "nearest": lambda model, activation: lambda variables, array, given: model.nearest_codes(variables, array),
  "reconstruct": lambda model, activation: lambda *args: activation(model.reconstruct(*args)),
}


@functools.partial(jax.jit, static_argnames=("model", "method", "value_range"))
def _apply(variables, array, given, *, model, method, value_range):
  return FUNCTIONS[method](model, losses.OUTPUT_ACTIVATIONS[value_range])(variables, array, given)


@functools.partial(jax.jit, static_argnames="model")
def _attention(variables, x, given, *, model):
  return model.attention(variables, x, given)


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

"""A trained model in Python: `load` reads the folder of a run, `Run` is its model as functions of NumPy arrays."""

import dataclasses
import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import data, errors, models
from ae_jax.data import ranges
from ae_jax.models import memory
from ae_jax.ops import losses
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.system import paths

WEIGHTS = ("auto", "ema", "raw")
_LARGEST_BATCH = 256  # examples that `Run`'s functions put through the model at once: more leave a CPU's cache


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
  def params(self) -> dict:
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


def of(variables, config, model, workdir, step) -> Run:
  """Returns the `Run` in a folder at a step, where its variables are these."""
  history = [record for record in logs.stream(workdir) if record["step"] <= step]
  metrics = {name: value for record in history for name, value in record.items()}
  return Run(variables, config, metrics, history, model, step)


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
  description = run_folder.read_description(workdir)
  config = configs.from_json(description["config"])
  configs.check_trained(config)
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  errors.choose(dict.fromkeys(WEIGHTS), weights, "weights")
  averaged = config.ema_decay > 0
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


# Methods of `Run.apply`: each maps (model, output activation) to a function (variables, array, given) -> array.
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

"""Python API of a trained model: `load` reads a run folder and returns a `Run`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float64, Int32, Shaped
from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import data, errors, models
from ae_jax.data import ranges, standardisation, windows
from ae_jax.data import scaling as scalings
from ae_jax.data.standardisation import Standardisation
from ae_jax.models import inference, memory
from ae_jax.ops import losses
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.system import paths
from ae_jax.types import AnyArray, Columns

WEIGHTS = ("auto", "ema", "raw")


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model with methods that map NumPy arrays to NumPy arrays.

  The methods take any number N of examples. Examples have the shape that the model was trained on, such as images
  [N, H, W, C], series [N, T, C] or rows of a table [N, columns]; the axis C may be omitted if its size is 1. They are
  uint8, or floating point in the data range of the run (`config.data.range`). If the run was trained on other integers
  or on booleans, integers are in the unit of the training data; see `scaling`.

  A conditional model also needs its other inputs as keyword arguments. A label is an array [N] of integers or class
  names, or one of these for all examples: `run.encode(x, label=labels)`, `run.decode(z, label="seven")`.

  The methods raise UserError if the shape, dtype or values of an array do not match the run, or if an input is missing
  or unknown.

  Example:
    >>> run = ae_jax.load("runs/cnn")
    >>> z = run.encode(images)
    >>> x_hat = run.decode(z)
    >>> errors = run.score(images)

  Attributes:
    variables: Parameters and model state.
    config: The config of the run.
    metrics: Most recent value of each metric up to the step of the checkpoint.
    history: Records of metrics.jsonl up to the step of the checkpoint.
    model: The model; its methods take `variables` as an argument.
    step: Number of optimizer steps at the checkpoint.
    class_names: Name of each label 0, 1, ...; None if the labels have no names.
    scaling: How integers and booleans are converted, if they are not bytes; None otherwise.
    standardisation: Standardisation of the examples (`config.data.scale`), which the methods apply to examples and undo
      in outputs; None otherwise.
  """

  variables: models.Variables
  config: ConfigDict
  metrics: dict[str, float | int]
  history: list[dict[str, float | int]]
  model: models.Model
  step: int
  class_names: tuple[str, ...] | None = None
  scaling: scalings.Scaling | None = None
  standardisation: Standardisation | None = None

  @property
  def params(self) -> dict[str, Any]:
    """The trained parameters, as nested dicts of arrays."""
    return self.variables.params

  def encode(self, x: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the latent codes of examples.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Latent codes float32 [N, *code shape], for example [N, latent].
    """
    x = self._checked_examples(x)
    return self.apply("encode", x, self._checked_columns(len(x), columns))

  def encode_indices(self, x: AnyArray, **columns: Any) -> Int32[np.ndarray, "examples ..."]:
    """Returns the codebook indices of examples, for a model with a discrete latent code.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Indices int32 [N, *index shape].

    Raises:
      UserError: The latent code is not discrete, or an argument is invalid.
    """
    if self.model.code.levels is None:
      raise errors.UserError(
        "encode_indices: the latent code of this run is continuous, not discrete; use encode, or train a model with a "
        "quantised latent code (configs/vqvae.py, or config.model.bottleneck='fsq5')"
      )
    x = self._checked_examples(x)
    return self.apply("indices", x, self._checked_columns(len(x), columns))

  def decode(self, z: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the decoder outputs for latent codes.

    Args:
      z: Latent codes [N, *code shape], as returned by `encode`.
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Examples float32 [N, *shape] in the data range of the run.
    """
    z, shape = np.asarray(z, np.float32), self.model.code.shape
    if z.shape[1:] != shape:
      raise errors.UserError(
        f"latent codes of shape {z.shape}: the shape must be [N, {', '.join(map(str, shape))}] for this run"
      )
    return self._unscaled(self.apply("decode", z, self._checked_columns(len(z), columns)))

  def decode_indices(self, indices: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the decoder outputs for codebook indices, for a model with a discrete latent code.

    Args:
      indices: Integers [N, *index shape], as returned by `encode_indices`.
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Examples float32 [N, *shape] in the data range of the run.

    Raises:
      UserError: The latent code is not discrete, or an argument is invalid.
    """
    code, indices = self.model.code, np.asarray(indices)
    if code.levels is None:
      raise errors.UserError("decode_indices: the latent code of this run is continuous, not discrete; use decode")
    if indices.shape[1:] != code.index_shape or not np.issubdtype(indices.dtype, np.integer):
      wanted = ", ".join(map(str, code.index_shape))
      raise errors.UserError(
        f"indices of dtype {indices.dtype} and shape {indices.shape}: must be integers of shape [N, {wanted}]"
      )
    if indices.size and not 0 <= indices.min() <= indices.max() < code.levels:
      raise errors.UserError(f"indices from {indices.min()} to {indices.max()}: must be from 0 to {code.levels - 1}")
    z = self.apply("lookup", indices.astype(np.int32), {})
    return self._unscaled(self.apply("decode", z, self._checked_columns(len(z), columns)))

  def reconstruct(self, x: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the reconstructions float32 [N, *shape] of examples [N, *shape], in the data range of the run."""
    x = self._checked_examples(x)
    return self._unscaled(self.apply("reconstruct", x, self._checked_columns(len(x), columns)))

  def score(self, x: AnyArray, **columns: Any) -> Float[np.ndarray, " examples"]:
    """Returns the anomaly scores of examples, which are large for examples that differ from the training data.

    Returns:
      Squared reconstruction errors float32 [N], summed over the elements of an example, in the units of the model:
      if the run standardises its data (config.data.scale), errors are in standard deviations.
    """
    x = self._checked_examples(x)
    reconstructions = self.apply("reconstruct", x, self._checked_columns(len(x), columns))
    return np.asarray(losses.squared_error(reconstructions, x))

  def score_record(self, record: AnyArray) -> Float64[np.ndarray, " steps"]:
    """Returns the anomaly score of each time step of a long record, for a run with config.data.window.

    Args:
      record: Record [T] or [T, C]. Windows are cut from it as from the training record.

    Returns:
      Squared reconstruction errors [T], summed over the channels and averaged over the windows that contain the step;
      NaN for steps at the end that are in no window.

    Raises:
      UserError: The run was not trained on windows, or the record is shorter than a window.
    """
    window, stride = self.config.data.window, self.config.data.stride or self.config.data.window
    if not window:
      raise errors.UserError("score_record: the examples of this run are not windows (config.data.window=0); use score")
    x = self._checked_examples(windows.of_record(np.asarray(record), window, stride, "the record")[:])
    reconstructions = self.apply("reconstruct", x, self._checked_columns(len(x), {}))
    squares = np.square(reconstructions - x, dtype=np.float64).sum(-1)
    return windows.over_time(squares, stride, len(record))

  def attention(self, x: AnyArray, **columns: Any) -> dict[str, Float[np.ndarray, "examples heads queries keys"]]:
    """Returns the attention weights of the encoder for examples.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      {layer name: attention weights float32 [N, heads, queries, keys]}; {} for an encoder without attention.
    """
    x = self._checked_examples(x)
    return self.attention_of(x, self._checked_columns(len(x), columns))

  def attention_of(self, x: AnyArray, columns: Columns) -> dict[str, np.ndarray]:
    """Returns the result of `attention` for arguments that are already checked, as in `apply`."""
    return inference.attention(self.model, self.variables, x, columns)

  def apply(self, method: str, array: AnyArray, columns: Columns) -> Shaped[np.ndarray, "examples ..."]:
    """Returns the result of a method of the model for arguments that are already checked; see `inference.apply`."""
    return inference.apply(self.model, self.variables, method, array, columns, self.config.data.range)

  def _checked_columns(self, count: int, columns: Mapping[str, Any]) -> Columns:
    """Returns the other inputs of the model, {name: int32 [count]}; UserError if an input is missing or unknown."""
    needed = self.model.columns
    for name in {*columns} - {*needed}:
      known = ", ".join(("x", *needed))
      raise errors.UserError(f"{name}=: the model of this run has no input {name!r}; its inputs are {known}")
    for name in needed:
      if name not in columns:
        inputs = ", ".join(needed)
        raise errors.UserError(f"{name}= is missing: this run was trained on x and {inputs}; pass {name}=... too")
    labels = self.model.labels
    return {name: data.class_indices(columns[name], labels, count, self.class_names) for name in needed}

  def _checked_examples(self, x: AnyArray) -> Float[np.ndarray, "examples ..."]:
    """Returns the examples as float32 [N, *shape] in the data range; UserError if they do not match the run."""
    x = np.asarray(x)
    if x.ndim == len(self.model.shape) and self.model.shape[-1] == 1:
      x = x[..., None]
    if x.shape[1:] != self.model.shape:
      raise errors.UserError(
        f"examples of shape {x.shape}: the shape must be [N, {', '.join(map(str, self.model.shape))}] for this run"
      )
    value_range, scaling = self.config.data.range, self.scaling
    in_unit = scaling is not None and scaling.applies_to(x)
    fault = scaling.fault(x) if in_unit else None
    if in_unit and not fault:
      x = scaling.convert(x, value_range)
    fault = fault or ranges.range_error(x, value_range)
    if fault:
      trained = f"; the training examples were {scaling.in_words(value_range)}" if scaling and not in_unit else ""
      raise errors.UserError(f"the array of examples {fault}{trained}")
    x = ranges.normalise(x, value_range)
    return x if self.standardisation is None else self.standardisation.apply(x)

  def _unscaled(self, x: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples ..."]:
    """Returns outputs of the model in the units of the data."""
    return x if self.standardisation is None else self.standardisation.invert(x)


def make_run(
  variables: models.Variables,
  config: ConfigDict,
  model: models.Model,
  workdir: pathlib.Path,
  step: int,
  *,
  described: Mapping[str, Any],
) -> Run:
  """Returns a `Run` with the given variables and the metrics that the run folder contains up to `step`.

  `described` is "data" in config.json.
  """
  history = [record for record in logs.stream(workdir) if record["step"] <= step]
  metrics = {name: value for record in history for name, value in record.items()}
  class_names, scaling = described.get("class_names"), described.get("scaling")
  return Run(
    variables,
    config,
    metrics,
    history,
    model,
    step,
    class_names=tuple(class_names) if class_names else None,
    scaling=scalings.Scaling(**scaling) if scaling else None,
    standardisation=standardisation.from_json(described.get("standardisation")),
  )


def load(workdir: str | os.PathLike[str], which: str = "last", weights: str = "auto") -> Run:
  """Returns the trained model in a run folder.

  Example:
    >>> run = ae_jax.load("runs/cnn", which="best")
    >>> x_hat = run.reconstruct(images)

  Args:
    workdir: The run folder, the `--workdir` of the training.
    which: "last" for the newest checkpoint, "best" for the checkpoint with the smallest test error.
    weights: "raw" for the trained parameters, "ema" for their exponential moving averages (`config.ema_decay`), "auto"
      for the averages if the run has them and otherwise the trained parameters. The metrics of the run are measured
      with the parameters that "auto" returns.

  Raises:
    UserError: The folder contains no run or no checkpoint, the checkpoint is damaged, an argument has an unknown value,
      or `weights` is "ema" and the run has no averages.
  """
  workdir = paths.local_path("workdir", workdir)
  description = run_folder.read_description(workdir)
  config = configs.from_json(description["config"])
  configs.check_trained(config)
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  if weights not in WEIGHTS:
    raise errors.UserError(f"weights={weights!r}: must be one of {', '.join(map(repr, WEIGHTS))}")
  averaged = config.ema_decay > 0
  if weights == "ema" and not averaged:
    raise errors.UserError(f"weights='ema': {workdir} was trained with config.ema_decay=0; use weights='raw'")
  model = models.build(
    shape=description["data"]["shape"],
    compute_dtype=config.compute_dtype,
    labels=description["data"].get("label_values", ()),
    **config.model,
  )
  abstract = memory.check_parameters(model)
  with checkpoints.open_folder(workdir / "checkpoints", to_save=False) as opened:
    steps = checkpoints.last_and_best(opened)
    if not steps:
      raise errors.UserError(f"{workdir}: no checkpoint yet; wait until the training has saved one")
    if which not in steps:
      raise errors.UserError(f"which={which!r}: must be one of {', '.join(steps)}")
    name = "ema_params" if averaged and weights != "raw" else "params"
    wanted = {name: abstract.params} | ({"model_state": abstract.state} if jax.tree.leaves(abstract.state) else {})
    parts = checkpoints.restore_parts(opened, steps[which], wanted)
  variables = models.Variables(parts[name], parts.get("model_state", {}))
  return make_run(variables, config, model, workdir, steps[which], described=description["data"])

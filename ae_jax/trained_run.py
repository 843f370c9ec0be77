"""A trained model with methods for NumPy arrays; `api.load` reads it from a run folder."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Shaped
from ml_collections import ConfigDict

from ae_jax import errors, models
from ae_jax.data import scaling as scalings
from ae_jax.data import schema as schemas
from ae_jax.data import table_rows, windows
from ae_jax.data.conversion import Conversion, Converted
from ae_jax.data.standardisation import ColumnScaling
from ae_jax.models import inference
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns


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
    standardisation: Scaling of the examples (`config.data.scale`), which the methods apply to examples and undo in
      outputs; None otherwise.
    schema: Columns of a table; None otherwise. The methods of such a run take DataFrames and dicts {column: values}, in
      any order of the columns, and arrays [N, columns] of numbers. Missing values are treated as in training.
    workdir: The run folder; None for a model without one.
  """

  variables: models.Variables
  config: ConfigDict
  metrics: dict[str, float | int]
  history: list[dict[str, float | int]]
  model: models.Model
  step: int
  class_names: tuple[str, ...] | None = None
  scaling: scalings.Scaling | None = None
  standardisation: ColumnScaling | None = None
  schema: schemas.Schema | None = None
  workdir: pathlib.Path | None = None

  @property
  def params(self) -> dict[str, Any]:
    """The trained parameters, as nested dicts of arrays."""
    return self.variables.params

  def encode(self, x: Any, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the latent codes of examples.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of the model: `label` of a conditional model, or `mask` of the observed elements (of the
        shape of `x`, or without its axis of channels) of a `sequence` model that was trained with a mask.

    Returns:
      Latent codes float32 [N, *code shape], for example [N, latent].
    """
    return self.apply("encode", *self._inputs(x, columns))

  def encode_indices(self, x: Any, **columns: Any) -> Int32[np.ndarray, "examples ..."]:
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
    return self.apply("indices", *self._inputs(x, columns))

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
    return self.conversion.invert(self.apply("decode", z, self._columns(len(z), columns)))

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
    return self.conversion.invert(self.apply("decode", z, self._columns(len(z), columns)))

  def reconstruct(self, x: Any, **columns: Any) -> Any:
    """Returns the reconstructions float32 [N, *shape] of examples [N, *shape], in the data range of the run.

    For a DataFrame or a dict of columns, the result is a DataFrame in the units and words of the table. For an array of
    the columns of a table, it is such an array.
    """
    return table_rows.like(x, self._reconstructions(*self._converted(x, columns)), self.schema)

  def to_frame(self, x: AnyArray) -> Any:
    """Returns examples of a table [N, *shape], such as those of `decode`, as a DataFrame with the columns of the table.

    Raises:
      UserError: The run was not trained on a table.
    """
    return table_rows.to_frame(x, self.schema)

  def column_errors(self, x: Any, **columns: Any) -> dict[str, float]:
    """Returns the reconstruction error of each column of a table, {column: error}.

    The error is the root of the mean squared error in the unit of the column, or for categories and booleans the share
    of wrong answers. Missing values are left out.

    Raises:
      UserError: The run was not trained on a table, or an argument is invalid.
    """
    raw = table_rows.raw_rows(x, self.schema)
    outputs = self._reconstructions(self.conversion(x), columns)
    return self.schema.column_errors(self.schema.decode(outputs), raw, ~np.isnan(raw))

  def impute(self, x: Any, mask: AnyArray | None = None, **columns: Any) -> Any:
    """Returns examples whose elements that were not observed are replaced by their reconstructions.

    The model runs once: it sees the elements that were not observed as 0 in the range "real" (the mean, if the run
    standardises its data) and as black in other ranges, as in training. The result for a DataFrame or a dict of columns
    is a DataFrame.

    Args:
      x: Examples [N, *shape], or rows of a table.
      mask: 1 for observed elements and 0 for others, of the shape of `x`; its axis of channels may be missing. None:
        missing values, NaN in arrays, were not observed.
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Examples float32 [N, *shape] in the data range of the run, or rows of a table in the form of `x`.
    """
    if self.schema is not None:
      raw, encoded, observed = table_rows.with_gaps(x, mask, self.schema)
      outputs = self._reconstructions(self.conversion.of_elements(encoded, observed), columns)
      return table_rows.completed(x, raw, outputs, self.schema)
    x = self.conversion.with_channels(x)
    if mask is None:
      mask = ~np.isnan(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    converted = self.conversion(x, mask)
    return np.where(converted.mask, converted.values, self._reconstructions(converted, columns))

  def score(
    self, x: Any, mask: AnyArray | None = None, target: Any = None, **columns: Any
  ) -> Float[np.ndarray, " examples"]:
    """Returns the anomaly scores of examples, which are large for examples that differ from the training data.

    Args:
      x: Examples [N, *shape], or rows of a table.
      mask: 1 for the elements that were observed and count, 0 for others, of the shape of `x`; its axis of channels may
        be missing. None: all elements count, except missing values if config.data.missing is "mask".
      target: Examples [N, *shape] with which the reconstructions are compared; None for `x`.
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Squared reconstruction errors float32 [N], summed over the elements of an example, in the units of the model:
      if the run standardises its data (config.data.scale), errors are in standard deviations.
    """
    examples = self.conversion(x, mask)
    target = examples.x if target is None else self.conversion(target, mask).x
    if target.shape != examples.x.shape:
      raise errors.UserError(f"target: {len(target)} targets for {len(examples.x)} examples; pass one per example")
    inputs = self._columns(len(target), columns, examples.mask)
    reconstructions = self.apply("reconstruct", examples.x, inputs)
    return np.asarray(losses.squared_error(reconstructions, target, *examples.factors))

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
    x = self.conversion(windows.of_record(np.asarray(record), window, stride, "the record")[:]).x
    reconstructions = self.apply("reconstruct", x, self._columns(len(x), {}))
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
    return self.attention_of(*self._inputs(x, columns))

  def attention_of(self, x: AnyArray, columns: Columns) -> dict[str, np.ndarray]:
    """Returns the result of `attention` for arguments that are already checked, as in `apply`."""
    return inference.attention(self.model, self.variables, x, columns)

  def apply(self, method: str, array: AnyArray, columns: Columns) -> Shaped[np.ndarray, "examples ..."]:
    """Returns the result of a method of the model for arguments that are already checked; see `inference.apply`."""
    return inference.apply(self.model, self.variables, method, array, columns, self.config.data.range)

  def _inputs(self, x: Any, columns: Mapping[str, Any]) -> tuple[Float[np.ndarray, "examples ..."], Columns]:
    """Returns the examples and the other inputs as the model receives them."""
    converted, columns = self._converted(x, columns)
    return converted.x, self._columns(len(converted.x), columns, converted.mask)

  def _converted(self, x: Any, columns: Mapping[str, Any]) -> tuple[Converted, dict[str, Any]]:
    """Returns converted examples, and the other inputs without the mask, which only some models take."""
    columns = dict(columns)
    return self.conversion(x, columns.pop("mask", None) if self.model.masked else None), columns

  def _columns(
    self, count: int, columns: Mapping[str, Any], mask: Bool[np.ndarray, "examples ..."] | None = None
  ) -> Columns:
    return inference.check_columns(self.model, self.class_names, count, columns, mask)

  @functools.cached_property
  def conversion(self) -> Conversion:
    """Converts examples to the input of the model, and its outputs to the units of the data."""
    return Conversion(self.model.shape, self.config.data.range, self.scaling, self.standardisation, self.schema)

  def _reconstructions(self, converted: Converted, columns: Mapping[str, Any]) -> Float[np.ndarray, "examples ..."]:
    """Returns the reconstructions of converted examples, in the units of the data."""
    x = converted.x
    inputs = self._columns(len(x), columns, converted.mask)
    return self.conversion.invert(self.apply("reconstruct", x, inputs))

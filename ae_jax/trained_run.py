"""A trained model with methods for NumPy arrays; `api.load` reads it from a run folder."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from ml_collections import ConfigDict

from ae_jax import errors, models
from ae_jax.data import in_memory, table_rows
from ae_jax.data import scaling as scalings
from ae_jax.data import schema as schemas
from ae_jax.data.conversion import Conversion, Converted
from ae_jax.data.recorded_tables import RecordColumns
from ae_jax.data.standardisation import ColumnScaling
from ae_jax.decisions import store
from ae_jax.exporting import files as exported_files
from ae_jax.exporting import hub, torch_layouts
from ae_jax.models import inference
from ae_jax.run_methods import decisions, discrete, latents, measures, presentation
from ae_jax.types import AnyArray, Columns


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model with methods that map NumPy arrays to NumPy arrays.

  The methods accept any number N of examples as NumPy or JAX arrays, PyTorch tensors or nested lists. Examples have the
  shape that the model was trained on, such as images [N, H, W, C], series [N, T, C] or rows of a table [N, columns];
  the axis C may be omitted if its size is 1. A single example may be passed without the axis N; the result then has
  N = 1: `run.encode(image)` has the shape [1, latent]. Examples are uint8, or floating point in the data range of the
  run (`config.data.range`). If the run was trained on other integers or on booleans, integers must be scaled like the
  training data; see `scaling`.

  A conditional model also needs its other inputs as keyword arguments. `label` is an array [N] of integers or class
  names, or a single one for all examples: `run.encode(x, label=labels)`, `run.decode(z, label="seven")`.

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
    records: Records of metrics.jsonl up to the step of the checkpoint; `history` contains them as a DataFrame.
    model: The model; its methods expect `variables` as an argument.
    step: Number of optimizer steps at the checkpoint.
    class_names: Name of each label 0, 1, ...; None if the labels have no names.
    scaling: How integers other than bytes, and booleans, are converted; None if the training data were bytes or floats.
    standardisation: Scaling of the examples (`config.data.scale`), which the methods apply to examples and invert for
      outputs; None without scaling.
    schema: Columns of a table; None for other data. With a schema, the methods also accept DataFrames and dicts
      {column: values}, with the columns in any order. Missing values are handled as in training.
    record_columns: Channels and times of recordings in a table (`config.data.window`); None for other data.
    workdir: The run folder; None if there is none.
  """

  variables: models.Variables
  config: ConfigDict
  metrics: dict[str, float | int]
  records: list[dict[str, float | int]]
  model: models.Model
  step: int
  class_names: tuple[str, ...] | None = None
  scaling: scalings.Scaling | None = None
  standardisation: ColumnScaling | None = None
  schema: schemas.Schema | None = None
  record_columns: RecordColumns | None = None
  workdir: pathlib.Path | None = None

  @property
  def params(self) -> dict[str, Any]:
    """The trained parameters, as nested dicts of arrays."""
    return self.variables.params

  encode_indices, decode_indices = discrete.encode_indices, discrete.decode_indices
  score, score_record, error_map = measures.score, measures.score_record, measures.error_map
  evaluate, column_errors = measures.evaluate, measures.column_errors
  set_threshold, flag, explain = decisions.set_threshold, decisions.flag, decisions.explain
  set_reference = decisions.set_reference
  threshold = functools.cached_property(decisions.threshold)
  reference = functools.cached_property(decisions.reference)
  posterior, sample, interpolate, nearest = latents.posterior, latents.sample, latents.interpolate, latents.nearest
  export, to_torch, push_to_hub = exported_files.export, torch_layouts.to_torch, hub.push_to_hub
  history = functools.cached_property(presentation.history)
  report, summary = presentation.report, presentation.summary
  __repr__, _repr_html_ = presentation.representation, presentation.in_notebook

  @functools.cached_property
  def weights_digest(self) -> str:
    """Digest of the variables; threshold.json and reference.npz store it to identify the weights they belong to."""
    return store.digest(self.variables)

  def encode(self, x: Any, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Returns the latent codes of examples.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of the model: `label` for a conditional model; `mask` for a `sequence` model that was
        trained with a mask (1 for observed elements, in the shape of `x` with or without its channel axis).

    Returns:
      Latent codes float32 [N, *code shape], for example [N, latent].
    """
    return self.apply("encode", *self.inputs(x, columns))

  def decode(self, z: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
    """Decodes latent codes to examples.

    Args:
      z: Latent codes [N, *code shape], as returned by `encode`.
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Examples float32 [N, *shape] in the data range of the run.
    """
    z, shape = in_memory.as_array(z, "z").astype(np.float32), self.model.code.shape
    z = z[None] if z.shape == shape else z
    if z.shape[1:] != shape:
      raise errors.UserError(
        f"latent codes of shape {z.shape}: the shape must be [N, {', '.join(map(str, shape))}] for this run"
      )
    return self.conversion.invert(self.apply("decode", z, self.check_columns(len(z), columns)))

  def reconstruct(self, x: Any, **columns: Any) -> Any:
    """Returns the reconstructions float32 [N, *shape] of examples [N, *shape], in the data range of the run.

    For a DataFrame or a dict of columns, the result is a DataFrame with the units and categories of the table. If
    table rows are passed as an array [N, columns], the result is also an array [N, columns].
    """
    return table_rows.like(x, self.reconstructions_of(*self.converted(x, columns)), self.schema)

  def to_frame(self, x: AnyArray) -> Any:
    """Converts encoded rows of a table [N, *shape], such as outputs of `decode`, to a DataFrame with its columns.

    Raises:
      UserError: The run was not trained on a table.
    """
    return table_rows.to_frame(x, self.schema)

  def impute(self, x: Any, mask: AnyArray | None = None, **columns: Any) -> Any:
    """Replaces the elements that were not observed by their reconstructions.

    The model is applied once. As in training, its input is 0 for unobserved elements in the range "real" (the mean, if
    the run standardises its data), and black in other ranges. The result for a DataFrame or a dict of columns is a
    DataFrame.

    Filled numbers and dates of a table are at least the smallest and at most the largest training value of their
    column. If reconstructions are outside of this range, a warning contains their number by column. `reconstruct` and
    `to_frame` do not change reconstructions.

    Args:
      x: Examples [N, *shape], or rows of a table.
      mask: 1 for observed elements and 0 for others, in the shape of `x` with or without its channel axis. None: all
        elements are observed except missing values (NaN in arrays).
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      Examples float32 [N, *shape] in the data range of the run, or rows of a table in the form of `x`.
    """
    if self.schema is not None:
      raw, encoded, observed = table_rows.with_gaps(x, mask, self.schema)
      outputs = self.reconstructions_of(self.conversion.of_elements(encoded, observed), columns)
      return table_rows.completed(x, raw, outputs, self.schema)
    x = self.conversion.with_channels(x)
    if mask is None:
      mask = ~np.isnan(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    converted = self.conversion(x, mask)
    return np.where(converted.mask, converted.values, self.reconstructions_of(converted, columns))

  def attention(self, x: AnyArray, **columns: Any) -> dict[str, Float[np.ndarray, "examples heads queries keys"]]:
    """Returns the attention weights of the encoder for examples.

    Args:
      x: Examples [N, *shape].
      **columns: Other inputs of a conditional model, such as `label`.

    Returns:
      {layer name: attention weights float32 [N, heads, queries, keys]}; {} for an encoder without attention.
    """
    return self.attention_of(*self.inputs(x, columns))

  def attention_of(self, x: AnyArray, columns: Columns) -> dict[str, np.ndarray]:
    """Computes `attention` for the outputs of `inputs`, i.e. arguments that are already checked and converted."""
    return inference.attention(self.model, self.variables, x, columns)

  def apply(self, method: str, array: AnyArray, columns: Columns) -> Shaped[np.ndarray, "examples ..."]:
    """Calls a method of the model with arguments that are already checked and converted; see `inference.apply`."""
    return inference.apply(self.model, self.variables, method, array, columns, self.config.data.range)

  def inputs(self, x: Any, columns: Mapping[str, Any]) -> tuple[Float[np.ndarray, "examples ..."], Columns]:
    """Checks and converts examples and other inputs to the form in which the model receives them."""
    converted, columns = self.converted(x, columns)
    return converted.x, self.check_columns(len(converted.x), columns, converted.mask)

  def converted(self, x: Any, columns: Mapping[str, Any]) -> tuple[Converted, dict[str, Any]]:
    """Returns converted examples and the other inputs; for a model with a mask, `mask` is moved to the first result."""
    columns = dict(columns)
    return self.conversion(x, columns.pop("mask", None) if self.model.masked else None), columns

  def check_columns(
    self, count: int, columns: Mapping[str, Any], mask: Bool[np.ndarray, "examples ..."] | None = None
  ) -> Columns:
    """Checks and converts the inputs of the model other than the examples; see `inference.check_columns`."""
    return inference.check_columns(self.model, self.class_names, count, columns, mask)

  @functools.cached_property
  def conversion(self) -> Conversion:
    """Conversion of examples to inputs of the model, and of its outputs to the units of the data."""
    section = self.config.data
    has_gaps = self.record_columns is not None and section.missing == "mask"
    known = self.model.shape, section.range, self.scaling, self.standardisation, self.schema
    return Conversion(*known, has_gaps, bool(section.window))

  def reconstructions_of(self, converted: Converted, columns: Mapping[str, Any]) -> Float[np.ndarray, "examples ..."]:
    """Returns the reconstructions of examples from `converted`, in the units of the data."""
    x = converted.x
    inputs = self.check_columns(len(x), columns, converted.mask)
    return self.conversion.invert(self.apply("reconstruct", x, inputs))

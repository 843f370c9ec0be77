"""Converts new examples for a trained run in the same way as the training examples of the run."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ae_jax import errors
from ae_jax.data import in_memory, loss_columns, ranges, table_rows
from ae_jax.data.scaling import Scaling
from ae_jax.data.schema import Schema
from ae_jax.data.standardisation import ColumnScaling


class Converted(NamedTuple):
  """New examples after conversion."""

  x: Float[np.ndarray, "examples ..."]  # input of the model
  values: Float[np.ndarray, "examples ..."]  # in the data range, before `standardisation`
  mask: Bool[np.ndarray, "examples ..."] | None  # True for observed elements; None if all are observed


@dataclasses.dataclass(frozen=True)
class Conversion:
  """Converts examples of a run to the input of its model, and outputs of the model to the units of the data."""

  shape: tuple[int, ...]  # of an example
  value_range: str  # a key of ranges.INTERVALS
  scaling: Scaling | None  # how integers and booleans are converted; None if the training data were bytes or floats
  standardisation: ColumnScaling | None
  schema: Schema | None  # columns of a table
  has_gaps: bool = False  # whether NaN is a missing value, in windows of recordings in a table
  is_windowed: bool = False  # whether an example is a window of a recording (config.data.window)

  def __call__(self, x: Any, mask: Any = None) -> Converted:
    """Returns converted examples. Elements that were not observed are replaced by a constant.

    Args:
      x: Examples [N, *shape], or rows of a table. A channel axis of size 1 may be left out.
      mask: 1 for observed elements, 0 for others; see `loss_columns.observed`. None: all elements were observed, except
        missing values of a table (also of recordings in a table) with config.data.missing="mask".

    Raises:
      UserError: The examples do not match the run.
    """
    if self.schema is None:
      x, known = self.with_channels(x), None
      if self.has_gaps and x.dtype.kind == "f" and np.isnan(x).any():
        known = ~np.isnan(x)
    else:
      x, known = table_rows.encoded(x, self.schema)
    if mask is not None:
      mask = loss_columns.observed(x.shape, mask)
      known = mask if known is None else mask & known
    return self.of_elements(x, known)

  def of_elements(self, x: Shaped[np.ndarray, "..."], mask: Bool[np.ndarray, "examples ..."] | None) -> Converted:
    """Converts examples that already are an array [N, *shape]; `mask` is True for observed elements."""
    values = self._in_range(x, mask)
    if self.standardisation is None:
      return Converted(values, values, mask)
    scaled = self.standardisation.apply(values)
    return Converted(scaled if mask is None else loss_columns.fill(scaled, mask, 0.0), values, mask)

  def invert(self, x: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples ..."]:
    """Converts outputs of the model to the units of the data."""
    return x if self.standardisation is None else self.standardisation.invert(x)

  def with_channels(self, x: Any) -> Shaped[np.ndarray, "..."]:
    """Adds the example axis to a single example, and a channel axis of size 1 if it is missing."""
    x = self._as_array(x)
    if x.shape == self.shape or (self.shape[-1] == 1 and x.shape == self.shape[:-1]):
      x = x[None]  # a single example
    return x[..., None] if x.ndim == len(self.shape) and self.shape[-1] == 1 else x

  def _as_array(self, x: Any) -> Shaped[np.ndarray, "..."]:
    """Returns `in_memory.as_array`; for a table of steps of a recording, the error names `Run.score_record`."""
    try:
      return in_memory.as_array(x, "x")
    except errors.UserError:
      from ae_jax.data import frames  # pandas takes half a second to import

      if not self.is_windowed or not frames.is_rows(x):
        raise
      raise errors.UserError(
        "x: is a table, but the examples of this run are windows of a recording; use run.score_record for a table of "
        f"time steps, or pass an array of windows [N, {', '.join(map(str, self.shape))}]"
      ) from None

  def _in_range(
    self, x: Shaped[np.ndarray, "..."], mask: Bool[np.ndarray, "examples ..."] | None
  ) -> Float[np.ndarray, "examples ..."]:
    """Returns the examples as float32 [N, *shape] in the data range; raises UserError if the run cannot use them."""
    if x.shape[1:] != self.shape:
      is_record = self.is_windowed and x.ndim <= 2
      hint = "; score_record scores a recording [steps, channels]" if is_record else ""
      is_channels_first = len(self.shape) == 3 and x.shape[1:] == (self.shape[2], *self.shape[:2])
      hint = "; move the channels to the last axis: numpy.moveaxis(x, 1, -1)" if is_channels_first else hint
      raise errors.UserError(
        f"examples of shape {x.shape}: the shape must be [N, {', '.join(map(str, self.shape))}] for this run{hint}"
      )
    if mask is not None:
      x = loss_columns.fill(x, mask, x[mask][0] if mask.any() else 0)
    value_range, scaling = self.value_range, self.scaling
    in_unit = scaling is not None and scaling.applies_to(x)
    fault = scaling.fault(x) if in_unit else None
    if in_unit and not fault:
      x = scaling.convert(x, value_range)
    fault = fault or ranges.range_error(x, value_range)
    if fault:
      trained = f"; the training examples were {scaling.in_words(value_range)}" if scaling and not in_unit else ""
      raise errors.UserError(f"the array of examples {fault}{trained}")
    x = ranges.normalise(x, value_range)
    return x if mask is None else loss_columns.fill(x, mask, loss_columns.missing_value(x.dtype, value_range, False))

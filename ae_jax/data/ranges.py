"""Value ranges of the examples that a model receives, and the conversion of stored values to these ranges."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from ae_jax.types import AnyArray


class Span(NamedTuple):
  """Interval of the values of a data set. Noise levels and PSNR are relative to the width `high - low`."""

  low: float  # the smallest value
  high: float  # the largest value
  missing: float  # the value of a masked element


# range -> interval to which bytes are scaled: 0 becomes `low`, 255 becomes `high`, and masked pixels become black
SPANS = {"unit": Span(0.0, 1.0, 0.0), "symmetric": Span(-1.0, 1.0, -1.0), "real": Span(0.0, 1.0, 0.0)}

# range -> interval that must contain all values
INTERVALS = {"unit": (0.0, 1.0), "symmetric": (-1.0, 1.0), "real": (-np.inf, np.inf)}


def normalise(examples: Shaped[AnyArray, "*shape"], value_range: str) -> Float32[AnyArray, "*shape"]:
  """Converts examples to float32 in a value range.

  Bytes are scaled to the range (to [0, 1] for the range "real"). Floating-point examples must already be in the range.
  """
  if examples.dtype != np.uint8:
    return examples.astype(np.float32, copy=False)
  low, high, _ = SPANS[value_range]
  return examples.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def from_unit(values: Float32[np.ndarray, "*shape"], value_range: str) -> Float32[np.ndarray, "*shape"]:
  """Scales values in [0, 1] to the interval `SPANS[value_range]`, like bytes in `normalise`."""
  low, high, _ = SPANS[value_range]
  return values * np.float32(high - low) + np.float32(low)


def extent(values: Shaped[np.ndarray, "..."]) -> tuple[float, float]:
  """Returns (minimum, maximum) of the values; (minimum, minimum + 1) if all values are equal."""
  low, high = float(values.min()), float(values.max())
  return low, high if high > low else low + 1.0


def as_float32(values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
  """Converts floating-point values to float32 (overflow gives infinity); returns other values unchanged."""
  if not np.issubdtype(values.dtype, np.floating):
    return values
  with np.errstate(over="ignore"):
    return values.astype(np.float32, copy=False)


def range_error(examples: AnyArray, value_range: str) -> str | None:
  """Returns the end of an error message if examples are not compatible with a value range, otherwise None.

  The dtype must be uint8 or floating point, and floats must be finite and in the range. The shape is not checked.
  """
  if examples.dtype == np.uint8:
    return None
  if not np.issubdtype(examples.dtype, np.floating):
    return f"has dtype {examples.dtype}; convert it to uint8 or floating point"
  if examples.size == 0:
    return None
  low, high = float(examples.min()), float(examples.max())
  if not np.isfinite([low, high]).all():
    faults = ~np.isfinite(np.asarray(examples))
    first = ", ".join(map(str, np.unravel_index(faults.argmax(), faults.shape)))
    return (
      f"contains NaN or infinite values ({faults.sum():,} of {faults.size:,}, the first at [{first}]); replace or "
      "remove them, or mark the observed values in an array mask_train"
    )
  least, most = INTERVALS[value_range]
  if low < least or high > most:
    return (
      f"has values from {low:g} to {high:g}, outside the range {value_range!r} [{least:g}, {most:g}]; scale the "
      "values, store them as uint8, or set config.data.range"
    )
  return None

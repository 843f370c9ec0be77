"""The value range that a model sees, and the conversion of stored data to it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from ae_jax.types import AnyArray


class Span(NamedTuple):
  """The interval of the values of a data set. Noise levels and PSNR are in units of its width, `high - low`."""

  low: float  # the smallest value
  high: float  # the largest value
  missing: float  # the value of a masked element


# range -> the span of bytes in it: 0 becomes `low`, 255 becomes `high`, and a masked pixel is black
SPANS = {"unit": Span(0.0, 1.0, 0.0), "symmetric": Span(-1.0, 1.0, -1.0), "real": Span(0.0, 1.0, 0.0)}

# range -> the interval that all values must lie in
INTERVALS = {"unit": (0.0, 1.0), "symmetric": (-1.0, 1.0), "real": (-np.inf, np.inf)}


def normalise(examples: Shaped[AnyArray, "*shape"], value_range: str) -> Float32[AnyArray, "*shape"]:
  """Returns examples as float32 in a range.

  Bytes are scaled to the range ("real" scales as "unit" does). Floating-point examples must be in it already.
  """
  if examples.dtype != np.uint8:
    return examples.astype(np.float32)
  low, high, _ = SPANS[value_range]
  return examples.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def as_float32(values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
  """Returns floating-point values as float32 (infinite where they overflow), and other values unchanged."""
  if not np.issubdtype(values.dtype, np.floating):
    return values
  with np.errstate(over="ignore"):
    return values.astype(np.float32)


def range_error(examples: AnyArray, value_range: str) -> str | None:
  """Returns the fault that makes examples unfit for a range, as the end of a sentence, or None.

  Checks the dtype (uint8, or finite floating point inside the interval) and the values, never the shape.
  """
  if examples.dtype == np.uint8:
    return None
  if not np.issubdtype(examples.dtype, np.floating):
    return f"has dtype {examples.dtype}; expected uint8 or floating point"
  if examples.size == 0:
    return None
  low, high = float(examples.min()), float(examples.max())
  if not np.isfinite([low, high]).all():
    return "contains NaN or infinite values"
  least, most = INTERVALS[value_range]
  if low < least or high > most:
    return (
      f"has values from {low:g} to {high:g}, outside the range {value_range!r} [{least:g}, {most:g}]; scale it, "
      "store it as uint8, or set config.data.range"
    )
  return None

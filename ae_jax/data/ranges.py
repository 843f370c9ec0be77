"""The range that a model sees its data in, and the way there from the bytes on the device."""

from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
  """The values of a data set: noise levels and PSNR are in units of its width, `high - low`."""

  low: float  # the least value
  high: float  # the greatest value
  missing: float  # what a masked element becomes


# range -> the span of bytes in it: 0 becomes `low`, 255 becomes `high`, and a masked pixel is black
SPANS = {"unit": Span(0.0, 1.0, 0.0), "symmetric": Span(-1.0, 1.0, -1.0), "real": Span(0.0, 1.0, 0.0)}

# range -> the interval that all values must lie in
INTERVALS = {"unit": (0.0, 1.0), "symmetric": (-1.0, 1.0), "real": (-np.inf, np.inf)}


def normalise(images, value_range):
  """float32 images in the range "unit" [0, 1], "symmetric" [-1, 1] or "real"; NumPy or JAX, any shape.

  Bytes are scaled ("real" scales as "unit" does); floating-point images are in their range already.
  """
  if images.dtype != np.uint8:
    return images.astype(np.float32)
  low, high, _ = SPANS[value_range]
  return images.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def as_float32(values):
  """Floating-point values of any width as float32 (infinite where they are too large for it), others as they are."""
  if not np.issubdtype(values.dtype, np.floating):
    return values
  with np.errstate(over="ignore"):
    return values.astype(np.float32)


def fault(images, value_range):
  """What is wrong with an array of images as data of this range, in words; None for nothing.

  Checks type (uint8, or finite floating point inside the interval), never shape.
  """
  if images.dtype == np.uint8:
    return None
  if not np.issubdtype(images.dtype, np.floating):
    return f"has dtype {images.dtype}; images are uint8 or floating point"
  if images.size == 0:
    return None
  low, high = float(images.min()), float(images.max())
  if not np.isfinite([low, high]).all():
    return "holds NaN or infinite values"
  least, most = INTERVALS[value_range]
  if low < least or high > most:
    return (
      f"has values from {low:g} to {high:g}, outside the range {value_range!r} [{least:g}, {most:g}]; scale it, "
      "store it as uint8, or set config.data.range"
    )
  return None

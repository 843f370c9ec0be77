"""Determines how stored examples are scaled (e.g. 0 to 255), and converts them to bytes or floats in the data range.

The rule is in `recognise`. It depends only on the value range, the dtype, the minimum and maximum of the values, and on
whether floats are whole numbers.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from ae_jax.data import lazy_arrays, ranges

_FIRST = 16  # number of examples that are checked first; in uint8 data, they nearly always contain a value above 1
_BYTE, _WORD = 255, 65_535
_DIVISORS = (1, _BYTE, _WORD)
_WORDS = {
  0: "not scaled",
  1: "taken as the ends of the data range",
  _BYTE: "read as bytes, which are divided by 255",
  _WORD: f"divided by {_WORD:,}",
}  # by divisor


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Conversion of stored values. It is saved in config.json, so a trained run converts new examples in the same way."""

  dtype: str  # dtype of the stored examples
  low: float  # minimum of the examined values
  high: float  # maximum of the examined values
  # 1: 0 and 1 become the ends of the data range; 255: values are bytes; 65535: values are divided by 65,535;
  # 0: values are not scaled
  divisor: int

  @property
  def is_usual(self) -> bool:
    """True for bytes from 0 to 255 and for floats that are not scaled, about which the user gets no note."""
    return (self.dtype, self.divisor) == ("uint8", _BYTE) or (self._is_floating and self.divisor == 0)

  @property
  def _is_floating(self) -> bool:
    return np.issubdtype(np.dtype(self.dtype), np.floating)

  @property
  def target(self) -> np.dtype:
    """The dtype after conversion: uint8 or float32."""
    return np.dtype(np.uint8 if self.divisor in (1, _BYTE) else np.float32)

  def in_words(self, value_range: str) -> str:
    """Returns the end of a note that describes the range of the stored values and their conversion."""
    low, high, _ = ranges.SPANS[value_range]
    ends = f" ({low} and {high})" if self.divisor == 1 else ""
    return f"{self.dtype} from {self.low:,.15g} to {self.high:,.15g}, {_WORDS[self.divisor]}{ends}"

  def applies_to(self, rows: np.ndarray) -> bool:
    """Returns whether new examples must be converted: both they and the stored examples are integers or booleans.

    Floats are never converted, because they may already be in the data range.
    """
    return rows.dtype.kind in "biu" and not self._is_floating

  def fault(self, rows: np.ndarray) -> str | None:
    """Returns the end of an error message if rows have values that the conversion does not allow, otherwise None."""
    if self.divisor == 0 or (self.dtype, self.divisor) == ("uint8", _BYTE) or not rows.size:
      return None
    low, high = rows.min(), rows.max()
    if low >= 0 and high <= self.divisor and (rows.dtype.kind != "f" or (rows == np.rint(rows)).all()):
      return None
    return (
      f"has values from {low} to {high}, but the values from {self.low:,.15g} to {self.high:,.15g} that were found are "
      f"{_WORDS[self.divisor]}; use one unit for all examples"
    )

  def convert(self, rows: Shaped[np.ndarray, "*shape"], value_range: str) -> Shaped[np.ndarray, "*shape"]:
    """Converts rows to uint8, or to float32 in the data range. Rows must have no `fault`."""
    if self.divisor == 0:
      return rows.astype(np.float32)
    if self.divisor == 1:
      return rows.astype(np.uint8) * np.uint8(_BYTE)
    if self.divisor == _BYTE:
      return rows.astype(np.uint8, copy=False)
    low, high, _ = ranges.SPANS[value_range]
    return np.float32(low) + np.float32(high - low) * (rows.astype(np.float32) / np.float32(_WORD))


def recognise(parts: Sequence[lazy_arrays.MaybeLazy], dtype: np.dtype, value_range: str) -> Scaling:
  """Determines the conversion of the examples of a data set.

  - In the range "real", only booleans and uint8 are scaled, by the rules for the other ranges.
  - Floats are scaled only if all are whole numbers and the maximum is above 1; they are then treated as integers.
  - Integers and booleans are divided by the smallest of 1, 255 and 65,535 that is not less than the maximum. If all are
    0, they are treated as bytes. If a value is negative or above 65,535, they are not scaled.

  An array in memory is examined completely, a `LazyArray` only at `lazy_arrays.probe_indices`. Any other row of it that
  contradicts the result has a `Scaling.fault`, so a `LazyArray` gives the same values as an array in memory, or an
  error.

  Args:
    parts: The training examples and, if there are any, the test examples. Floats are float32.
    dtype: The dtype of the stored examples, before floats were converted to float32.
    value_range: A key of `ranges.INTERVALS`.
  """
  scaling = functools.partial(Scaling, str(dtype.newbyteorder("=")))
  if dtype == np.uint8 and any(part[:_FIRST].max() > 1 for part in parts):
    return scaling(0.0, float(_BYTE), _BYTE)
  examined = [lazy_arrays.examined(part) for part in parts]
  low, high = float(min(rows.min() for rows in examined)), float(max(rows.max() for rows in examined))
  unscaled = scaling(low, high, 0)
  if value_range == "real" and dtype not in (np.uint8, np.bool_):
    return unscaled
  if not (low >= 0 and high <= _WORD):  # or NaN
    return unscaled
  if np.issubdtype(dtype, np.floating) and (high <= 1 or not all((rows == np.rint(rows)).all() for rows in examined)):
    return unscaled
  return scaling(low, high, _BYTE if high == 0 else next(divisor for divisor in _DIVISORS if high <= divisor))

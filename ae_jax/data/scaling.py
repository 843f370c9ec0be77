"""Recognises in which unit examples are stored, and converts them to bytes or to floats in the data range.

The rule is `recognise`. It looks at the dtype and at the smallest and largest value, and at nothing else.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from ae_jax.data import lazy_arrays, ranges

_FIRST = 16  # number of examples to check first, which nearly always contain a byte above 1
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
  """How stored values are converted. It is stored in config.json, so that a trained run converts new examples alike."""

  dtype: str  # of the stored examples
  low: float  # the smallest value that was found
  high: float  # the largest value that was found
  # 1: 0 and 1 become the ends of the data range; 255: values are bytes; 65535: values are divided by 65,535;
  # 0: values are not scaled
  divisor: int

  @property
  def is_usual(self) -> bool:
    """Returns whether the examples are bytes from 0 to 255, or floats that are not scaled."""
    return (self.dtype, self.divisor) == ("uint8", _BYTE) or (self._is_floating and self.divisor == 0)

  @property
  def _is_floating(self) -> bool:
    return np.issubdtype(np.dtype(self.dtype), np.floating)

  @property
  def target(self) -> np.dtype:
    """The dtype after conversion: uint8 or float32."""
    return np.dtype(np.uint8 if self.divisor in (1, _BYTE) else np.float32)

  def in_words(self, value_range: str) -> str:
    """Returns the found range and the conversion, as the end of a remark."""
    low, high, _ = ranges.SPANS[value_range]
    ends = f" ({low} and {high})" if self.divisor == 1 else ""
    return f"{self.dtype} from {self.low:,.15g} to {self.high:,.15g}, {_WORDS[self.divisor]}{ends}"

  def applies_to(self, rows: np.ndarray) -> bool:
    """Returns whether new examples are in the unit of the stored ones: integers or booleans, like these.

    Floats are never converted, because they may be in the data range already.
    """
    return rows.dtype.kind in "biu" and not self._is_floating

  def fault(self, rows: np.ndarray) -> str | None:
    """Returns why rows contradict the conversion, as the end of an error message, or None."""
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
    """Returns rows as uint8, or as float32 in the data range; see `fault` for the rows that are allowed."""
    if self.divisor == 0:
      return rows.astype(np.float32)
    if self.divisor == 1:
      return rows.astype(np.uint8) * np.uint8(_BYTE)
    if self.divisor == _BYTE:
      return rows.astype(np.uint8, copy=False)
    low, high, _ = ranges.SPANS[value_range]
    return np.float32(low) + np.float32(high - low) * (rows.astype(np.float32) / np.float32(_WORD))


def recognise(parts: Sequence[lazy_arrays.MaybeLazy], dtype: np.dtype, value_range: str) -> Scaling:
  """Returns the conversion of the examples of a data set.

  - In the range "real", values are not scaled, except booleans and uint8, which are treated as in the other ranges.
  - Floats are not scaled, except whole numbers of which the largest is above 1. These are treated as integers.
  - Integers and booleans from 0 are divided by the smallest of 1, 255 and 65,535 that is at least the largest value.
    If all are 0, they are bytes. If a value is negative or above 65,535, they are not scaled.

  Examples in memory are all examined. Of a `LazyArray`, the rows at `lazy_arrays.probe_indices` are examined; each row
  that contradicts the result has a `Scaling.fault`, so both placements give the same values or an error.

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

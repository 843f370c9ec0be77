"""Positions on axes, and a label, that static images and interactive charts share."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

_MAX_TICKS = 9  # maximum number of ticks on a logarithmic axis


def round_ticks(least: float, most: float) -> list[float]:
  """Returns at most `_MAX_TICKS` round positions on a logarithmic axis; [] if fewer than three are between the bounds.

  Linear ticks are better in the second case. The default ticks of plotting libraries are too many, or none.
  """
  powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
  ticks: list[float] = []
  for mantissas in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,)):
    ticks = [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]  # exact, unlike 3 * 0.1
    ticks = [tick for tick in ticks if least / 1.1 <= tick <= most * 1.1]
    if len(ticks) <= _MAX_TICKS:
      break
  return ticks[:: -(-len(ticks) // _MAX_TICKS)] if len(ticks) > 2 else []


def within_rows(count: int) -> Float[np.ndarray, " {count}"]:
  """Returns the distances of `count` points from the centre of their row, so that they are below each other.

  The centres of rows have the distance 1.
  """
  return (np.arange(count) - (count - 1) / 2) * 0.8 / count


def limits_of_rows(lines: Iterable[Float[np.ndarray, "2 points"]], bounds: Sequence[float] = ()) -> tuple[float, float]:
  """Returns the limits of the axis of rows of points. They differ even if all values are equal.

  `bounds` are the least and the greatest possible value, which the limits do not exceed; () for none. A point at a
  limit needs an axis that does not clip it.
  """
  values = np.concatenate([line[1] for line in lines])
  values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
  margin = max(0.04 * float(np.ptp(values)), 0.01)
  least, most = bounds or (-math.inf, math.inf)
  return max(float(values.min()) - margin, least), min(float(values.max()) + margin, most)


def is_vertical(x: Shaped[np.ndarray, " points"]) -> bool:
  """Returns whether a line through points with these x values is vertical, i.e. marks a value."""
  return len(x) > 1 and bool((x == x[0]).all())


def error_label(unit: str, tested: str = "test example") -> str:
  """Returns the label of an axis of squared errors; `unit` is their unit, or "", `tested` the name of an example."""
  return f"squared error per {tested},\n{unit}" if unit else f"squared error per {tested}"

"""Faults of the reconstructions that a squared error does not show: equal reconstructions and saturated outputs."""

import math
from collections.abc import Iterator

import numpy as np

from ae_jax.data import ranges
from ae_jax.evaluators.context import EvalContext

_AT_END = 1e-3  # maximum distance from an end of the data range, relative to its width, of a saturated output
_WRONG = 0.1  # minimum distance from the target, relative to the width of the data range


def analyze(context: EvalContext) -> Iterator[tuple[str, float]]:
  """Yields the ratio of the variances of reconstructions and targets, and the fraction of saturated outputs.

  A variance is computed over the test examples and summed over the elements. If the ratio is near 0, all
  reconstructions are nearly equal. An output is saturated if it is at an end of the data range and far from the target.
  For data with masks, nothing is yielded, because some targets were not observed.
  """
  if context.mask is not None:
    return
  outputs, targets = context.reconstructions, context.targets
  variance = targets.var(0, dtype=np.float64).sum()
  if variance > 0:
    yield "variance_ratio", float(outputs.var(0, dtype=np.float64).sum() / variance)
  low, high = ranges.INTERVALS[context.dataset.value_range]
  if math.isfinite(high - low):
    at_end = np.minimum(outputs - low, high - outputs) < _AT_END * (high - low)
    yield "saturated", float((at_end & (np.abs(outputs - targets) > _WRONG * (high - low))).mean())

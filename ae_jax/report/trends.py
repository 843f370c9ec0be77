"""Fall and rise of the errors in the learning curves of a run, for the diagnosis."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ae_jax.runs import metric_names

TEST_ERROR = "test error"  # name of the curve whose fall is measured, if there is more than one evaluation
_STEADY_COUNT = 3  # minimum number of evaluations in a steady rise
_STEADY_SHARE = 0.75  # minimum fraction of these evaluations with a larger error than the evaluation before
_LEARNED = 0.005  # relative decrease in training loss minus its lower bound that is a clear fall
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # metric name -> (epochs, values), see `logs.curves`
_NONE = (np.empty(0), np.empty(0))


class Fall(NamedTuple):
  """Relative decrease in error over the second half of the training."""

  share: float  # relative decrease; 0.1 means that the last value is 10 % below the value before the second half
  epochs: float  # number of epochs between these two values
  name: str  # name of the error, for messages

  @property
  def per_epoch(self) -> float:
    """Relative fall per epoch, assuming that it is the same in all these epochs."""
    return 1 - (1 - self.share) ** (1 / self.epochs)


class Rise(NamedTuple):
  """Rise of the test or validation error from its minimum to its last value, while the training loss fell."""

  split: str  # "test" or "validation"
  epoch: float  # epoch of the minimum
  smallest: float  # minimum of the error
  last: float  # last value of the error
  is_steady: bool  # whether the error rose in most of several evaluations, while the training loss fell clearly
  test_loss_rose: bool  # whether the test loss rose since the minimum; True if it was not measured


def fall(curves: Curves, epochs: float | int) -> Fall | None:
  """Returns the decrease in test error over the second half of the main training stage; None if it is unknown.

  If there is only one evaluation, it is the decrease in training loss. `epochs` is the length of the main stage.
  """
  for name, words in (("test/squared_error", TEST_ERROR), ("train/loss", "training loss")):
    measured, values = curves.get(name, _NONE)
    if not len(measured):
      continue
    half = min(epochs, measured[-1]) / 2
    before = np.flatnonzero(measured <= measured[-1] - half)
    first, last = (values[before[-1]], values[-1]) if len(before) else (math.nan, math.nan)
    if first > 0 and math.isfinite(last):
      return Fall(float(1 - last / first), float(measured[-1] - measured[before[-1]]), words)
  return None


def rise(curves: Curves, floor: float | int) -> Rise | None:
  """Returns the rise of the validation error (or, without one, of the test error) from its minimum to its last value.

  It is None if the last value is the minimum, or if the training loss rose, too, because this is not overfitting.
  `floor` is the lower bound of the loss.
  """
  key = metric_names.selection_key(curves)
  epochs, errors = curves.get(key, _NONE)
  if not np.isfinite(errors).any():
    return None
  index = int(np.nanargmin(errors))
  first, last = _since(curves, "train/loss", float(epochs[index]))
  if index + 1 == len(errors) or not last < first:
    return None
  rises = np.diff(errors[index:]) > 0
  is_long = len(rises) >= _STEADY_COUNT and rises.mean() >= _STEADY_SHARE
  is_steady = bool(is_long and first - last > _LEARNED * max(0.0, first - floor))
  before, after = _since(curves, "test/loss", float(epochs[index]))
  test_loss_rose = math.isnan(before) or after > before
  return Rise(
    key.partition("/")[0], float(epochs[index]), float(errors[index]), float(errors[-1]), is_steady, test_loss_rose
  )


def _since(curves: Curves, name: str, epoch: float) -> tuple[float, float]:
  """Returns the value of a curve after `epoch` and its last value; NaN if it was not measured by then."""
  epochs, values = curves.get(name, _NONE)
  before = np.flatnonzero(epochs <= epoch)
  return (float(values[before[-1]]), float(values[-1])) if len(before) else (math.nan, math.nan)

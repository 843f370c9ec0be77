"""Ends of a training before its last epoch: no more progress, or no more time."""

import dataclasses
import time
from collections.abc import Callable, Iterable

from ae_jax import errors
from ae_jax.system import distributed

MODES = {"min": 1.0, "max": -1.0}  # what a metric should become, and the sign that makes it a loss


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  """Stops when a metric has not improved by more than `min_change` in the last `patience` evaluations."""

  metric: str  # "" for none
  patience: int
  min_change: float
  mode: str  # a key of MODES

  def check(self) -> None:
    """Raises UserError if a key of `config.early_stopping` is invalid."""
    errors.choose(MODES, self.mode, "early_stopping.mode")
    errors.check_positive("early_stopping.patience", self.patience)
    errors.check_not_negative("early_stopping.min_change", self.min_change)
    good = not self.metric or self.metric.startswith("test/")
    errors.check(good, "early_stopping.metric", self.metric, "a metric of the test set, such as 'test/squared_error'")

  def reason(self, values: list[float]) -> str:
    """Returns why to stop after evaluations with these values of the metric; "" to go on."""
    best, since = float("inf"), 0
    for value in values:
      loss = MODES[self.mode] * value
      if loss < best - self.min_change:
        best, since = loss, 0
      else:
        since += 1
    if since < self.patience:
      return ""
    more = f" by more than {self.min_change:g}" if self.min_change else ""
    return f"{self.metric} has not improved{more} in the last {since} evaluations (config.early_stopping)"


def progress(stopping: EarlyStopping, history: Iterable[dict]) -> Callable[[list[dict]], str]:
  """Returns a function of the records of an evaluation, [] for none, that returns why to stop; "" to go on.

  Args:
    stopping: what to watch; the function always returns "" if it names no metric.
    history: the records of the run so far, so that a continued run decides as an uninterrupted one; read only if a
      metric is watched.

  Raises:
    UserError: the function raises it if the records lack the metric.
  """
  read = history if stopping.metric else ()
  values = [record[stopping.metric] for record in read if stopping.metric in record]

  def reason(records):
    for record in records if stopping.metric else []:
      if stopping.metric not in record:
        known = [name for name in record if name.startswith("test/")]
        raise errors.UserError(
          f"config.early_stopping.metric={stopping.metric!r} is not measured; {errors.nearest(stopping.metric, known)}"
        )
      values.append(record[stopping.metric])
    return stopping.reason(values) if stopping.metric else ""

  return reason


def time_limit(minutes: float) -> Callable[[], str]:
  """Returns a function that returns why to stop once so many minutes have passed in any process; "" to go on.

  0.0 minutes are no limit.
  """
  begun = time.monotonic()

  def reason():
    if not minutes or distributed.agreed(time.monotonic() - begun < 60 * minutes):
      return ""
    return f"config.max_minutes={minutes:g} have passed; the same command continues"

  return reason

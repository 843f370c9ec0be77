"""Conditions that end the training early: a metric stops improving, or the time limit is reached."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ae_jax import errors
from ae_jax.system import distributed

_PREFIXES = ("validation/", "test/")  # prefixes of the metrics that can be watched
MODES = {"min": 1.0, "max": -1.0}  # direction of improvement -> sign that turns the metric into a loss


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  """Stops the training when a metric has not improved by more than `min_change` in the last `patience` evaluations."""

  metric: str  # name of the metric; "" for no early stopping
  patience: int
  min_change: float
  mode: str  # a key of MODES

  def check(self, has_validation: bool) -> None:
    """Raises UserError if a key of `config.early_stopping` is invalid.

    `has_validation` says whether the data have a validation set.
    """
    errors.choose(MODES, self.mode, "early_stopping.mode")
    errors.check_positive("early_stopping.patience", self.patience)
    errors.check_not_negative("early_stopping.min_change", self.min_change)
    valid = not self.metric or self.metric.startswith(_PREFIXES)
    errors.check(
      valid,
      "early_stopping.metric",
      self.metric,
      "a metric of the validation or test set, such as 'validation/squared_error', or '' for none",
    )
    if self.metric.startswith("validation/") and not has_validation:
      raise errors.UserError(
        f"config.early_stopping.metric={self.metric!r}: the data have no validation set; add one, or set "
        "config.data.validation to a fraction of the training examples, such as 0.1"
      )

  def remarks(self, has_validation: bool) -> list[str]:
    """Returns a note if training is stopped by the test set although the data have a validation set."""
    if not has_validation or not self.metric.startswith("test/"):
      return []
    return [
      f"config.early_stopping.metric={self.metric!r}: the test set decides when training stops, so its errors are no "
      f"longer independent; use the validation set: 'validation/{self.metric.removeprefix('test/')}'"
    ]

  def reason(self, values: Sequence[float]) -> str:
    """Returns the reason to stop, or "" to continue; `values` are the metric values of all evaluations so far."""
    best, since_best = float("inf"), 0
    for value in values:
      loss = MODES[self.mode] * value
      if loss < best - self.min_change:
        best, since_best = loss, 0
      else:
        since_best += 1
    if since_best < self.patience:
      return ""
    amount = f" by more than {self.min_change:g}" if self.min_change else ""
    return f"{self.metric} has not improved{amount} in the last {since_best} evaluations (config.early_stopping)"


def progress(
  stopping: EarlyStopping, history: Iterable[Mapping[str, Any]]
) -> Callable[[Sequence[Mapping[str, Any]]], str]:
  """Returns a function that decides whether to stop after an evaluation.

  The function takes the records of the evaluation and returns the reason to stop, or "" to continue. Called with [], it
  decides from the evaluations so far.

  Args:
    stopping: The metric to watch; if its name is "", the function always returns "".
    history: The records of the run so far, so that a resumed run makes the same decisions as an uninterrupted run. They
      are read only if `stopping` names a metric.

  Raises:
    UserError: Raised by the returned function if the metric is missing in the records.
  """
  watched = history if stopping.metric else ()
  values = [record[stopping.metric] for record in watched if stopping.metric in record]

  def reason(records):
    for record in records if stopping.metric else []:
      if stopping.metric not in record:
        known = [name for name in record if name.startswith(_PREFIXES)]
        raise errors.UserError(
          f"config.early_stopping.metric={stopping.metric!r} is not measured in this run; "
          f"{errors.list_known(stopping.metric, known)}"
        )
      values.append(record[stopping.metric])
    return stopping.reason(values) if stopping.metric else ""

  return reason


def time_limit(minutes: float, then: str = "; run the same command to continue") -> Callable[[], str]:
  """Returns a function that decides whether the time limit is reached; `minutes` = 0.0 means no limit.

  The function returns the reason to stop, or "" to continue. If the limit is reached in one process, the function
  returns the reason in all processes. The reason ends with `then`.
  """
  start_time = time.monotonic()

  def reason():
    if not minutes or distributed.all_processes(time.monotonic() - start_time < 60 * minutes):
      return ""
    return f"the time limit config.max_minutes={minutes:g} is reached{then}"

  return reason

"""Thresholds of anomaly scores, and measures of how well they separate anomalies from normal examples.

An example is flagged if its score is above the threshold. Scores are compared in float64.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from ae_jax import errors

Z = 1.959964  # normal quantile of a two-sided 95 % interval
ON_TRAINING = "new examples have larger scores, so too many may be flagged; config.data.validation=0.2 holds out others"
_ROUNDING = 1e-9  # tolerance for rounding errors: 0.29 * 100 is 28.999999999999996
_RULES = ("value", "contamination", "f1", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Threshold:
  """A threshold of the scores of a run. It is stored as threshold.json in the run folder."""

  value: float  # examples with a larger score are flagged
  kind: str  # kind of the scores, a key of `scores.KINDS`
  rule: str  # a member of _RULES
  level: float | None  # contamination, precision or recall that was requested; None for the other rules
  # source of the scores: "train", "validation", "given", or "" for the rule "value"; named as in threshold.json
  half: str
  examples: int  # number of these examples
  step: int  # step of the checkpoint whose scores were used
  weights: str  # `store.digest` of the variables of this checkpoint
  reference: str = ""  # `store.digest` of the reference statistics of the scores; "" for kinds without them
  targets: bool | None = None  # whether the examples had targets; None: unknown, or the kind uses no targets

  def as_json(self) -> dict[str, Any]:
    """Returns the fields as a dict, for threshold.json."""
    return dataclasses.asdict(self)

  def in_words(self) -> str:
    """Returns a string that states the value and the rule by which it was chosen."""
    level = "" if self.level is None else f"={self.level:g}"
    split = "training" if self.half == "train" else self.half
    source = f" from {self.examples:,} {split} examples" if self.half else ""
    note = f"; {ON_TRAINING}" if self.half == "train" else ""
    return f"{self.kind} score above {self.value:.6g} ({self.rule}{level}{source}{note})"

  def target_fault(self, is_given: bool) -> str:
    """Returns an error message if the threshold was set with targets and the examples have none, or vice versa."""
    if self.targets is None or self.targets == is_given:
      return ""
    if is_given:
      return (
        "target=: the threshold was set for errors without targets; remove target, or set the threshold again with "
        "run.set_threshold(x, target=target, contamination=0.01)"
      )
    return (
      "target= is missing: the threshold was set for errors against targets; pass target, or set the threshold again "
      "without targets: run.set_threshold(x, contamination=0.01)"
    )


_is_text = lambda value: isinstance(value, str)
_is_count = lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0
_FITS: dict[str, Callable[[Any], bool]] = {  # field of a threshold -> function that checks its value in a file
  "value": errors.is_number,
  "kind": _is_text,
  "rule": lambda value: value in _RULES,
  "level": lambda value: value is None or errors.is_number(value),
  "half": lambda value: value in ("", "given", "train", "validation"),
  "examples": _is_count,
  "step": _is_count,
  "weights": _is_text,
  "reference": _is_text,
  "targets": lambda value: value is None or isinstance(value, bool),
}


def from_json(stored: Mapping[str, Any], where: str) -> Threshold:
  """Returns the threshold that `Threshold.as_json` stored.

  Raises:
    UserError: A field is missing, unknown or of another type; `where` is the prefix of the message.
  """
  fields = dataclasses.fields(Threshold)
  needed = {field.name for field in fields if field.default is dataclasses.MISSING}
  known = {field.name for field in fields}
  if not needed <= {*stored} <= known or not all(_FITS[name](value) for name, value in stored.items()):
    raise errors.UserError(f"{where}: is not a threshold file of ae_jax; remove the file, and set the threshold again")
  return Threshold(**stored)


def of_run(run: Any, has_target: bool = False) -> tuple[Threshold | None, str]:
  """Returns the threshold of a run, and an error message if its stored threshold cannot be used (otherwise "").

  The threshold is None if there is none or it cannot be used. `has_target`: whether the examples to flag have targets.
  """
  try:
    threshold = run.threshold
  except errors.UserError as error:
    return None, str(error)
  fault = "" if threshold is None else threshold.target_fault(has_target)
  return (None, fault) if fault else (threshold, "")


class Confusion(NamedTuple):
  """Confusion matrix of a threshold, with precision, recall and F1."""

  true_positives: int  # flagged anomalies
  false_positives: int  # flagged normal examples
  false_negatives: int  # anomalies that are not flagged
  true_negatives: int  # normal examples that are not flagged

  @property
  def precision(self) -> float:
    """Fraction of the flagged examples that are anomalies; NaN if none is flagged."""
    return _ratio(self.true_positives, self.true_positives + self.false_positives)

  @property
  def recall(self) -> float:
    """Fraction of the anomalies that are flagged; NaN without anomalies."""
    return _ratio(self.true_positives, self.true_positives + self.false_negatives)

  @property
  def f1(self) -> float:
    """Harmonic mean of precision and recall; NaN if there are neither anomalies nor flagged examples."""
    flagged_or_anomalous = self.true_positives + self.false_positives + self.false_negatives
    return _ratio(2 * self.true_positives, self.true_positives + flagged_or_anomalous)

  def intervals(self) -> dict[str, tuple[float, float]]:
    """Returns the 95 % intervals of precision, recall and F1, {name: (low, high)}.

    Precision and recall have Wilson's score interval (Wilson 1927). F1 = 2 J / (1 + J) with J = TP / (TP + FP + FN).
    Given TP + FP + FN, TP is binomial, so the interval of F1 is the transformed Wilson interval of J.
    """
    hits, wrong, missed, _ = self
    low, high = wilson(hits, hits + wrong + missed)
    return {
      "precision": wilson(hits, hits + wrong),
      "recall": wilson(hits, hits + missed),
      "f1": (2 * low / (1 + low), 2 * high / (1 + high)),
    }


def confusion(
  scores: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"], value: float
) -> Confusion:
  """Returns the confusion matrix of the threshold `value`; `anomalous` is the mask of the true anomalies."""
  flagged = flag(scores, value)
  pairs = ((flagged, anomalous), (flagged, ~anomalous), (~flagged, anomalous), (~flagged, ~anomalous))
  return Confusion(*(int(np.count_nonzero(first & second)) for first, second in pairs))


def flag(scores: Float[np.ndarray, " examples"], value: float) -> Bool[np.ndarray, " examples"]:
  """Returns a mask of the scores above a threshold. A score that is NaN is also flagged, because the model failed."""
  return ~(scores.astype(np.float64) <= value)


def wilson(successes: int, trials: int) -> tuple[float, float]:
  """Returns the 95 % interval of a proportion (Wilson 1927, "Probable inference"); (NaN, NaN) without trials."""
  if not trials:
    return math.nan, math.nan
  share, weight = successes / trials, Z**2 / trials
  centre = (share + weight / 2) / (1 + weight)
  margin = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
  return max(0.0, centre - margin), min(1.0, centre + margin)


def from_share(scores: Float[np.ndarray, " examples"], share: float) -> float:
  """Returns a threshold that is exceeded by at most the fraction `share` of the scores.

  If the scores are distinct, exactly `floor(share * N)` of them exceed it. The threshold is midway between two scores,
  so that rounding errors of a score do not matter; if no score may exceed it, it is the largest score.

  Args:
    scores: Scores of normal examples, possibly with a fraction `share` of anomalies ("contamination").
    share: Fraction of the examples to flag, in [0, 1).

  Raises:
    UserError: There are no scores, a score is not finite, or the fraction is invalid.
  """
  ordered = _ordered(scores)
  if not errors.is_number(share) or not 0 <= share < 1:
    raise errors.UserError(f"contamination={errors.format_value(share)}: must be a number in [0, 1)")
  flagged = int(share * len(ordered) + _ROUNDING)
  last, above = ordered[len(ordered) - 1 - flagged], ordered[min(len(ordered) - flagged, len(ordered) - 1)]
  return float(_between(last, above))


class Curve(NamedTuple):
  """Counts for all thresholds that flag different sets of examples, from the highest threshold to the lowest."""

  values: Float64[np.ndarray, " cuts"]  # thresholds, midway between two neighbouring scores
  hits: Int[np.ndarray, " cuts"]  # number of flagged anomalies
  flagged: Int[np.ndarray, " cuts"]  # number of flagged examples
  anomalies: int

  @property
  def precision(self) -> Float64[np.ndarray, " cuts"]:
    """Fraction of the flagged examples that are anomalies; each threshold flags at least one example."""
    return self.hits / self.flagged

  @property
  def recall(self) -> Float64[np.ndarray, " cuts"]:
    """Fraction of the anomalies that are flagged."""
    return self.hits / self.anomalies

  @property
  def f1(self) -> Float64[np.ndarray, " cuts"]:
    """Harmonic mean of precision and recall."""
    return 2 * self.hits / (self.flagged + self.anomalies)


def curve(scores: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> Curve:
  """Returns the precision-recall curve: the thresholds that flag at least one example, each with its counts.

  The counts are the numbers of flagged anomalies (true positives) and of all flagged examples.

  Raises:
    UserError: A score is not finite, or there are no anomalies or no normal examples.
  """
  ordered = _ordered(scores)[::-1]
  if anomalous.all() or not anomalous.any():
    found = "anomalies" if anomalous.all() else "normal examples"
    raise errors.UserError(f"labels: all examples are {found}; a threshold from labels needs both")
  hits = np.cumsum(anomalous[np.argsort(-scores.astype(np.float64), kind="stable")])
  last = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # last position of each group of equal scores
  below = np.append(ordered[1:], np.nextafter(ordered[-1], -np.inf))[last]
  return Curve(_between(below, ordered[last]), hits[last], last + 1, int(anomalous.sum()))


def as_anomalous(labels: Any, count: int) -> Bool[np.ndarray, " examples"]:
  """Returns anomaly labels as booleans; raises UserError unless there are `count` labels, each a boolean, 0 or 1."""
  array = np.asarray(labels)
  if array.shape != (count,):
    raise errors.UserError(f"labels: have the shape {array.shape} for {count} examples; pass one label per example")
  if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
    raise errors.UserError("labels: must be True or 1 for anomalies, and False or 0 for normal examples")
  return array.astype(bool)


def best_f1(scores: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> float:
  """Returns the threshold with the largest F1; if several have it, the highest of these thresholds."""
  found = curve(scores, anomalous)
  return float(found.values[np.argmax(found.f1)])


def with_precision(
  scores: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"], level: float
) -> float:
  """Returns the threshold with the largest recall among the thresholds whose precision is at least `level`.

  Raises:
    UserError: No threshold has at least this precision.
  """
  _check_level("precision", level)
  found = curve(scores, anomalous)
  fits = found.precision >= level - _ROUNDING
  if not fits.any():
    raise errors.UserError(
      f"precision={level:g}: no threshold reaches it for these examples; pass at most the largest precision, about "
      f"{found.precision.max():.3g}"
    )
  return float(found.values[np.argmax(np.where(fits, found.recall, -1))])


def with_recall(
  scores: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"], level: float
) -> float:
  """Returns the highest threshold whose recall is at least `level`; it has the fewest false positives."""
  _check_level("recall", level)
  found = curve(scores, anomalous)
  return float(found.values[np.argmax(found.recall >= level - _ROUNDING)])


def _between(low: Any, high: Any) -> Any:
  """Returns the midpoint of two scores, or `low` if the midpoint rounds to `high`, because `high` must be flagged."""
  middle = low + (high - low) / 2
  return np.where(middle < high, middle, low)


def _check_level(name: str, level: Any) -> None:
  if not errors.is_number(level) or not 0 < level <= 1:
    raise errors.UserError(f"{name}={errors.format_value(level)}: must be a number in (0, 1]")


def _ordered(scores: Float[np.ndarray, " examples"]) -> Float64[np.ndarray, " examples"]:
  """Returns the scores in ascending order; raises UserError if there are none or one is not finite."""
  if not len(scores):
    raise errors.UserError("scores: there are no examples; a threshold needs at least one")
  if not np.isfinite(scores).all():
    count = np.count_nonzero(~np.isfinite(scores))
    raise errors.UserError(f"scores: {count} of {len(scores)} are not finite; the model has diverged on them")
  return np.sort(scores.astype(np.float64))


def _ratio(part: int, whole: int) -> float:
  return part / whole if whole else math.nan

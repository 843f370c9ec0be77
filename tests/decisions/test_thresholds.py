"""Thresholds of scores: shares, best F1, fixed precision and recall, and the intervals of their measures."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from ae_jax import errors
from ae_jax.decisions import thresholds

SCORES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30)
LABELLED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12).filter(
  lambda pairs: len({label for _, label in pairs}) == 2
)
STORED = {"value": 1.5, "kind": "knn", "rule": "contamination", "level": 0.1, "half": "given", "examples": 10}
STORED |= {"step": 20, "weights": "abc"}


@given(SCORES, st.floats(0, 0.99))
def test_at_most_the_share_is_flagged_and_one_more_would_exceed_it(values, share):
  scores = np.array(values, np.float32)
  flagged = thresholds.flag(scores, thresholds.from_share(scores, share))
  assert flagged.mean() <= share + 1e-6
  if len({*values}) == len(values):
    assert flagged.sum() == int(share * len(values) + 1e-9)


def test_the_share_is_not_lost_to_rounding():
  scores = np.arange(100.0)
  for percent in range(100):
    assert thresholds.flag(scores, thresholds.from_share(scores, percent / 100)).sum() == percent


def every_cut(scores, anomalous):
  """Returns the confusions of all thresholds that flag something."""
  values = np.unique(scores)
  return [thresholds.confusion(scores, anomalous, float(value) - 0.5) for value in values]


@given(LABELLED)
def test_no_other_threshold_is_better(pairs):
  scores, anomalous = (np.array(values) for values in zip(*pairs, strict=True))
  scores = scores.astype(np.float32)
  cuts = every_cut(scores, anomalous)
  best = thresholds.confusion(scores, anomalous, thresholds.best_f1(scores, anomalous))
  assert best.f1 == pytest.approx(max(cut.f1 for cut in cuts))
  for level in (0.3, 0.5, 1.0):
    found = thresholds.confusion(scores, anomalous, thresholds.with_recall(scores, anomalous, level))
    fitting = [cut for cut in cuts if cut.recall >= level - 1e-9]
    assert found.recall >= level - 1e-9
    assert found.false_positives == min(cut.false_positives for cut in fitting)
    fitting = [cut for cut in cuts if cut.precision >= level - 1e-9]
    if not fitting:
      with pytest.raises(errors.UserError, match="no threshold reaches it"):
        thresholds.with_precision(scores, anomalous, level)
      continue
    found = thresholds.confusion(scores, anomalous, thresholds.with_precision(scores, anomalous, level))
    assert found.precision >= level - 1e-9
    assert found.recall == max(cut.recall for cut in fitting)


def test_measures_are_those_of_scikit_learn():
  generator = np.random.default_rng(0)
  anomalous = generator.random(200) < 0.3
  scores = generator.normal(size=200) + anomalous
  found = thresholds.confusion(scores, anomalous, 0.5)
  flagged = thresholds.flag(scores, 0.5)
  assert [*found] == metrics.confusion_matrix(anomalous, flagged)[::-1, ::-1].T.ravel().tolist()
  expected = metrics.precision_recall_fscore_support(anomalous, flagged, average="binary")[:3]
  assert (found.precision, found.recall, found.f1) == pytest.approx(expected)
  best = max(metrics.f1_score(anomalous, scores > value) for value in scores)
  assert thresholds.curve(scores, anomalous).f1.max() >= best
  assert metrics.f1_score(anomalous, thresholds.flag(scores, thresholds.best_f1(scores, anomalous))) >= best


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (33, 400)])
def test_wilsons_interval_is_that_of_scipy(successes, trials):
  expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
  assert thresholds.wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_intervals_contain_the_true_measures_in_95_percent_of_draws():
  true = {"precision": 30 / 40, "recall": 30 / 50, "f1": 60 / 90}
  draws = np.random.default_rng(0).multinomial(200, np.array([30, 10, 20, 140]) / 200, 2000)
  found = [thresholds.Confusion(*map(int, draw)).intervals() for draw in draws]
  for name, value in true.items():
    covered = np.mean([low <= value <= high for low, high in (each[name] for each in found)])
    assert 0.925 < covered < 0.975, name


def test_nothing_flagged_or_no_anomalies_has_no_measures():
  empty = thresholds.Confusion(0, 0, 3, 5)
  assert np.isnan(empty.precision)
  assert (empty.recall, empty.f1) == (0, 0)
  assert np.isnan(empty.intervals()["precision"]).all()
  assert np.isnan(thresholds.Confusion(0, 0, 0, 5).f1)
  assert thresholds.flag(np.array([np.nan, 1.0]), 2.0).tolist() == [True, False]


def test_neighbouring_floats_are_divided():
  low = np.float64(1.0)
  high = np.nextafter(low, 2)
  for scores in ([low, high], [high, low]):
    value = thresholds.best_f1(np.array(scores), np.array(scores) == high)
    assert thresholds.flag(np.array([low, high]), value).tolist() == [False, True]


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: thresholds.from_share(np.ones(3), 1.0), r"must be a number in \[0, 1\)"),
    (lambda: thresholds.from_share(np.ones(3), float("nan")), r"must be a number in \[0, 1\)"),
    (lambda: thresholds.from_share(np.ones(0), 0.1), "no examples"),
    (lambda: thresholds.from_share(np.array([1, np.nan]), 0.1), "1 of 2 are not finite"),
    (lambda: thresholds.best_f1(np.ones(2), np.ones(2, bool)), "all examples are anomalies"),
    (lambda: thresholds.best_f1(np.ones(2), np.zeros(2, bool)), "all examples are normal"),
    (lambda: thresholds.as_anomalous([0, 2], 2), "True or 1 for anomalies"),
    (lambda: thresholds.as_anomalous(["a", "b"], 2), "True or 1 for anomalies"),
    (lambda: thresholds.as_anomalous([1], 2), "one label per example"),
    (lambda: thresholds.with_recall(np.ones(2), np.array([False, True]), 0.0), r"recall=0.0: .* number in \(0, 1\]"),
    (lambda: thresholds.from_json({"value": 3.0}, "t.json"), r"t\.json: is not a threshold file"),
    (lambda: thresholds.from_json(STORED | {"level": "0.1"}, "t.json"), r"t\.json: is not a threshold file"),
    (lambda: thresholds.from_json(STORED | {"rule": "median"}, "t.json"), r"t\.json: is not a threshold file"),
    (lambda: thresholds.from_json(STORED | {"examples": -1}, "t.json"), r"t\.json: is not a threshold file"),
    (lambda: thresholds.from_json(STORED | {"targets": 1}, "t.json"), r"t\.json: is not a threshold file"),
    (lambda: thresholds.from_json(STORED | {"other": 1}, "t.json"), r"t\.json: is not a threshold file"),
  ],
)
def test_wrong_input_is_refused(call, message):
  with pytest.raises(errors.UserError, match=message):
    call()


def test_a_threshold_survives_json():
  for rule, level in itertools.product(("f1", "contamination"), (None, 0.01)):
    stored = thresholds.Threshold(1.5, "knn", rule, level, "given", 10, 20, "abc")
    assert thresholds.from_json(json.loads(json.dumps(stored.as_json())), "") == stored
    assert "knn score above 1.5" in stored.in_words()


def test_a_file_without_the_later_fields_is_a_threshold():
  found = thresholds.from_json(STORED, "")
  assert (found.reference, found.targets) == ("", None)

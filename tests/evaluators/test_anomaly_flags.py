"""Flags of test examples in the report: the threshold, the confusion matrix and the histograms of the scores."""

import dataclasses

import numpy as np
import pytest
from made_contexts import context_of, images

from ae_jax.decisions import store, thresholds
from ae_jax.evaluators import anomaly_flags

pytestmark = pytest.mark.quick_compile
LABELS = np.repeat([0, 1], [40, 20])


def context(threshold=None, validation=None):
  """Returns a context whose last 20 of 60 test examples are anomalies; the model has random weights."""
  found = context_of(images(100), images(60, seed=1), one_class=0)
  dataset = dataclasses.replace(found.dataset, test_labels=LABELS)
  if validation is not None:
    dataset = dataclasses.replace(dataset, validation=validation[0], validation_labels=validation[1])
  found = dataclasses.replace(found, dataset=dataset)
  if threshold is not None:
    vars(found.run)["threshold"] = thresholds.Threshold(threshold, "knn", "value", None, "", 0, 0, "")
    vars(found.run)["reference"] = found.reference
  return found


def test_the_table_is_that_of_the_flags_of_the_run():
  made = context()
  middle = float(np.median(made.run.score(made.test)))
  vars(made.run)["threshold"] = thresholds.Threshold(middle, "reconstruction", "value", None, "", 0, 0, "")
  results, flagged = dict(anomaly_flags.analyze(made)), made.run.flag(made.test)
  groups, names = ("anomalies", "normal_examples"), ("flagged", "not_flagged")
  counts = [results[f"{group}/{name}"] for group in groups for name in names]
  anomalous = LABELS == 1
  assert counts == [
    (flagged & anomalous).sum(),
    (~flagged & anomalous).sum(),
    (flagged & ~anomalous).sum(),
    (~flagged & ~anomalous).sum(),
  ]
  assert results["precision"] == pytest.approx(anomalous[flagged].mean())
  for name in ("precision", "recall", "f1"):
    assert results[f"{name}_low"] < results[name] < results[f"{name}_high"]
  assert "reconstruction score above" in results["threshold_rule"]


def test_the_histograms_hold_every_example_and_the_threshold():
  made = context(threshold=0.5)
  results = dict(anomaly_flags.analyze(made))
  lines = results["score_histograms"].lines
  assert [*lines] == ["normal examples", "anomalies", "threshold 0.5"]
  for name in ("normal examples", "anomalies"):
    assert lines[name][1].sum() == pytest.approx(1)
  np.testing.assert_array_equal(lines["threshold 0.5"][0], 0.5)
  assert lines["normal examples"][0][0] < np.median(made.run.score(made.test, kind="knn")) < lines["anomalies"][0][-1]
  ratios = lines["anomalies"][0][1:] / lines["anomalies"][0][:-1]
  np.testing.assert_allclose(ratios, ratios[0])  # equal widths on a logarithmic axis
  assert (results["score_histograms"].x_label, results["score_histograms"].logarithmic_x) == ("knn score", True)
  linear = dict(anomaly_flags.analyze(context(threshold=0.0)))["score_histograms"]
  np.testing.assert_allclose(np.diff(linear.lines["anomalies"][0], 2), 0, atol=1e-9)
  assert not linear.logarithmic_x


def test_without_a_threshold_a_twentieth_of_the_training_examples_is_flagged():
  made = context()
  results = dict(anomaly_flags.analyze(made))
  assert (made.run.score(made.train) > results["threshold"]).sum() == 5
  assert "the run has no threshold; run.set_threshold sets one" in results["threshold_rule"]


def test_known_anomalies_of_the_validation_set_do_not_count():
  examples = np.concatenate([images(40, seed=2), 1 - images(10, seed=3)])
  made = context(validation=(examples, np.repeat([0, 1], [40, 10])))
  results = dict(anomaly_flags.analyze(made))
  assert (made.run.score(examples[:40]) > results["threshold"]).sum() == 2
  assert "40 validation examples" in results["threshold_rule"]


def test_a_threshold_of_other_weights_is_named_and_not_used(tmp_path):
  made = context()
  store.write_threshold(tmp_path, thresholds.Threshold(1.0, "knn", "value", None, "", 0, 7, "other"))
  run = dataclasses.replace(made.run, workdir=tmp_path)
  results = dict(anomaly_flags.analyze(dataclasses.replace(made, run=run)))
  assert "belongs to the weights of step 7" in results["threshold_rule"]
  assert results["threshold"] == dict(anomaly_flags.analyze(made))["threshold"]


def test_a_threshold_is_compared_with_scores_of_the_reference_of_the_run():
  made = context()
  made.run.set_reference(made.train[:20])
  found = made.run.set_threshold(made.train[:20], contamination=0.5, kind="knn")
  results = dict(anomaly_flags.analyze(made))
  flagged = made.run.score(made.test, kind="knn") > found.value
  assert results["anomalies/flagged"] + results["normal_examples/flagged"] == flagged.sum()


def test_what_prevents_flags_is_a_remark():
  made = context()
  made.run.set_threshold(made.test, target=made.test[::-1], contamination=0.5)
  results = dict(anomaly_flags.analyze(made))
  assert "because target= is missing" in results["threshold_rule"]
  diverged = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, train=made.dataset.train.copy()))
  diverged.dataset.train[0] = np.nan
  del vars(made.run)["threshold"]
  results = dict(anomaly_flags.analyze(diverged))
  assert [*results] == ["threshold_remark"]
  assert "1 of 100 are not finite" in results["threshold_remark"]


def test_nothing_flagged_has_no_interval_of_the_precision():
  results = dict(anomaly_flags.analyze(context(threshold=1e6)))
  assert np.isnan(results["precision"])
  assert "precision_low" not in results
  assert results["recall"] == 0


def test_the_figure_of_anomalies_has_the_highest_and_the_lowest_scores_and_says_which_are_missed():
  made = context()
  scores = made.run.score(made.test)
  order = 40 + np.argsort(-scores[40:])
  value = float(scores[order[[-2, -1]]].mean())  # one anomaly is missed
  vars(made.run)["threshold"] = thresholds.Threshold(value, "reconstruction", "value", None, "", 0, 0, "")
  figure = dict(anomaly_flags.analyze(made))["anomalies"]
  chosen = [*order[:8], *order[-8:]]
  np.testing.assert_array_equal(figure.rows["test images"], made.test[chosen])
  np.testing.assert_array_equal(figure.rows["reconstructions"], made.reconstructions[chosen])
  assert figure.captions[0] == f"class 1, score {scores[order[0]]:.3g}"
  assert [caption.endswith("missed") for caption in figure.captions] == [False] * 15 + [True]
  assert "the 8 with the highest and the 8 with the lowest scores of 20; missed:" in figure.title


def test_few_anomalies_are_all_shown_with_the_names_of_their_classes():
  made = context(threshold=-1.0)
  dataset = dataclasses.replace(made.dataset, test_labels=np.repeat([0, 1], [57, 3]), class_names=("good", "broken"))
  figure = dict(anomaly_flags.analyze(dataclasses.replace(made, dataset=dataset)))["anomalies"]
  assert figure.title == "Test anomalies in descending order of their knn scores"
  values = [float(caption.removeprefix("broken, score ")) for caption in figure.captions]
  assert values == sorted(values, reverse=True)
  assert len(values) == 3


def test_windows_in_the_figure_of_anomalies_do_not_overlap():
  made = context(threshold=-1.0)
  made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, test_start=np.arange(60)))
  figure = anomaly_flags._anomalies(made, made.squared_errors, made.run.threshold)
  starts = np.array([int(caption.split(",")[0].removeprefix("from step ")) for caption in figure.captions])
  assert np.diff(np.sort(starts)).min() >= made.dataset.shape[0]
  assert 40 + made.squared_errors[40:].argmax() in starts
  assert figure.title.endswith("scores, without windows that overlap these")

"""Scores over time of the test parts of recordings, and the choice of windows that do not overlap."""

import dataclasses
import itertools

import numpy as np
import pytest
from made_contexts import context_of, images

from ae_jax.data import record_times, recorded_tables, windows
from ae_jax.decisions import thresholds
from ae_jax.evaluators import anomaly_flags, figures, reconstruction, recordings

pytestmark = pytest.mark.quick_compile
WINDOW, STRIDE, FIRST = 8, 3, 100  # length of a window, distance of windows, and first step of the test part
RECORD = images(1, seed=3, shape=(60, 2))[0]
STEP_LABELS = np.isin(np.arange(60), (20, 21, 22, 40)).astype(int)


def context(stride=STRIDE, one_class=0, names=None):
  """Returns a context with the windows of `RECORD` as test examples, once for each of `names`."""
  cut = lambda record: windows.of_record(record, WINDOW, stride, "")[:]
  repeats = max(1, len(names or ()))
  test, labels = (np.concatenate([cut(record)] * repeats) for record in (RECORD, STEP_LABELS))
  found = context_of(images(30, shape=(WINDOW, 2)), test, one_class=one_class)
  found.run.config.data.update(window=WINDOW, stride=stride)
  starts = FIRST + stride * np.arange(len(test) // repeats)
  changes = {"test_start": np.tile(starts, repeats), "test_step_labels": labels[..., 0]}
  changes |= {"test_labels": labels.max((1, 2))}
  if names:
    changes["test_recording"] = np.repeat(names, len(starts))
  return dataclasses.replace(found, dataset=dataclasses.replace(found.dataset, **changes))


def timelines(made, threshold=None):
  return dict(recordings.analyze(made, threshold))["scores_over_time"]


@pytest.mark.parametrize("stride", [STRIDE, WINDOW, WINDOW + 2])
def test_steps_have_the_scores_of_score_record_and_labels_are_marked(stride):
  made = context(stride)
  figure = timelines(made)
  (curve,), (marked,), (of_windows,) = (part.values() for part in (figure.steps, figure.marked, figure.windows))
  expected = made.run.score_record(RECORD)
  in_windows = np.isfinite(expected)
  np.testing.assert_array_equal(curve[0], FIRST + np.flatnonzero(in_windows))
  np.testing.assert_allclose(curve[1], expected[in_windows], rtol=1e-5)
  np.testing.assert_allclose(of_windows[1] * WINDOW, made.run.score(made.test), rtol=1e-5)
  assert [*figure.steps] == ["test part, from step 100"]
  if stride <= WINDOW:
    assert marked.tolist() == [[FIRST + 20, FIRST + 23], [FIRST + 40, FIRST + 41]]
  assert figures.shape_error(figure) is None


def test_only_thresholds_of_squared_errors_are_shown_and_they_are_per_step():
  made = context()
  threshold = thresholds.Threshold(2.0, "reconstruction", "value", None, "", 0, 0, "")
  assert timelines(made, threshold).threshold == 2.0 / WINDOW
  other = timelines(made, dataclasses.replace(threshold, kind="knn"))
  assert np.isnan(other.threshold)
  assert "knn scores, so it is not shown" in other.title
  assert dict(anomaly_flags.analyze(made))["scores_over_time"].threshold > 0


def test_each_recording_has_a_panel_and_the_title_counts_the_others(monkeypatch):
  names = ("b", "a", "a")
  figure = timelines(context(names=names))
  panels = ["b: test part, from step 100", "a: test part, from step 100", "a: test part, from step 100 (3)"]
  assert [*figure.steps] == panels
  monkeypatch.setattr(recordings, "_MOST_PANELS", 2)
  monkeypatch.setattr(recordings, "_MOST_POINTS", 20)
  fewer = timelines(context(names=names))
  assert [*fewer.steps] == panels[:2]
  assert "2 of 3 recordings are shown" in fewer.title
  assert "largest error of 3 steps" in fewer.title
  assert fewer.steps[panels[0]][1].max() == figure.steps[panels[0]][1].max()


def test_a_run_without_anomalies_has_the_figure_too_with_its_stored_threshold(monkeypatch):
  stored = thresholds.Threshold(2.0, "reconstruction", "value", None, "", 0, 0, "")
  monkeypatch.setattr(thresholds, "of_run", lambda run: (stored, ""))
  results = dict(reconstruction.analyze(context(one_class=None)))
  assert results["scores_over_time"].threshold == 2.0 / WINDOW
  assert not any(len(marked) for marked in results["scores_over_time"].marked.values())
  assert "scores_over_time" not in dict(reconstruction.analyze(context()))
  assert not [*recordings.analyze(context_of(images(30), images(9)))]


def test_the_worst_and_the_best_windows_do_not_overlap():
  results = dict(reconstruction.analyze(context(one_class=None)))
  for name in ("worst", "best"):
    starts = [int(caption.rpartition(" ")[2]) for caption in results[name].captions]
    assert min(abs(a - b) for a, b in itertools.combinations(starts, 2)) >= WINDOW
    assert results[name].title.endswith("without windows that overlap these")
  errors = context().squared_errors
  assert int(results["worst"].captions[0].rpartition(" ")[2]) == FIRST + STRIDE * errors.argmax()


def test_times_stand_for_steps():
  made = context(STRIDE)
  days = 20_000 + np.arange(60) / 24
  cut = windows.of_record(days, WINDOW, STRIDE, "")[:][..., 0]
  columns = recorded_tables.RecordColumns(("a", "b"), ("numeric",) * 2, record_times.TimeAxis("time", True))
  plain = timelines(made)
  made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, test_times=cut, record_columns=columns))
  item = timelines(made)
  assert (item.time, item.is_date) == ("time", True)
  (title,) = item.steps
  assert title == "test part, from 2024-10-04 00:00"
  (steps, errors), (middles, _) = item.steps[title], item.windows[title]
  np.testing.assert_array_equal(steps, days[: len(steps)])
  np.testing.assert_array_equal(errors, next(iter(plain.steps.values()))[1])
  np.testing.assert_allclose(middles, cut.mean(1))
  np.testing.assert_allclose(item.marked[title], days[[[20, 23], [40, 41]]], rtol=1e-12)


def test_lines_have_a_break_at_gaps_and_stretches_end_before_them():
  made = context(STRIDE)
  starts = np.array([0, 3, 15, 18, 21])  # a gap after step 10, and no window with the steps 11 to 14
  rows = starts // STRIDE
  days = 20_000 + (np.arange(60) + 50 * (np.arange(60) >= 11)) / 24
  axis = record_times.TimeAxis("time", True, longest=2 / 24)
  changes = {
    "test": made.test[rows],
    "test_start": FIRST + starts,
    "test_step_labels": np.isin(starts[:, None] + np.arange(WINDOW), (9, 10, 20)).astype(int),
    "test_labels": np.array([0, 1, 1, 1, 0]),
    "test_times": days[starts[:, None] + np.arange(WINDOW)],
    "record_columns": recorded_tables.RecordColumns(("a", "b"), ("numeric",) * 2, axis),
  }
  made = context_of(made.dataset.train, made.test[rows], one_class=0)
  made.run.config.data.update(window=WINDOW, stride=STRIDE)
  item = timelines(dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, **changes)))
  ((steps, errors),), ((middles, _),), (marked,) = (part.values() for part in (item.steps, item.windows, item.marked))
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(steps)), [11])
  np.testing.assert_array_equal(steps[~np.isnan(steps)], days[[*range(11), *range(15, 29)]])
  np.testing.assert_array_equal(np.isnan(errors), np.isnan(steps))
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(middles)), [2])
  np.testing.assert_allclose(marked, [[days[9], days[10] + 1 / 24], [days[20], days[21]]], rtol=1e-12)

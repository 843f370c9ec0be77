"""Scores over time of the test parts of recordings that are cut into windows."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int, Shaped

from ae_jax import data
from ae_jax.data import windows
from ae_jax.decisions import thresholds
from ae_jax.evaluators import figures
from ae_jax.evaluators.context import EvalContext

_MOST_PANELS = 6  # maximum number of recordings in the figure
_MOST_POINTS = 2_000  # maximum number of points of a curve


def analyze(
  context: EvalContext, threshold: thresholds.Threshold | None = None
) -> Iterator[tuple[str, figures.Timelines]]:
  """Yields a figure of the squared errors over time; nothing if the examples are not windows, or if training diverged.

  The error of a step is that of `Run.score_record`. A threshold is one of windows. It is shown per step, i.e. divided
  by the length of a window, beside the errors of the windows per step.

  Args:
    context: The trained model and its data.
    threshold: Threshold of the scores of windows. It can be shown only if its scores are of the kind "reconstruction",
      which are squared errors.
  """
  dataset = context.dataset
  if dataset.test_start is None or not np.isfinite(context.squared_errors).all():
    return
  window = dataset.shape[0]
  squares = context.squares(context.reconstructions).sum(-1)
  if context.mask is not None:
    squares = np.where(context.mask.any(-1), squares, np.nan)  # steps without any value have no error
  recordings = _recordings(dataset)
  largest = np.argsort([-np.nanmax(squares[rows], initial=0) for rows in recordings.values()], kind="stable")
  largest = largest[:_MOST_PANELS]
  names = [[*recordings][number] for number in sorted(largest)]
  found: dict[str, dict[str, np.ndarray]] = {"steps": {}, "windows": {}, "marked": {}}
  for name in names:
    for curves, curve in zip(found.values(), _panel(context, recordings[name], squares[recordings[name]]), strict=True):
      curves[name] = curve
  title = "Squared error of each step of the test recordings"
  if len(names) < len(recordings):
    title += f"; {len(names)} of {len(recordings)} recordings are shown, those with the largest errors"
  every = -(-max(curve.shape[1] for curve in found["steps"].values()) // _MOST_POINTS)
  title += f"; each point is the largest error of {every} steps" if every > 1 else ""
  value = math.nan
  if threshold is not None and threshold.kind == "reconstruction":
    value = threshold.value / window
  elif threshold is not None:
    title += f"; the threshold is one of {threshold.kind} scores, so it is not shown"
  axis, stride = dataset.time_axis, context.run.config.data.stride or window
  longest = axis.longest if axis is not None and axis.longest else math.inf
  thinned = {
    part: {name: _thinned(curve, longest * steps) for name, curve in found[part].items()}
    for part, steps in (("steps", 1), ("windows", stride))
  }
  labels = {} if axis is None else {"time": axis.label, "is_date": axis.is_date}
  yield "scores_over_time", figures.Timelines(title, **thinned, marked=found["marked"], threshold=value, **labels)


def _recordings(dataset: data.Dataset) -> dict[str, Int[np.ndarray, " rows"]]:
  """Returns {title of a panel: indices of its windows} of each recording; the title says where the test part begins."""
  starts, names = dataset.test_start, dataset.test_recording
  is_new = np.diff(starts) <= 0
  if names is not None:
    is_new |= names[1:] != names[:-1]
  found: dict[str, Int[np.ndarray, " rows"]] = {}
  for rows in np.split(np.arange(len(starts)), np.flatnonzero(is_new) + 1):
    start = dataset.start_of(int(rows[0]))
    where = f"test part, from {start}" if starts[rows[0]] else f"test recording, from {start}"
    title = where if names is None else f"{names[rows[0]]}: {where}"
    found[f"{title} ({len(found) + 1})" if title in found else title] = rows  # files in two folders can have one name
  return found


def _panel(
  context: EvalContext, rows: Int[np.ndarray, " rows"], squares: Float64[np.ndarray, "rows window"]
) -> tuple[Float64[np.ndarray, "2 steps"], Float64[np.ndarray, "2 rows"], Shaped[np.ndarray, "stretches 2"]]:
  """Returns the errors over time of the windows at `rows`, the errors of these windows, and the anomalous stretches.

  The stretches are (first step, step after the last one), or the times of these.
  """
  dataset, (_, window) = context.dataset, squares.shape
  starts = dataset.test_start[rows]
  within = starts - starts[0]
  count = int(within[-1]) + window  # with gaps or a long stride, some of these steps are in no window
  steps = np.arange(starts[0], starts[0] + count, dtype=np.float64)
  middles, usual = starts + (window - 1) / 2, 1.0
  if dataset.test_times is not None:
    times = dataset.test_times[rows]
    steps[within[:, None] + np.arange(window)] = times
    middles, usual = times[:, [0, -1]].mean(1), float(np.median(np.diff(times))) if window > 1 else 0.0
  errors = windows.over_time(squares, within, count)
  in_windows = np.isfinite(errors)
  anomalous = np.zeros(count)
  if dataset.one_class is not None and dataset.test_step_labels is not None:
    anomalous = windows.over_time(dataset.test_step_labels[rows] != dataset.one_class, within, count)
  marked = np.flatnonzero(np.diff(anomalous > 0, prepend=False, append=False)).reshape(-1, 2)
  stretches = np.stack([steps[marked[:, 0]], steps[marked[:, 1] - 1] + usual], 1)
  of_windows = np.stack([middles, np.nansum(squares, 1) / window])
  return np.stack([steps, errors])[:, in_windows], of_windows, stretches


def _thinned(curve: Float64[np.ndarray, "2 points"], longest: float) -> Float64[np.ndarray, "2 fewer"]:
  """Reduces a curve to at most `_MOST_POINTS` points, each with the largest value of consecutive points.

  NaN is inserted where two points of the curve are further apart than `longest`, so the line has a break there.
  """
  x, y = curve
  every = -(-len(x) // _MOST_POINTS)
  firsts = np.arange(0, len(x), every)
  gaps = np.flatnonzero(np.diff(x[firsts]) > every * longest) + 1
  return np.insert(np.stack([x[firsts], np.maximum.reduceat(y, firsts)]), gaps, np.nan, axis=1)

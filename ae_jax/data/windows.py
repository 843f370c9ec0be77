"""Cuts a long recording into windows of equal length, possibly overlapping, which are the examples of a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped

from ae_jax import errors
from ae_jax.data import kinds, lazy_arrays, schema_fit, splits

_RECORDS = {"train": "training recording", "validation": "validation recording", "test": "test recording"}


def check(name: str, kind: str, window: int, stride: int) -> None:
  """Raises UserError unless `config.data.window` and `config.data.stride` are valid for the data source `name`.

  A window of 0 means that the data are not cut. A stride of 0 means the length of the window.
  """
  for key, value in {"window": window, "stride": stride}.items():
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= errors.LARGEST_COUNT
    errors.check(valid, f"data.{key}", value, "an integer, 0 or more")
  if stride and not window:
    raise errors.UserError(f"config.data.stride={stride}: needs config.data.window, the length of a window in steps")
  recorded = (*kinds.ARRAY_FILES, *schema_fit.NAMED)
  if window and name not in recorded:
    raise errors.UserError(
      f"config.data.window={window}: windows can only be cut from the data sources {', '.join(recorded)}, not "
      f"from config.data.name={name!r}; set config.data.window=0"
    )
  if window and kind not in ("auto", "series"):
    raise errors.UserError(
      f"config.data.window={window}: windows are supported only for series; set config.data.kind='series' or "
      "config.data.window=0"
    )


def cut(
  arrays: dict[str, Any],
  window: int,
  stride: int,
  where: str,
  *,
  test: float = 1 / 5,
  validation: float = 0.0,
  normal: int | None = None,
) -> list[str]:
  """Replaces the recordings [T] or [T, C] of a source by their windows [N, window, C], in place.

  Windows start every `stride` steps. Without a test recording, the last fraction `test` of the training recording
  becomes the test recording. Then, if `validation` is not 0 and there is no validation recording, the last fraction
  `validation` of the rest becomes the validation recording. Recordings are split before they are cut, so no window
  contains steps of two splits. The label of a window is that of `label_of`, with `normal` as label of the normal class.

  If a source has several recordings (`record_steps`, see `series_folders.read`), each of them is split in this way, and
  no window contains steps of two recordings.

  `test_start` [N] becomes the step at which each test window begins in its recording as stored, including the steps
  before a test part that was split off. With several recordings, `test_recording` [N] becomes their names. With labels,
  `test_step_labels` [N, window] becomes the labels of the steps of the test windows, and `test_times` [N, window] their
  times, if the recordings have `train_times`, ... (see `recorded_tables`).

  Returns:
    Notes about the number of windows, and about steps at the end of a recording that are in no window.

  Raises:
    UserError: A recording has more than 2 axes or is shorter than a window.
  """
  stride, notes = stride or window, []
  steps = {split: (len(arrays[split]),) for split in splits.present(arrays)} | arrays.pop("record_steps", {})
  offsets, names = [0] * len(steps.get("test", ())), arrays.pop("record_names", {})
  if test and "test" not in arrays:
    _hold_out(arrays, steps, test, "test")
    offsets = [*steps["train"]]
  if validation and "validation" not in arrays:
    _hold_out(arrays, steps, validation, "validation")
  for split in splits.present(arrays):
    name, lengths = _RECORDS[split], steps[split]
    arrays[split] = of_record(arrays[split], window, stride, f"the {name} of {where}", lengths)
    if (labels := arrays.get(f"{split}_labels")) is not None:
      of_steps = of_record(labels, window, stride, f"the labels of {where}", lengths)[:][..., 0]
      arrays[f"{split}_labels"] = label_of(of_steps, normal)
      arrays |= {"test_step_labels": of_steps} if split == "test" else {}
    if (times := arrays.pop(f"{split}_times", None)) is not None and split == "test":
      arrays["test_times"] = of_record(times, window, stride, name, lengths)[:][..., 0]
    _cut_columns(arrays, split, window, stride, lengths, where)
    notes.append(_note(name, lengths, len(arrays[split]), window, stride))
  counts = [_count(n, window, stride) for n in steps["test"]]
  firsts = [first + stride * np.arange(count) for first, count in zip(offsets, counts, strict=True)]
  arrays["test_start"] = np.concatenate(firsts)
  if len(counts) > 1:
    arrays["test_recording"] = np.repeat(np.array(names.get("test") or names["train"]), counts)
  return notes


def _cut_columns(
  arrays: dict[str, Any], split: str, window: int, stride: int, lengths: Sequence[int], where: str
) -> None:
  """Cuts the targets and masks of the recordings of `split` into windows, in place; see `cut`."""
  for column in (f"{split}_target", f"{split}_mask"):
    if column in arrays:
      arrays[column] = of_record(arrays[column], window, stride, f"the {column} of {where}", lengths)
  for column in ("weight", "lengths"):
    if f"{split}_{column}" in arrays:
      raise errors.UserError(
        f"config.data.window={window}: {where} has `{column}_{split}`, which is not supported for windows; remove "
        "this array"
      )


def _hold_out(arrays: dict[str, Any], steps: dict[str, Any], share: float, split: str) -> None:
  """Makes the last fraction `share` of each training recording a recording of `split`, in place.

  `steps` is {split: length of each recording}.
  """
  last = [splits.last(count, share) for count in steps["train"]]
  splits.hold_out(arrays, np.concatenate(last), split)
  steps |= {"train": tuple(int((~part).sum()) for part in last), split: tuple(int(part.sum()) for part in last)}


def _note(name: str, lengths: Sequence[int], count: int, window: int, stride: int) -> str:
  """Returns a note about the number of windows of the recordings, and the number of steps that are in no window."""
  several = len(lengths) > 1
  counts = [_count(steps, window, stride) for steps in lengths]
  ends = [(n - 1) * stride + window if n else 0 for n in counts]
  rest = sum(lengths) - sum(ends)
  left_over = f"{rest:,} steps at the ends of recordings" if several else f"the last {rest:,} steps"
  found = f"{sum(lengths):,} steps" + (f" in {len(lengths):,} recordings" if several else "")
  windows = f"{name}: {found}, {count:,} windows of {window} every {stride} steps"
  return f"{windows}; {left_over} are in no window" if rest else windows


def _count(steps: int, window: int, stride: int) -> int:
  """Returns the number of windows that are cut from a recording of `steps` steps."""
  return max(0, (steps - window) // stride + 1)


def of_record(
  record: lazy_arrays.MaybeLazy, window: int, stride: int, name: str, lengths: Sequence[int] = ()
) -> lazy_arrays.LazyArray:
  """Cuts a recording [T] or [T, C] into windows [N, window, C] that start every `stride` steps.

  Args:
    record: One recording, or several recordings concatenated along time.
    window: Length of a window.
    stride: Distance between the starts of windows, in steps.
    name: Name of the recording in error messages.
    lengths: Length of each recording; () for a single recording.

  Raises:
    UserError: The recording has more than 2 axes, or all recordings are shorter than a window.
  """
  if len(record.shape) > 2:
    raise errors.UserError(f"config.data.window={window}: {name} has {len(record.shape)} axes; expected [T] or [T, C]")
  lengths = lengths or (len(record),)
  firsts = np.cumsum(lengths) - lengths
  parts = [first + stride * np.arange(_count(n, window, stride)) for first, n in zip(firsts, lengths, strict=True)]
  starts = np.concatenate(parts)
  if not len(starts):
    raise errors.UserError(f"config.data.window={window}: {name} has only {max(lengths):,} steps; use a smaller window")

  def read(indices):
    rows = starts[indices][:, None] + np.arange(window)
    return lazy_arrays.read_rows(record, rows.ravel()).reshape(len(indices), window, -1)

  channels = record.shape[1] if len(record.shape) == 2 else 1
  return lazy_arrays.LazyArray((len(starts), window, channels), record.dtype, read)


def label_of(of_steps: Shaped[np.ndarray, "windows window"], normal: Any = None) -> Shaped[np.ndarray, " windows"]:
  """Returns the label of each window: the largest label of its steps.

  If `normal` is the label of the normal class, a window with steps of other classes gets the largest label of these.
  """
  if normal is None:
    return of_steps.max(1)
  is_other = of_steps != normal
  found = np.where(is_other, of_steps, of_steps.min()).max(1)
  return np.where(is_other.any(1), found, normal)


def steps_of(count: int, window: int, stride: int) -> list[tuple[int, int]]:
  """Returns (first step, last step + 1) of each of the `count` windows of a recording."""
  return [(first, first + window) for first in range(0, count * stride, stride)]


def apart(
  order: Int[np.ndarray, " ordered"],
  count: int,
  starts: Int[np.ndarray, " windows"],
  window: int,
  recordings: Shaped[np.ndarray, " windows"] | None = None,
) -> Int[np.ndarray, " chosen"]:
  """Returns the first `count` windows in `order` that do not overlap in time.

  A window that overlaps an earlier window of the result is left out.

  Args:
    order: Indices of windows.
    count: Maximum number of indices to return.
    starts: First step of each window in its recording.
    window: Length of a window.
    recordings: Recording of each window; None if all windows are of the same recording.
  """
  chosen: list[int] = []
  while len(order) and len(chosen) < count:
    first = order[0]
    chosen.append(first)
    is_apart = np.abs(starts[order] - starts[first]) >= window
    order = order[is_apart if recordings is None else is_apart | (recordings[order] != recordings[first])]
  return np.array(chosen, int)


def over_time(
  errors_of_steps: Shaped[np.ndarray, "windows window"], stride: int, steps: int
) -> Float64[np.ndarray, " {steps}"]:
  """Averages errors over overlapping windows: returns, for each time step, the mean over the windows that contain it.

  Args:
    errors_of_steps: Errors of the steps of each window.
    stride: Distance between the starts of windows, in steps.
    steps: Length of the recording. Steps that are in no window get NaN.
  """
  count, window = errors_of_steps.shape
  positions = np.arange(count)[:, None] * stride + np.arange(window)
  sums, counts = np.zeros(steps), np.zeros(steps)
  np.add.at(sums, positions, errors_of_steps)
  np.add.at(counts, positions, 1)
  return np.divide(sums, counts, out=np.full(steps, np.nan), where=counts > 0)

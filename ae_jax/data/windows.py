"""Cuts a long recording into windows of equal length, possibly overlapping, which are the examples of a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped

from ae_jax import errors
from ae_jax.data import kinds, lazy_arrays, record_times, remarks, schema_fit, splits

_RECORDS = {"train": "training recording", "validation": "validation recording", "test": "test recording"}


def check(name: str, kind: str, window: int, stride: int, max_gap: float | int) -> None:
  """Raises UserError unless the keys of windows in `config.data` are valid for the data source `name`.

  A window of 0 means that the data are not cut. A stride of 0 means the length of the window.
  """
  for key, value in {"window": window, "stride": stride}.items():
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= errors.LARGEST_COUNT
    errors.check(valid, f"data.{key}", value, "an integer, 0 or more")
  if stride and not window:
    raise errors.UserError(f"config.data.stride={stride}: needs config.data.window, the length of a window in steps")
  errors.check(max_gap == 0 or max_gap > 1, "data.max_gap", max_gap, "0, or more than 1 (usual steps)")
  if max_gap and not (window and name in schema_fit.NAMED):
    needed = "recordings in tables, which have times" if window else "config.data.window, the length of a window"
    raise errors.UserError(f"config.data.max_gap={max_gap:g}: needs {needed}; set config.data.max_gap=0")
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
  longest: float = 0.0,
) -> list[str]:
  """Replaces the recordings [T] or [T, C] of a source by their windows [N, window, C], in place.

  Windows start every `stride` steps. Without a test recording, the last fraction `test` of the training recording
  becomes the test recording. Then, if `validation` is not 0 and there is no validation recording, the last fraction
  `validation` of the rest becomes the validation recording. Recordings are split before they are cut, so no window
  contains steps of two splits. The label of a window is that of `label_of`, with `normal` as label of the normal class.

  If a source has several recordings (`record_steps`, see `series_folders.read`), each of them is split in this way, and
  no window contains steps of two recordings. After the split, a recording with times is cut into pieces at each step
  longer than `longest` (see `record_times.pieces`), and no window contains steps of two pieces.

  `test_start` [N] becomes the step at which each test window begins in its recording as stored, including the steps
  before a test part that was split off. With several recordings, `test_recording` [N] becomes their names. With labels,
  `test_step_labels` [N, window] becomes the labels of the steps of the test windows, and `test_times` [N, window] their
  times, if the recordings have `train_times`, ... (see `recorded_tables`).

  Returns:
    Notes about the number of windows, and about steps that are in no window.

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
    name, pieces = _RECORDS[split], record_times.pieces(arrays.get(f"{split}_times"), steps[split], longest)
    lengths = sum(pieces, ())
    arrays[split] = of_record(arrays[split], window, stride, f"the {name} of {where}", lengths)
    if (labels := arrays.get(f"{split}_labels")) is not None:
      of_steps = of_record(labels, window, stride, f"the labels of {where}", lengths)[:][..., 0]
      arrays[f"{split}_labels"] = label_of(of_steps, normal)
      arrays |= {"test_step_labels": of_steps} if split == "test" else {}
    if (times := arrays.pop(f"{split}_times", None)) is not None and split == "test":
      arrays["test_times"] = of_record(times, window, stride, name, lengths)[:][..., 0]
    _cut_columns(arrays, split, window, stride, lengths, where)
    notes.append(_note(name, len(steps[split]), lengths, window, stride))
    if split == "test":
      starts, ends = starts_of(lengths, window, stride), np.cumsum(steps["test"])
      recording = np.searchsorted(ends, starts, side="right")
      arrays["test_start"] = starts + (offsets - ends + steps["test"])[recording]
      if len(ends) > 1:
        arrays["test_recording"] = np.array(names.get("test") or names["train"])[recording]
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


def _note(name: str, recordings: int, lengths: Sequence[int], window: int, stride: int) -> str:
  """Returns a note about the number of windows, and the number of steps that are in no window.

  `lengths` are those of the pieces of all recordings.
  """
  is_cut = len(lengths) > recordings
  counts = [_count(steps, window, stride) for steps in lengths]
  ends = [(n - 1) * stride + window if n else 0 for n in counts]
  rest = sum(lengths) - sum(ends)
  left_over = f"{rest:,} steps at the ends of {'pieces' if is_cut else 'recordings'}"
  left_over = left_over if len(lengths) > 1 else f"the last {rest:,} steps"
  found = f"{sum(lengths):,} steps" + (f" in {recordings:,} recordings" if recordings > 1 else "")
  found += f" in {len(lengths):,} pieces" if is_cut else ""
  windows = f"{name}: {found}, {sum(counts):,} windows of {window} every {stride} steps"
  windows += f"; {left_over} are in no window" if rest else ""
  short = [steps for steps in lengths if steps < window]
  if is_cut and short:
    windows += f", of which {sum(short):,} in {remarks.counted(len(short), 'piece')} shorter than a window"
  return windows


def _count(steps: int, window: int, stride: int) -> int:
  """Returns the number of windows that are cut from a recording of `steps` steps."""
  return max(0, (steps - window) // stride + 1)


def starts_of(lengths: Sequence[int], window: int, stride: int) -> Int[np.ndarray, " windows"]:
  """Returns the first step of each window of recordings of the given lengths, which are concatenated along time."""
  firsts = np.cumsum(lengths) - lengths
  parts = [first + stride * np.arange(_count(n, window, stride)) for first, n in zip(firsts, lengths, strict=True)]
  return np.concatenate(parts)


def of_record(
  record: lazy_arrays.MaybeLazy, window: int, stride: int, name: str, lengths: Sequence[int] = ()
) -> lazy_arrays.LazyArray:
  """Cuts a recording [T] or [T, C] into windows [N, window, C] that start every `stride` steps.

  Args:
    record: One recording, or several recordings or pieces concatenated along time.
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
  starts = starts_of(lengths, window, stride)
  if not len(starts):
    found = "has only" if len(lengths) == 1 else f"has {len(lengths):,} parts of at most"
    raise errors.UserError(f"config.data.window={window}: {name} {found} {max(lengths):,} steps; use a smaller window")

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
  errors_of_steps: Shaped[np.ndarray, "windows window"], starts: Int[np.ndarray, " windows"], steps: int
) -> Float64[np.ndarray, " {steps}"]:
  """Averages errors over overlapping windows: returns, for each time step, the mean over the windows that contain it.

  Args:
    errors_of_steps: Errors of the steps of each window.
    starts: First step of each window.
    steps: Length of the recording. Steps that are in no window get NaN.
  """
  positions = starts[:, None] + np.arange(errors_of_steps.shape[1])
  sums, counts = np.zeros(steps), np.zeros(steps)
  np.add.at(sums, positions, errors_of_steps)
  np.add.at(counts, positions, 1)
  return np.divide(sums, counts, out=np.full(steps, np.nan), where=counts > 0)

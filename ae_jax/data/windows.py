"""Windows of a long record: overlapping parts of equal length, which are the examples of a data set of series."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from ae_jax import errors
from ae_jax.data import kinds, lazy_arrays, splits

_RECORDS = {"train": "training record", "validation": "validation record", "test": "test record"}


def check(name: str, kind: str, window: int, stride: int) -> None:
  """Raises UserError unless `config.data.window` and `config.data.stride` are valid for the data source `name`.

  0 means no windows, and for the stride the length of the window.
  """
  for key, value in {"window": window, "stride": stride}.items():
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= errors.LARGEST_COUNT
    errors.check(valid, f"data.{key}", value, "an integer, 0 or more")
  if stride and not window:
    raise errors.UserError(f"config.data.stride={stride}: needs config.data.window, the length of a window in steps")
  if window and name not in kinds.ARRAY_FILES:
    raise errors.UserError(
      f"config.data.window={window}: windows can only be cut from the data sources {', '.join(kinds.ARRAY_FILES)}, not "
      f"from config.data.name={name!r}; set config.data.window=0"
    )
  if window and kind not in ("auto", "series"):
    raise errors.UserError(f"config.data.window={window}: windows are series; set config.data.kind='series'")


def cut(
  arrays: dict[str, Any], window: int, stride: int, where: str, test: float = 1 / 5, validation: float = 0.0
) -> list[str]:
  """Replaces the records [T] or [T, C] of a source by their windows [N, window, C], in place.

  Windows start every `stride` steps. Without a test record, the last part of the record is the test record, a share
  `test`. If `validation` is not 0, the last part of the rest is the validation record, a share `validation`. Windows
  are cut from these records separately, so no window contains steps of two. The label of a window is the largest label
  of its steps.

  If a source has several records (`record_steps`, see `series_folders.read`), no window contains steps of two records,
  and each record is divided.

  Returns:
    Remarks about the number of windows, and about the steps at the end of a record that are in no window.

  Raises:
    UserError: A record has more than 2 axes or is shorter than a window.
  """
  stride, notes = stride or window, []
  steps = {half: (len(arrays[half]),) for half in splits.present(arrays)} | arrays.pop("record_steps", {})
  for half, share in (("test", test), ("validation", validation)):
    if share and half not in arrays:
      last = [splits.last(count, share) for count in steps["train"]]
      splits.hold_out(arrays, np.concatenate(last), half)
      steps |= {"train": tuple(int((~part).sum()) for part in last), half: tuple(int(part.sum()) for part in last)}
  for half in splits.present(arrays):
    name, lengths = _RECORDS[half], steps[half]
    arrays[half] = of_record(arrays[half], window, stride, f"the {name} of {where}", lengths)
    if (labels := arrays.get(f"{half}_labels")) is not None:
      arrays[f"{half}_labels"] = of_record(labels, window, stride, f"the labels of {where}", lengths)[:].max((1, 2))
    for column in (f"{half}_target", f"{half}_mask"):
      if column in arrays:
        arrays[column] = of_record(arrays[column], window, stride, f"the {column} of {where}", lengths)
    for column in ("weight", "lengths"):
      if f"{half}_{column}" in arrays:
        raise errors.UserError(
          f"config.data.window={window}: {where} has `{column}_{half}`, which is not supported for windows; remove "
          "this array"
        )
    notes.append(_remark(name, lengths, len(arrays[half]), window, stride))
  return notes


def _remark(name: str, lengths: Sequence[int], count: int, window: int, stride: int) -> str:
  """Returns a remark about the windows of records: their number, and the steps at the ends that are in none of them."""
  several = len(lengths) > 1
  counts = [_count(steps, window, stride) for steps in lengths]
  ends = [(n - 1) * stride + window if n else 0 for n in counts]
  rest = sum(lengths) - sum(ends)
  left_over = f"{rest:,} steps at the ends of records" if several else f"the last {rest:,} steps"
  found = f"{sum(lengths):,} steps" + (f" in {len(lengths):,} records" if several else "")
  windows = f"{name}: {found}, {count:,} windows of {window} every {stride} steps"
  return f"{windows}; {left_over} are in no window" if rest else windows


def _count(steps: int, window: int, stride: int) -> int:
  """Returns the number of windows of a record."""
  return max(0, (steps - window) // stride + 1)


def of_record(
  record: lazy_arrays.MaybeLazy, window: int, stride: int, name: str, lengths: Sequence[int] = ()
) -> lazy_arrays.LazyArray:
  """Returns the windows [N, window, C] of a record [T] or [T, C], which start every `stride` steps.

  Args:
    record: The record, or several records, one after the other.
    window: Length of a window.
    stride: Distance between the starts of windows, in steps.
    name: Name of the record in error messages.
    lengths: Lengths of the records; () for one record.

  Raises:
    UserError: The record has more than 2 axes, or all records are shorter than a window.
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


def steps_of(count: int, window: int, stride: int) -> list[tuple[int, int]]:
  """Returns the first step of each of `count` windows of a record, and the first step after it."""
  return [(first, first + window) for first in range(0, count * stride, stride)]


def over_time(
  errors_of_steps: Shaped[np.ndarray, "windows window"], stride: int, steps: int
) -> Float64[np.ndarray, " {steps}"]:
  """Returns a value for each time step of a record: the mean over the windows that contain the step.

  Args:
    errors_of_steps: Values of the steps of each window.
    stride: Distance between the starts of windows, in steps.
    steps: Length of the record. Steps that are in no window get NaN.
  """
  count, window = errors_of_steps.shape
  positions = np.arange(count)[:, None] * stride + np.arange(window)
  sums, counts = np.zeros(steps), np.zeros(steps)
  np.add.at(sums, positions, errors_of_steps)
  np.add.at(counts, positions, 1)
  return np.divide(sums, counts, out=np.full(steps, np.nan), where=counts > 0)

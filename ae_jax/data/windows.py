"""Windows of a long record: overlapping parts of equal length, which are the examples of a data set of series."""

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
      f"config.data.window={window}: only {' and '.join(kinds.ARRAY_FILES)} files can hold a long record, not "
      f"config.data.name={name!r}; set config.data.window=0"
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

  Returns:
    Remarks about the number of windows, and about the steps at the end of a record that are in no window.

  Raises:
    UserError: A record has more than 2 axes or is shorter than a window.
  """
  stride, notes = stride or window, []
  if "test" not in arrays:
    splits.hold_out(arrays, splits.last(len(arrays["train"]), test), "test")
  if validation:
    splits.hold_out(arrays, splits.last(len(arrays["train"]), validation), "validation")
  for half in splits.present(arrays):
    name = _RECORDS[half]
    record = arrays[half]
    arrays[half] = of_record(record, window, stride, f"the {name} of {where}")
    if (labels := arrays.get(f"{half}_labels")) is not None:
      arrays[f"{half}_labels"] = of_record(labels, window, stride, f"the labels of {where}")[:].max((1, 2))
    for column in (f"{half}_target", f"{half}_mask"):
      if column in arrays:
        arrays[column] = of_record(arrays[column], window, stride, f"the {column} of {where}")
    if f"{half}_weight" in arrays:
      raise errors.UserError(f"config.data.window={window}: {where} has weights, but windows have none; remove them")
    steps, count = len(record), len(arrays[half])
    rest = steps - ((count - 1) * stride + window)
    left_over = f"; the last {rest:,} steps are in no window" if rest else ""
    notes.append(f"{name}: {steps:,} steps, {count:,} windows of {window} every {stride} steps{left_over}")
  return notes


def of_record(record: lazy_arrays.MaybeLazy, window: int, stride: int, name: str) -> lazy_arrays.LazyArray:
  """Returns the windows [N, window, C] of a record [T] or [T, C], which start every `stride` steps.

  `name` is the name of the record in error messages.

  Raises:
    UserError: The record has more than 2 axes or is shorter than a window.
  """
  if len(record.shape) > 2:
    raise errors.UserError(f"config.data.window={window}: {name} has {len(record.shape)} axes; expected [T] or [T, C]")
  steps, count = len(record), (len(record) - window) // stride + 1
  if count < 1:
    raise errors.UserError(f"config.data.window={window}: {name} has only {steps:,} steps")

  def read(indices):
    rows = indices[:, None] * stride + np.arange(window)
    return lazy_arrays.read_rows(record, rows.ravel()).reshape(len(indices), window, -1)

  channels = record.shape[1] if len(record.shape) == 2 else 1
  return lazy_arrays.LazyArray((count, window, channels), record.dtype, read)


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

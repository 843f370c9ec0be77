"""Recordings in tables: rows of CSV or Parquet files or of DataFrames are time steps, and columns are channels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from ae_jax import errors
from ae_jax.data import in_memory, lazy_arrays, remarks, schema, schema_fit, splits

_KINDS = ("numeric", "integer", "boolean")  # kinds of columns that can be channels
_UNITS = {"days": 1.0, "h": 24.0, "min": 1440.0, "s": 86_400.0}  # name of a unit of time -> units per day


class TimeAxis(NamedTuple):
  """The column with the times of the steps of a recording."""

  name: str
  is_date: bool  # whether its values are days since 1970-01-01; otherwise, they are numbers

  def text(self, value: float) -> str:
    """Returns a time as text, such as "2024-05-31 12:00" or "seconds=12.5"."""
    if not self.is_date:
      return f"{self.name}={value:.12g}"
    return str(np.datetime64(round(value * 86_400), "s")).replace("T", " ").removesuffix(":00")  # whole minutes

  def length(self, value: float) -> str:
    """Returns a difference of two times as text, such as "15 min"."""
    if not self.is_date:
      return f"{value:.6g}"
    unit = next((unit for unit, per_day in _UNITS.items() if value * per_day >= 1), "s")
    return f"{value * _UNITS[unit]:.4g} {unit}"


class Recorded(NamedTuple):
  """Description of recordings in a table."""

  channels: tuple[str, ...]  # names of the channels
  time: TimeAxis | None  # None if no column contains times
  remarks: list[str]  # for the user


def of_table(arrays: dict[str, Any], kinds: Mapping[str, str], missing: str, where: str) -> Recorded:
  """Converts the raw rows of a table to recordings [steps, channels], in place.

  Numeric and boolean columns are channels. A column of dates contains the times of the steps. If there is none, it is
  the first column of numbers that increase from step to step, unless `kinds` has its kind. `train_times`, ... [steps]
  become these times. With `missing="mask"`, `train_mask`, ... [steps, channels] become masks of the observed values.

  Args:
    arrays: Arrays of a source of tables, with the key "table" (see `tables`).
    kinds: {column: kind} that the user has set.
    missing: `config.data.missing`.
    where: Prefix of messages.

  Raises:
    UserError: A column cannot be a channel, two columns contain dates, a value is missing, or the rows are not in order
      of time.
  """
  table = arrays.pop("table")
  if missing == "mean":
    raise errors.UserError(
      "config.data.missing='mean': is for rows of a table; for recordings, set config.data.missing=mask, which leaves "
      "missing values out of the loss"
    )
  _check_kinds(table, where)
  steps = {split: (len(arrays[split]),) for split in splits.present(arrays)} | arrays.get("record_steps", {})
  increasing = _increasing(arrays["train"], steps["train"])
  position = _position_of_time(table, increasing, kinds)
  time = None if position is None else TimeAxis(table.names[position], table.kinds[position] == "date")
  chosen = [column for column in range(len(table.names)) if column != position]
  names = tuple(table.names[column] for column in chosen)
  if not names:
    raise errors.UserError(f"{where}: has no column of numbers besides the time {time.name!r}; add one")
  notes = [f"{where}: channels of the recording: {', '.join(names)}"]
  notes += [
    f"{where}: column {name!r} increases at every step, so its values in the test part differ from those in training; "
    f"to leave it out: --config.data.columns=\"'{name}=ignore',\""
    for name, rises in zip(names, increasing[chosen], strict=True)
    if rises
  ]
  for split, lengths in steps.items():
    place = f"{where}: {split}" if len(steps) > 1 else where
    raw = arrays[split]
    if time is not None:
      arrays[f"{split}_times"] = _column(raw, position)
      notes += _on_times(arrays[f"{split}_times"], lengths, time, place)
    arrays[split] = _of_columns(raw, chosen)
    notes += _check_values(arrays, split, names, missing, place)
  return Recorded(names, time, notes)


def values_of(
  record: Any, channels: Sequence[str] | None, missing: str, where: str
) -> tuple[Shaped[np.ndarray, "steps ..."], Bool[np.ndarray, "steps channels"] | None]:
  """Returns a new recording as an array [T] or [T, C], and the mask of its observed values (None: all are observed).

  Args:
    record: An array [T] or [T, C], or a DataFrame or dict of columns.
    channels: Names of the channels of the run; None if they have no names.
    missing: `config.data.missing` of the run.
    where: Prefix of error messages.

  Raises:
    UserError: A channel does not exist, or a value is missing or not a number.
  """
  from ae_jax.data import frames  # pandas takes half a second to import

  if not frames.is_rows(record):
    return in_memory.as_array(record, "record"), None
  if channels is None:
    raise errors.UserError(
      f"{where}: has named columns, but the run was trained on an array, whose channels have no names; pass an array "
      "[steps, channels]"
    )
  frame = frames.as_frame(record)
  if absent := [name for name in channels if name not in frame.columns]:
    raise errors.UserError(
      f"{where}: has no column {absent[0]!r}; the channels of the run are {', '.join(channels)}; add it"
    )
  columns = [(name, frames.kind_of_numbers(frame[name]), ()) for name in channels]
  values = frames.raw_rows(frame, columns, 0, where)
  schema.check(values, channels, missing, where, "config.data.missing=mask in training")
  is_missing = np.isnan(values)
  return np.where(is_missing, 0, values), ~is_missing if is_missing.any() else None


def _check_kinds(table: schema_fit.RawTable, where: str) -> None:
  """Raises UserError if a column is neither a channel nor the times, or if several columns contain dates."""
  words = [name for name, kind in zip(table.names, table.kinds, strict=True) if kind not in (*_KINDS, "date")]
  if words:
    ignored = ",".join(f"'{name}=ignore'" for name in words)
    raise errors.UserError(
      f"{where}: {remarks.counted(len(words), 'column')} of words cannot be channels of a recording: "
      f'{", ".join(words)}; leave them out with --config.data.columns="{ignored},", or name the column of classes in '
      "config.data.label"
    )
  dates = [name for name, kind in zip(table.names, table.kinds, strict=True) if kind == "date"]
  if len(dates) > 1:
    raise errors.UserError(
      f"{where}: the columns {', '.join(dates)} contain dates, but only one can contain the times of the steps; leave "
      f"others out with --config.data.columns=\"'{dates[1]}=ignore',\""
    )


def _increasing(raw: lazy_arrays.MaybeLazy, lengths: Sequence[int]) -> Bool[np.ndarray, " columns"]:
  """Returns which columns increase from each step of a recording to the next."""
  found = np.ones(raw.shape[1], bool)
  firsts = np.cumsum(lengths) - lengths
  last, row = np.empty((0, raw.shape[1])), 0
  for part in lazy_arrays.parts(raw):
    rows = np.concatenate([last, part])
    is_same = ~np.isin(np.arange(row - len(last) + 1, row + len(part)), firsts)
    found &= (np.diff(rows, axis=0)[is_same] > 0).all(0)
    last, row = part[-1:], row + len(part)
  return found & (row > len(lengths))


def _position_of_time(
  table: schema_fit.RawTable, increasing: Bool[np.ndarray, " columns"], kinds: Mapping[str, str]
) -> int | None:
  """Returns the position of the column of times; None if there is none. See `of_table`."""
  if "date" in table.kinds:
    return table.kinds.index("date")
  free = [
    position
    for position, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True))
    if increasing[position] and kind != "boolean" and name not in kinds
  ]
  return free[0] if free else None


def _column(raw: lazy_arrays.MaybeLazy, position: int) -> Float64[np.ndarray, " steps"]:
  return np.concatenate([part[:, position] for part in lazy_arrays.parts(raw)])


def _of_columns(raw: lazy_arrays.MaybeLazy, chosen: Sequence[int]) -> lazy_arrays.MaybeLazy:
  """Returns the chosen columns of raw rows."""
  return lazy_arrays.map_rows(raw, (len(chosen),), np.float64, lambda rows: rows[:, chosen])


def _on_times(times: Float64[np.ndarray, " steps"], lengths: Sequence[int], axis: TimeAxis, where: str) -> list[str]:
  """Returns a note about the times of the steps; raises UserError if a time is missing or before the previous one."""
  changes = [np.diff(part) for part in np.split(times, np.cumsum(lengths)[:-1])]
  if np.isnan(times).any():
    row = int(np.argmax(np.isnan(times)))
    raise errors.UserError(
      f"{where}: the column of times {axis.name!r} has no value in row {row:,} (counted from 0); fill it or remove the "
      "row"
    )
  for number, change in enumerate(changes):
    if (change < 0).any():
      row = int(np.sum(lengths[:number])) + int(np.argmax(change < 0)) + 1
      raise errors.UserError(
        f"{where}: row {row:,} (counted from 0) has an earlier time in column {axis.name!r} than the row before; sort "
        f"the rows by time, or leave the column out with --config.data.columns=\"'{axis.name}=ignore',\""
      )
  every, usual = np.concatenate(changes), float(np.median(np.concatenate(changes)))
  note = f"{where}: times: column {axis.name!r}, from {axis.text(times.min())} to {axis.text(times.max())}"
  note += f", a step every {axis.length(usual)}"
  gaps = int((every > 1.5 * usual).sum())
  if gaps:
    note += f"; {remarks.counted(gaps, 'longer step')}, at most {axis.length(float(every.max()))}: windows span them"
  return [note]


def _check_values(arrays: dict[str, Any], split: str, names: Sequence[str], missing: str, where: str) -> list[str]:
  """Adds the mask of the observed values, in place, and returns a note about missing values. See `of_table`.

  Raises:
    UserError: A value is infinite, or a value is missing and `missing` is "error".
  """
  values = arrays[split]
  invalid = np.concatenate(
    [np.where(np.isfinite(part), 0, part).astype(np.float16) for part in lazy_arrays.parts(values)]
  )
  schema.check(invalid, names, missing, where, "config.data.missing=mask")
  if missing != "mask":
    return []
  observed = arrays[f"{split}_mask"] = ~np.isnan(invalid)
  count = int((~observed).sum())
  return [f"{where}: {remarks.counted(count, 'missing value')} left out of the loss"] if count else []

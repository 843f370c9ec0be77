"""Recordings in tables: rows of CSV or Parquet files or of DataFrames are time steps, and columns are channels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from ae_jax import errors
from ae_jax.data import in_memory, lazy_arrays, remarks, schema, schema_fit, splits, table_statistics

_KINDS = ("numeric", "integer", "boolean")  # kinds of columns that can be channels
_UNITS = {"days": 1.0, "h": 24.0, "min": 1440.0, "s": 86_400.0, "ms": 86_400_000.0}  # unit of time -> units per day
# Names of columns of numbers that can be times, such as "time", "timestamp", "Time (s)", "t", "unix_ms" and "seconds".
_TIME = re.compile(
  r"time|date|stamp|epoch|unix|(^|[^a-z])(t|ts|s|ms|sec|seconds?|minutes?|hours?|days?)($|[^a-z])", re.I
)


class TimeAxis(NamedTuple):
  """The column with the times of the steps of a recording."""

  name: str
  is_date: bool  # whether its values are days since 1970-01-01; otherwise, they are numbers

  def text(self, value: float) -> str:
    """Returns a time as text, such as "2024-05-31 12:00" or "seconds=12.5"."""
    if not self.is_date:
      return f"{self.name}={value:.12g}"
    text = str(np.datetime64(round(value * 86_400_000), "ms")).replace("T", " ").removesuffix(".000")
    return text.removesuffix(":00")  # whole minutes

  def length(self, value: float) -> str:
    """Returns a difference of two times as text, such as "15 min"."""
    if not self.is_date:
      return f"{value:.6g}"
    unit = next((unit for unit, per_day in _UNITS.items() if value * per_day >= 0.9999), "ms")
    return f"{value * _UNITS[unit]:.3g} {unit}"


class RecordColumns(NamedTuple):
  """The columns of a table that are read as recordings."""

  channels: tuple[str, ...]  # names of the channels
  kinds: tuple[str, ...]  # kind of each channel, one of `_KINDS`
  time: TimeAxis | None  # None if no column contains times

  def as_json(self) -> dict[str, Any]:
    """Returns a dict that config.json can store; `from_json` inverts it."""
    return {**self._asdict(), "time": self.time and self.time._asdict()}


def from_json(stored: Mapping[str, Any] | None) -> RecordColumns | None:
  """Inverts `RecordColumns.as_json`; None stays None."""
  if stored is None:
    return None
  time = TimeAxis(**stored["time"]) if stored["time"] else None
  return RecordColumns(tuple(stored["channels"]), tuple(stored["kinds"]), time)


def of_table(
  arrays: dict[str, Any], kinds: Mapping[str, str], missing: str, where: str
) -> tuple[RecordColumns, list[str]]:
  """Converts the raw rows of a table to recordings [steps, channels], in place.

  Numeric and boolean columns are channels. A column of dates contains the times of the steps. If there is none, it is
  the first column of numbers that increase from step to step and has a name such as "time", unless `kinds` has its
  kind. `train_times`, ... [steps] become these times. With `missing="mask"`, `train_mask`, ... [steps, channels] become
  masks of the observed values.

  Args:
    arrays: Arrays of a source of tables, with the key "table" (see `tables`).
    kinds: {column: kind} that the user has set.
    missing: `config.data.missing`.
    where: Prefix of messages.

  Returns:
    The columns, and notes for the user.

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
  names, of_channels = (tuple(each[column] for column in chosen) for each in (table.names, table.kinds))
  columns = RecordColumns(names, of_channels, time)
  if not chosen:
    raise errors.UserError(f"{where}: has no column of numbers besides the times; add one")
  notes = [f"{where}: channels of the recording: {', '.join(columns.channels)}"]
  notes += [
    f"{where}: column {name!r} increases at every step, so its values in the test part differ from those in training; "
    f"to leave it out: --config.data.columns=\"'{name}=ignore',\""
    for name, rises in zip(columns.channels, increasing[chosen], strict=True)
    if rises
  ]
  for split, lengths in steps.items():
    place = f"{where}: {split}" if len(steps) > 1 else where
    raw = arrays[split]
    if time is not None:
      arrays[f"{split}_times"] = np.concatenate([part[:, position] for part in lazy_arrays.parts(raw)])
      notes += _on_times(arrays[f"{split}_times"], lengths, time, place)
    arrays[split] = lazy_arrays.map_rows(raw, (len(chosen),), np.float64, lambda rows: rows[:, chosen])
    notes += _check_values(arrays, split, columns, missing, place)
  return columns, notes


def values_of(
  record: Any, columns: RecordColumns | None, missing: str, where: str
) -> tuple[Shaped[np.ndarray, "steps ..."], list[str]]:
  """Returns a new recording as an array [T] or [T, C], in which missing values are NaN, and notes for the user.

  Args:
    record: An array [T] or [T, C], or a DataFrame or dict of columns.
    columns: Columns of the run; None if it was not trained on a table.
    missing: `config.data.missing` of the run.
    where: Prefix of messages.

  Raises:
    UserError: A channel does not exist, a value is missing or not of the kind of its channel, or the rows are not in
      order of time.
  """
  if isinstance(record, np.ndarray):
    return in_memory.as_array(record, "record"), []
  from ae_jax.data import frames  # pandas takes half a second to import

  if not frames.is_rows(record):
    return in_memory.as_array(record, "record"), []
  if columns is None:
    raise errors.UserError(
      f"{where}: has named columns, but the run was trained on an array, whose channels have no names; pass an array "
      "[steps, channels]"
    )
  frame = frames.as_frame(frames.with_dates(record))
  if absent := [name for name in columns.channels if name not in frame.columns]:
    raise errors.UserError(
      f"{where}: has no column {absent[0]!r}; the channels of the run are {', '.join(columns.channels)}; add it"
    )
  described = [(name, kind, ()) for name, kind in zip(columns.channels, columns.kinds, strict=True)]
  values, notes, time = frames.raw_rows(frame, described, 0, where, is_new=True), [], columns.time
  if time is not None and time.name in frame.columns:
    of_times = [(time.name, "date" if time.is_date else "numeric", ())]
    times = frames.raw_rows(frame, of_times, 0, where, is_new=True)
    notes += _on_times(times[:, 0], (len(times),), time, where)
  schema.check(values, columns.channels, missing, where, "config.data.missing=mask in training")
  return values, notes + _on_missing(np.isnan(values), where)


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
    found &= (rows[1:] > rows[:-1])[is_same].all(0)
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
    for position, name in enumerate(table.names)
    if increasing[position] and name not in kinds and _TIME.search(name)
  ]
  return free[0] if free else None


def _on_times(times: Float64[np.ndarray, " steps"], lengths: Sequence[int], axis: TimeAxis, where: str) -> list[str]:
  """Returns a note about the times of the steps; raises UserError if a time is missing or before the previous one."""
  if np.isnan(times).any():
    row = int(np.argmax(np.isnan(times)))
    raise errors.UserError(
      f"{where}: the column of times {axis.name!r} has no value in row {row:,} (counted from 0); fill it or remove the "
      "row"
    )
  changes = [np.diff(part) for part in np.split(times, np.cumsum(lengths)[:-1])]
  for number, change in enumerate(changes):
    if (change < 0).any():
      row = int(np.sum(lengths[:number])) + int(np.argmax(change < 0)) + 1
      raise errors.UserError(
        f"{where}: row {row:,} (counted from 0) has an earlier time in column {axis.name!r} than the row before; sort "
        "the rows by time (after a change of clocks, write the offset from UTC, as in 2024-10-27T02:30+02:00), or "
        f"leave the column out with --config.data.columns=\"'{axis.name}=ignore',\""
      )
  note = f"{where}: times: column {axis.name!r}, from {axis.text(times.min())} to {axis.text(times.max())}"
  every = np.concatenate(changes)
  rising = every[every > 0]
  if not len(rising):
    return [f"{note}; all times of a recording are equal"]
  usual, longest = float(np.median(rising)), float(rising.max())
  note += f", a step every {axis.length(usual)}"
  gaps, equal = int((rising > 1.5 * usual).sum()), len(every) - len(rising)
  note += f"; {remarks.counted(gaps, 'longer step')}, at most {axis.length(longest)}: windows span them" if gaps else ""
  return [note + (f"; {remarks.counted(equal, 'step')} with the time of the step before" if equal else "")]


def _check_values(arrays: dict[str, Any], split: str, columns: RecordColumns, missing: str, where: str) -> list[str]:
  """Adds the mask of the observed values, in place, and returns notes about the values. See `of_table`.

  Raises:
    UserError: A value is infinite, or a value is missing and `missing` is "error".
  """
  invalid = table_statistics.invalid_values(arrays[split])
  schema.check(invalid, columns.channels, missing, where, "config.data.missing=mask")
  if missing != "mask":
    return []
  is_missing = np.isnan(invalid)
  arrays[f"{split}_mask"] = ~is_missing
  return _on_missing(is_missing, where)


def _on_missing(is_missing: Bool[np.ndarray, "steps channels"], where: str) -> list[str]:
  """Returns a note about missing values, and about steps in which all are missing; [] if there are none."""
  if not is_missing.any():
    return []
  note = f"{where}: {remarks.counted(int(is_missing.sum()), 'missing value')} left out of the loss and the scores"
  empty = np.flatnonzero(is_missing.all(1))
  if len(empty):
    note += (
      f"; {remarks.counted(len(empty), 'step')} without any value, the first in row {empty[0]:,} (counted from 0), "
      "which add nothing to the scores of their windows"
    )
  return [note]

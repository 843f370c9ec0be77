"""Recordings in tables: rows of CSV or Parquet files or of DataFrames are time steps, and columns are channels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from ae_jax import errors
from ae_jax.data import in_memory, lazy_arrays, record_times, remarks, schema, schema_fit, splits, table_statistics

_KINDS = ("numeric", "integer", "boolean")  # kinds of columns that can be channels
# Names of columns of numbers that can be times, such as "time", "timestamp", "Time (s)", "t", "unix_ms" and "seconds".
_TIME = re.compile(
  r"time|date|stamp|epoch|unix|(^|[^a-z])(t|ts|s|ms|sec|seconds?|minutes?|hours?|days?)($|[^a-z])", re.I
)


class RecordColumns(NamedTuple):
  """The columns of a table that are read as recordings."""

  channels: tuple[str, ...]  # names of the channels
  kinds: tuple[str, ...]  # kind of each channel, one of `_KINDS`
  time: record_times.TimeAxis | None  # None if no column contains times

  def as_json(self) -> dict[str, Any]:
    """Returns a dict that config.json can store; `from_json` inverts it."""
    return {**self._asdict(), "time": self.time and self.time._asdict()}


def from_json(stored: Mapping[str, Any] | None) -> RecordColumns | None:
  """Inverts `RecordColumns.as_json`; None stays None."""
  if stored is None:
    return None
  time = record_times.TimeAxis(**stored["time"]) if stored["time"] else None
  return RecordColumns(tuple(stored["channels"]), tuple(stored["kinds"]), time)


def of_table(
  arrays: dict[str, Any], kinds: Mapping[str, str], missing: str, max_gap: float, where: str
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
    max_gap: `config.data.max_gap`.
    where: Prefix of messages.

  Returns:
    The columns, and notes for the user.

  Raises:
    UserError: A column cannot be a channel, two columns contain dates, a value is missing, the rows are not in order of
      time, or `max_gap` is set without a column of times.
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
  time = _read_times(arrays, steps, table, position, max_gap, where)
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
      notes += record_times.notes_on(arrays[f"{split}_times"], lengths, time, place)
    arrays[split] = lazy_arrays.map_rows(raw, (len(chosen),), np.float64, lambda rows: rows[:, chosen])
    notes += _check_values(arrays, split, columns, missing, place)
  return columns, notes


class NewRecord(NamedTuple):
  """A new recording for a trained run."""

  values: Shaped[np.ndarray, "steps ..."]  # [T] or [T, C]; missing values are NaN
  pieces: tuple[int, ...]  # lengths of the pieces that no window spans; see `record_times.pieces`
  notes: list[str]  # for the user


def read_new(record: Any, columns: RecordColumns | None, missing: str, where: str) -> NewRecord:
  """Converts a new recording to an array.

  Args:
    record: An array [T] or [T, C], or a DataFrame or dict of columns.
    columns: Columns of the run; None if it was not trained on a table.
    missing: `config.data.missing` of the run.
    where: Prefix of messages.

  Raises:
    UserError: A channel does not exist, a value is missing or not of the kind of its channel, or the rows are not in
      order of time.
  """
  if not _is_table(record):
    values = in_memory.as_array(record, "record")
    return NewRecord(values, values.shape[:1], [])
  from ae_jax.data import frames

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
  times, lengths = None, (len(values),)
  if time is not None and time.name in frame.columns:
    of_times = [(time.name, "date" if time.is_date else "numeric", ())]
    times = frames.raw_rows(frame, of_times, 0, where, is_new=True)[:, 0]
    notes += record_times.notes_on(times, lengths, time, where, is_new=True)
  elif time is not None and time.longest:
    notes.append(f"{where}: has no column of times {time.name!r}, so windows can span longer steps; add it")
  schema.check(values, columns.channels, missing, where, "config.data.missing=mask in training")
  notes += _on_missing(np.isnan(values), where)
  (pieces,) = record_times.pieces(times, lengths, 0.0 if time is None else time.longest)
  return NewRecord(values, pieces, notes)


def _is_table(record: Any) -> bool:
  """Returns whether a recording has named columns."""
  if isinstance(record, np.ndarray):
    return False
  from ae_jax.data import frames  # pandas takes half a second to import

  return frames.is_rows(record)


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


def _read_times(
  arrays: dict[str, Any],
  steps: Mapping[str, Sequence[int]],
  table: schema_fit.RawTable,
  position: int | None,
  max_gap: float,
  where: str,
) -> record_times.TimeAxis | None:
  """Adds the times of the steps of each split, in place, and returns their column; None without a `position` of it."""
  if position is None and max_gap:
    raise errors.UserError(
      f"config.data.max_gap={max_gap:g}: {where} has no column of times; set config.data.max_gap=0, or name the column "
      "as a date with --config.data.columns=\"'NAME=date',\""
    )
  if position is None:
    return None
  for split in steps:
    parts = lazy_arrays.parts(arrays[split])
    arrays[f"{split}_times"] = np.concatenate([part[:, position] for part in parts])
  usual = record_times.usual_step(arrays["train_times"], steps["train"])
  name, is_date = table.names[position], table.kinds[position] == "date"
  return record_times.TimeAxis(name, is_date, max_gap * usual, name in table.zoned)


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

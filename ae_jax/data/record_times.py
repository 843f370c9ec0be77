"""Times of the steps of recordings in tables: the usual step, longer steps, and the pieces between these."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ae_jax import errors
from ae_jax.data import remarks

_UNITS = {"days": 1.0, "h": 24.0, "min": 1440.0, "s": 86_400.0, "ms": 86_400_000.0}  # unit of time -> units per day
_MANY = 1.5  # a step is longer than usual if it exceeds the usual step by this factor
_NEAR, _MOST = 0.1, 0.9  # a step is regular if it differs by at most a tenth; least share of regular steps
_ROUNDING = 1e-3  # dates in days have a rounding error of a microsecond
_SPANNED = "windows span them"
_FIX = "; to begin a new recording after each: --config.data.max_gap=1.5"
_CUT = "longer than {} (config.data.max_gap), so windows do not span them"
Times = Float64[np.ndarray, " steps"]


class TimeAxis(NamedTuple):
  """The column with the times of the steps of a recording."""

  name: str
  is_date: bool  # whether its values are days since 1970-01-01; otherwise, they are numbers
  # Longest step inside a window (config.data.max_gap) in the unit of the times; 0: any. Earlier runs do not store it.
  longest: float = 0.0
  is_utc: bool = False  # whether the dates had time zones, so they were converted to UTC

  @property
  def label(self) -> str:
    """The name, with "UTC" if the times are in UTC."""
    return f"{self.name} (UTC)" if self.is_utc else self.name

  def text(self, value: float) -> str:
    """Returns a time as text, such as "2024-05-31 12:00" or "seconds=12.5"."""
    if not self.is_date:
      return f"{self.name}={value:.12g}"
    text = str(np.datetime64(round(value * 86_400_000), "ms")).replace("T", " ").removesuffix(".000")
    return text.removesuffix(":00") + (" UTC" if self.is_utc else "")  # whole minutes have no seconds

  def length(self, value: float) -> str:
    """Returns a difference of two times as text, such as "15 min"."""
    if not self.is_date:
      return f"{value:.6g}"
    unit = next((unit for unit, per_day in _UNITS.items() if value * per_day >= 0.9999), "ms")
    return f"{value * _UNITS[unit]:.3g} {unit}"


def notes_on(times: Times, lengths: Sequence[int], axis: TimeAxis, where: str, *, is_new: bool = False) -> list[str]:
  """Returns a note about the times of the steps; raises UserError if a time is missing or before the previous one.

  Args:
    times: Times of the steps of all recordings, concatenated.
    lengths: Length of each recording.
    axis: The column of times.
    where: Prefix of messages.
    is_new: Whether the recordings are new data for a trained run, whose config cannot be changed.
  """
  if np.isnan(times).any():
    row = int(np.argmax(np.isnan(times)))
    raise errors.UserError(
      f"{where}: the column of times {axis.name!r} has no value in row {row:,} (counted from 0); fill it or remove the "
      "row"
    )
  changes = _changes(times, lengths)
  for number, change in enumerate(changes):
    if (change < 0).any():
      row = int(np.sum(lengths[:number])) + int(np.argmax(change < 0)) + 1
      raise errors.UserError(
        f"{where}: row {row:,} (counted from 0) has an earlier time in column {axis.name!r} than the row before; sort "
        "the rows by time (after a change of clocks, write the offset from UTC, as in 2024-10-27T02:30+02:00), or "
        f"leave the column out with --config.data.columns=\"'{axis.name}=ignore',\""
      )
  note = f"{where}: times: column {axis.name!r}, from {axis.text(times.min())} to {axis.text(times.max())}"
  every, usual = np.concatenate(changes), usual_step(times, lengths)
  if not usual:
    return [f"{note}; all times of a recording are equal"]
  note += f", a step every {axis.length(usual)}"
  is_long, equal = every > (axis.longest * (1 + _ROUNDING) or _MANY * usual), int((every == 0).sum())
  if is_long.any():
    count, most = int(is_long.sum()), axis.length(float(every.max()))
    note += f"; {remarks.counted(count, 'longer step')}, at most {most}: "
    note += _CUT.format(axis.length(axis.longest)) if axis.longest else _SPANNED + ("" if is_new else _FIX)
  return [note + (f"; {remarks.counted(equal, 'step')} with the time of the step before" if equal else "")]


def usual_step(times: Times, lengths: Sequence[int]) -> float:
  """Returns the median of the differences of consecutive times that are not equal; 0 if all are equal."""
  every = np.concatenate(_changes(times, lengths))
  rising = every[every > 0]
  return float(np.median(rising)) if len(rising) else 0.0


def are_regular(times: Float64[np.ndarray, "windows window"]) -> bool:
  """Returns whether most steps of windows have nearly the same length in time."""
  steps = np.diff(times)
  usual = float(np.median(steps))
  return usual > 0 and bool((np.abs(steps - usual) <= _NEAR * usual).mean() >= _MOST)


def pieces(times: Times | None, lengths: Sequence[int], longest: float) -> list[tuple[int, ...]]:
  """Returns the lengths of the pieces of each recording; no step inside a piece is longer than `longest`.

  Args:
    times: Times of the steps of all recordings, concatenated; None: unknown, so each recording is one piece.
    lengths: Length of each recording.
    longest: `TimeAxis.longest`; 0: each recording is one piece.
  """
  if times is None or not longest:
    return [(length,) for length in lengths]
  ends = [np.flatnonzero(change > longest * (1 + _ROUNDING)) + 1 for change in _changes(times, lengths)]
  return [tuple(np.diff([0, *of_one, length]).tolist()) for of_one, length in zip(ends, lengths, strict=True)]


def _changes(times: Times, lengths: Sequence[int]) -> list[Float64[np.ndarray, " _"]]:
  """Returns the differences of consecutive times of each recording."""
  return [np.diff(part) for part in np.split(times, np.cumsum(lengths)[:-1])]

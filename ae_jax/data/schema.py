"""The schema of a table: its columns, and how a row is encoded as an example and decoded.

A *raw row* has one float64 per column: a number, 0 or 1 for a boolean, days since 1970-01-01 for a date, and for a
category its position in `Column.words`. NaN is a missing value. An example has one element for each number, boolean and
date. A categorical column is one-hot encoded: one element for each category in `Column.words`, and one for all other
strings. With config.data.missing="mean", an indicator for each column with missing values in the training set follows
at the end.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from ae_jax import errors
from ae_jax.data import remarks

DOMINANT = 0.95  # a column with a larger fraction of the variance dominates the loss

KINDS = ("numeric", "integer", "categorical", "boolean", "date", "ignore")  # kinds of columns in config.data.columns
MISSING = ("error", "mean", "mask")  # values of config.data.missing
OTHER = "(other)"  # output for a category that is not in `Column.words`


class Group(NamedTuple):
  """The elements [start, stop) of an example that encode one categorical or boolean column."""

  kind: str  # "category" or "boolean"
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table, fitted to the training rows."""

  name: str
  kind: str  # one of KINDS, but not "ignore"
  fill: float = 0.0  # raw value that replaces missing values: the mean, or the most frequent category or boolean
  # Error of the constant prediction `fill`: the standard deviation, or the fraction of rows with another category.
  spread: float = 0.0
  first: float = 0.0  # the first training date, in days since 1970-01-01; examples contain the days since this date
  words: tuple[str, ...] = ()  # the categories of a categorical column
  indicator: bool = False  # whether the example has an element that is 1 if the value of this column is missing
  whole_days: bool = False  # whether no training date has a time of day; decoded dates then have none either
  truths: tuple[Any, Any] = (False, True)  # how the training rows spell false and true, such as ("no", "yes")
  # smallest and largest training value of a number or date; None if there is none, and in runs of earlier versions
  limits: tuple[float, float] | None = None

  @property
  def width(self) -> int:
    """Number of elements of an example that encode the column, without the indicator."""
    return len(self.words) + 1 if self.kind == "categorical" else 1

  @property
  def is_whole(self) -> bool:
    """True for columns of whole numbers or whole days; decoded values are rounded."""
    return self.kind == "integer" or self.whole_days

  @property
  def is_discrete(self) -> bool:
    """True for categories and booleans; their error is the fraction of wrong values."""
    return self.kind in ("categorical", "boolean")

  def is_unknown(self, raw: Float[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Returns the mask of the raw values that are words outside `words`."""
    return (raw == len(self.words)) & (self.kind == "categorical")


@dataclasses.dataclass(frozen=True)
class Schema:
  """The columns of a table. The schema is stored in config.json ("data", "schema") and applied to new rows."""

  columns: tuple[Column, ...]
  missing: str = "error"  # config.data.missing
  unused: tuple[str, ...] = ()  # columns of the files that are not inputs, such as the labels
  named: bool = True  # False for an array, whose columns have only numbers

  @property
  def dates(self) -> frozenset[str]:
    """Names of the date columns."""
    return frozenset(column.name for column in self.columns if column.kind == "date")

  @functools.cached_property
  def starts(self) -> tuple[int, ...]:
    """Position of the first element of each column."""
    return tuple(int(start) for start in np.cumsum([0, *(column.width for column in self.columns)])[:-1])

  @property
  def indicated(self) -> list[int]:
    """Indices of the columns that have a missing-value indicator."""
    return [position for position, column in enumerate(self.columns) if column.indicator]

  @property
  def elements(self) -> int:
    """Number of elements of an example."""
    return sum(column.width for column in self.columns) + len(self.indicated)

  @property
  def element_names(self) -> tuple[str, ...]:
    """Name of each element of an example: the column, for categories "COLUMN=WORD", for indicators "COLUMN missing"."""
    names = []
    for column in self.columns:
      words = (*column.words, OTHER) if column.kind == "categorical" else ()
      names += [f"{column.name}={word}" for word in words] or [column.name]
    return (*names, *(f"{self.columns[position].name} missing" for position in self.indicated))

  @property
  def has_categories(self) -> bool:
    """True if a column is categorical."""
    return any(column.kind == "categorical" for column in self.columns)

  @property
  def groups(self) -> tuple[Group, ...]:
    """The groups of elements of all categorical and boolean columns, in order, then one boolean per indicator."""
    pairs = zip(self.columns, self.starts, strict=True)
    groups = [
      Group("category" if column.kind == "categorical" else "boolean", start, start + column.width)
      for column, start in pairs
      if column.is_discrete
    ]
    first = self.elements - len(self.indicated)
    return (*groups, *(Group("boolean", start, start + 1) for start in range(first, self.elements)))

  @property
  def scaled(self) -> Bool[np.ndarray, " elements"]:
    """Mask of the elements that config.data.scale changes: numbers and dates."""
    mask = np.ones(self.elements, bool)
    for _, start, stop in self.groups:
      mask[start:stop] = False
    return mask

  @functools.cached_property
  def _runs(self) -> list[tuple[slice, slice]]:
    """Runs of adjacent columns with one element each, as (slice of columns, slice of elements), to convert at once."""
    runs: list[tuple[slice, slice]] = []
    for position, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
      if column.kind == "categorical":
        continue
      first = position, start
      if runs and runs[-1][0].stop == position:
        first = runs[-1][0].start, runs.pop()[1].start
      runs.append((slice(first[0], position + 1), slice(first[1], start + 1)))
    return runs

  def encode(
    self, raw: Float[np.ndarray, "rows columns"], x: Float32[np.ndarray, "rows elements"] | None = None
  ) -> Float32[np.ndarray, "rows elements"]:
    """Encodes raw rows as examples and fills missing values.

    Args:
      raw: Raw rows.
      x: Array of zeros to which the result is written; if None, a new array is allocated.

    Raises:
      UserError: A value is infinite, or values are missing and `missing` is "error".
    """
    x = np.zeros((len(raw), self.elements), np.float32) if x is None else x
    if not np.isfinite(raw).all():
      check(raw, [column.name for column in self.columns], self.missing, "the table")
      gaps = np.isnan(raw)
      x[:, self.elements - len(self.indicated) :] = gaps[:, self.indicated]
      raw = np.where(gaps, np.array([column.fill for column in self.columns]), raw)
    firsts = np.array([column.first for column in self.columns])
    with np.errstate(over="ignore"):  # the check of the data range reports infinite values
      for positions, elements in self._runs:
        np.subtract(raw[:, positions], firsts[positions], out=x[:, elements], casting="same_kind")
    for position, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
      if column.kind == "categorical":
        x[np.arange(len(raw)), start + raw[:, position].astype(np.intp)] = 1.0
    return x

  def decode(self, x: Float[np.ndarray, "rows elements"]) -> Float64[np.ndarray, "rows columns"]:
    """Decodes examples to raw rows: the most probable category or boolean, and rounded integers and whole days."""
    raw = np.empty((len(x), len(self.columns)))
    for position, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
      part = x[:, start : start + column.width].astype(np.float64)
      if column.kind == "categorical":
        raw[:, position] = part.argmax(1)
      elif column.kind == "boolean":
        raw[:, position] = part[:, 0] >= 0.5
      else:
        decoded = part[:, 0] + column.first
        raw[:, position] = np.rint(decoded) if column.is_whole else decoded
    return raw

  def observed(self, raw: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows elements"]:
    """Returns the mask of the elements whose value is not missing in `raw`; indicators are never missing."""
    known = np.repeat(~np.isnan(raw), [column.width for column in self.columns], axis=1)
    return np.concatenate([known, np.ones((len(raw), len(self.indicated)), bool)], axis=1)

  def known_columns(
    self, x: Float[np.ndarray, "rows elements"], mask: Bool[np.ndarray, "rows elements"] | None = None
  ) -> Bool[np.ndarray, "rows columns"]:
    """Returns which values were observed, i.e. neither the missing-value indicators nor `mask` mark them as missing."""
    known = np.ones((len(x), len(self.columns)), bool) if mask is None else mask[:, list(self.starts)].astype(bool)
    for place, position in enumerate(self.indicated):
      known[:, position] &= x[:, self.elements - len(self.indicated) + place] < 0.5
    return known

  def by_column(self, values: Float64[np.ndarray, "rows elements"]) -> Float64[np.ndarray, "rows columns"]:
    """Sums values over the elements of each column, including the indicator of the column."""
    sums = np.add.reduceat(values[:, : self.elements - len(self.indicated)], self.starts, axis=1)
    sums[:, self.indicated] += values[:, self.elements - len(self.indicated) :]
    return sums

  def column_errors(
    self,
    decoded: Float[np.ndarray, "rows columns"],
    raw: Float[np.ndarray, "rows columns"],
    known: Bool[np.ndarray, "rows columns"],
  ) -> dict[str, float]:
    """Returns {column: error of the decoded values}, over the observed values only.

    The error is the root-mean-square error in the unit of the column (days for dates), or the fraction of wrong
    categories or booleans.
    Columns without observed values are left out.

    Args:
      decoded: Reconstructions as raw rows.
      raw: The original raw rows.
      known: Mask of the observed values.
    """
    results = {}
    for position, column in enumerate(self.columns):
      rows = known[:, position]
      if rows.any():
        found, true = decoded[rows, position], raw[rows, position]
        error = np.mean(found != true) if column.is_discrete else np.sqrt(np.mean(np.square(found - true)))
        results[column.name] = float(error)
    return results

  @property
  def dominant(self) -> str | None:
    """Name of the numeric or date column with more than 95 % of the total variance; None if there is none."""
    variances = {column.name: column.spread**2 for column in self.columns if not column.is_discrete}
    largest = max(variances, key=variances.__getitem__, default=None)
    return largest if len(variances) > 1 and variances[largest] > DOMINANT * sum(variances.values()) else None

  def in_words(self) -> str:
    """Returns a string with the number of columns of each kind, of their categories, and of elements."""
    kinds = [column.kind for column in self.columns]
    counts = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
    words = [f"{column.name}: {len(column.words)} words" for column in self.columns if column.words]
    listed = f" ({'; '.join(words[:5])}{'; ...' if len(words) > 5 else ''})" if words else ""
    inputs = f"{remarks.counted(self.elements, 'input')} of the model"
    return f"{remarks.counted(len(kinds), 'column')}: {', '.join(counts)}{listed}; {inputs}"

  def as_json(self) -> dict[str, Any]:
    """Returns the schema as nested dicts and lists, for config.json."""
    return dataclasses.asdict(self) | {"columns": [dataclasses.asdict(column) for column in self.columns]}


def from_json(stored: Mapping[str, Any] | None) -> Schema | None:
  """Returns the schema that `Schema.as_json` stored, or None if `stored` is None."""
  if stored is None:
    return None
  as_tuple = lambda value: tuple(value) if isinstance(value, list) else value
  columns = [Column(**{key: as_tuple(value) for key, value in column.items()}) for column in stored["columns"]]
  return Schema(**{**stored, "columns": tuple(columns), "unused": tuple(stored["unused"])})


def check(
  raw: Float[np.ndarray, "rows columns"],
  names: Sequence[str],
  missing: str,
  where: str,
  options: str = "config.data.missing=mean or config.data.missing=mask",
) -> None:
  """Raises UserError if a raw value is infinite, or if values are missing and `missing` is "error".

  The message contains the number of invalid values in each column, and the position of the first one. Rows are counted
  from 0. `options` are config keys that accept missing values.
  """
  if np.isfinite(raw).all():
    return
  _refuse(np.isinf(raw), names, "are infinite", "replace or remove them", where)
  if missing == "error":
    fix = f"fill them, or set {options}"
    _refuse(np.isnan(raw), names, "are missing (empty or NaN)", fix, where)


def _refuse(invalid: Bool[np.ndarray, "rows columns"], names: Sequence[str], what: str, fix: str, where: str) -> None:
  """Raises UserError if there are invalid values; the message names their columns and the first position."""
  counts = invalid.sum(0)
  if not counts.any():
    return
  order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
  listed = ", ".join(f"{names[column]} ({counts[column]:,})" for column in order[:8])
  more = f" and {len(order) - 8} more" if len(order) > 8 else ""
  row, column = (int(index) for index in np.argwhere(invalid)[0])
  raise errors.UserError(
    f"{where}: {counts.sum():,} values {what}, in {remarks.counted(len(order), 'column')}: {listed}{more}; the first "
    f"is in row {row:,} (counted from 0) of column {names[column]!r}; {fix}"
  )

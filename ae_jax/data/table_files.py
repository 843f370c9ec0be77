"""Reads CSV and Parquet files as pandas DataFrames, and determines the kinds of their columns.

Messages count rows from 0.
"""

import dataclasses
import gzip
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from ae_jax import errors
from ae_jax.data import dates, frames, remarks, schema, several_files, truth_words

STREAMED_ROWS = 1 << 17  # number of rows that are read at a time from a file that exceeds the memory budget
_PEEKED_ROWS = 100  # number of rows that are read first, to find the columns that contain strings
_FIRST_ROWS = 1 << 10  # number of rows that are tested first; a test that fails on them need not be applied to all rows
_MOSTLY = 0.8  # if at least this fraction of the strings are numbers, the column is numeric with wrong entries
_LEAST_IDS = 20  # a column of strings that are all different, with more values than this, is an id
_MOST_NAMED, _FIRST_WORDS = 8, 2  # maximum number of columns that mix kinds in a message, and of words of each
_MOST_DISTINCT = 100_000  # a column with more distinct strings is an id


def read_csv(path: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Iterator[pd.DataFrame]:
  """Yields the rows of a CSV file: all at once or, if `streamed`, at most STREAMED_ROWS at a time.

  The separator is a comma, a semicolon or a tab, whichever is most frequent in the first line. With semicolons, decimal
  numbers can have commas, as in 3,14.
  """
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", errors="replace") as file:
      first = file.readline()
    separator = max(",;\t", key=first.count)
    form = {"sep": separator, "decimal": "."}
    peeked = pd.read_csv(path, nrows=_PEEKED_ROWS, **form)
    if separator == ";" and any(_have_decimal_commas(peeked[name]) for name in peeked):
      form["decimal"] = ","
      peeked = pd.read_csv(path, nrows=_PEEKED_ROWS, **form)
  _check_header(list(peeked.columns), where)
  texts = {
    name
    for name, values in peeked.items()
    if kinds.get(name) == "categorical" or pd.api.types.infer_dtype(values, skipna=True) == "string"
  }
  # pandas reads strings as categories in half the time, and later passes process each distinct string only once
  options: dict[str, Any] = form
  if texts:  # even with an empty `dtype`, pandas stores each column separately, and `tables` then copies the values
    options["dtype"] = dict.fromkeys(texts, "category")
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    if not streamed:
      yield _read_all(path, options)
      return
    with pd.read_csv(path, chunksize=STREAMED_ROWS, low_memory=False, **options) as chunks:
      yield from chunks


def _have_decimal_commas(values: pd.Series) -> bool:
  """Returns whether the values are strings, and most of them decimal numbers with a comma."""
  texts = values.dropna()
  is_text = pd.api.types.infer_dtype(texts) == "string"
  return bool(is_text and texts.str.fullmatch(r"[-+]?\d+,\d+").mean() >= _MOSTLY)


def _read_all(path: str, options: Mapping[str, Any]) -> pd.DataFrame:
  """Returns all rows of a CSV file.

  pandas reads in parts, which takes half the time. If the type of a column differs between parts, such as numbers and
  words, the file is read again as a whole, because the column would have values of both types.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("error", pd.errors.DtypeWarning)
    try:
      return pd.read_csv(path, **options)
    except pd.errors.DtypeWarning:
      return pd.read_csv(path, low_memory=False, **options)


def read_parquet(path: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Iterator[pd.DataFrame]:
  """Yields the rows of a Parquet file: all at once or, if `streamed`, at most STREAMED_ROWS at a time.

  Raises:
    UserError: pyarrow is not installed, or the file is damaged.
  """
  del kinds  # the columns of a Parquet file have types
  try:
    from pyarrow import parquet
  except ImportError:
    raise errors.UserError(f"{where}: Parquet files need pyarrow; run `pip install 'ae_jax[tables]'`") from None
  with errors.convert_errors(f"{where}: not a readable Parquet file"), parquet.ParquetFile(path) as file:
    if not streamed:
      yield file.read().to_pandas()
      return
    for batch in file.iter_batches(STREAMED_ROWS):
      yield batch.to_pandas()


def _check_header(names: Sequence[str], where: str) -> None:
  """Raises UserError if all column names of a CSV file are numbers or dates, i.e. if the header row is missing."""
  if len(names) and (frames.are_numbers(names) | dates.are_dates(names)).all():
    raise errors.UserError(f"{where}: the first row holds values, not the names of the columns; add a header row")


class Kind(NamedTuple):
  """The kind of a column according to its values."""

  name: str  # one of `schema.KINDS`; for a column that mixes kinds, a kind that can represent all of its values
  reason: str = ""  # why the column is not used, or which kinds it mixes
  is_mixed: bool = False  # whether it mixes kinds, so that the user must choose


@dataclasses.dataclass
class ColumnScan:
  """Properties of the values of a column, collected in one pass over the rows."""

  found: set[str] = dataclasses.field(default_factory=set)  # kinds of the parts that were added; "text" for strings
  words: set[str] = dataclasses.field(default_factory=set)  # distinct strings; not extended beyond `_MOST_DISTINCT`
  has_zone: bool = False  # whether the first value is a date with a time zone; only for dates and texts
  filled: int = 0  # number of values that are not missing
  following: float | None = None  # next value if the column counts the rows (1, 2, ...); NaN if it does not
  count: int = 0

  def add(self, values: pd.Series) -> None:
    """Updates the properties with the values of further rows."""
    kind = _kind_of(values)
    self.found |= {kind} - {"empty"}
    self.count += len(values)
    if kind == "text":
      self.filled += int(values.notna().sum())
    if kind == "text" and len(self.words) <= _MOST_DISTINCT:
      self.words |= set(frames.words_of(frames.factorized(values)[1]))
    if kind == "integer" and len(values):
      numbers = values.to_numpy(np.float64, na_value=np.nan)
      starts = self.following is None or numbers[0] == self.following
      counts = starts and all((np.diff(part) == 1).all() for part in (numbers[:_FIRST_ROWS], numbers))
      self.following = numbers[-1] + 1 if counts else np.nan

  def kind(self) -> Kind:
    """Returns the kind of the column according to its values."""
    if not self.found:
      return Kind("ignore", "has no values")
    if "text" in self.found:
      return self._kind_of_texts()
    kind = "numeric" if self.found == {"numeric", "integer"} else "/".join(sorted(self.found))
    if kind not in schema.KINDS:
      return Kind("numeric", f"mixes {kind}", is_mixed=True)
    is_count = kind == "integer" and self.count > _LEAST_IDS and not np.isnan(self.following or np.nan)
    return Kind("ignore", "counts the rows") if is_count else Kind(kind)

  def _kind_of_texts(self) -> Kind:
    words = sorted(self.words)
    truths = {word for pair in truth_words.WORDS for word in pair}
    if {word.lower() for word in words} <= truths and self.found <= {"text", "boolean"}:
      return Kind("boolean")
    found = dates.are_dates(words)
    if found.mean() >= _MOSTLY:
      reason = f"holds dates, but also strings such as {_first(words, ~found)}"
      return Kind("date") if found.all() else Kind("ignore", reason, is_mixed=True)
    numbers = frames.are_numbers(words)
    are_different = len(words) == self.filled and self.filled > _LEAST_IDS
    if (len(words) > _MOST_DISTINCT or are_different) and numbers.mean() < _MOSTLY:
      return Kind("ignore", "is an id: its strings are all different")
    if numbers.all() and self.found == {"text"}:
      return Kind("numeric")
    if numbers.mean() >= _MOSTLY or self.found & {"numeric", "integer"}:
      return Kind("categorical", f"holds numbers, but also strings such as {_first(words, ~numbers)}", is_mixed=True)
    return Kind("categorical")


def _first(words: Sequence[str], chosen: Bool[np.ndarray, " words"]) -> str:
  """Returns a text with the first of the chosen words."""
  return " and ".join(repr(words[position]) for position in np.flatnonzero(chosen)[:_FIRST_WORDS])


def kinds_of(columns: Mapping[str, ColumnScan], given: Mapping[str, str], where: str) -> dict[str, Kind]:
  """Returns the kind of each column.

  Args:
    columns: {column: properties of its values}.
    given: {column: kind} for the columns whose kind the user has set.
    where: Prefix of the error message.

  Raises:
    UserError: Columns mix kinds; the message names them, with one flag that sets their kinds.
  """
  found = {name: Kind(given[name]) if name in given else column.kind() for name, column in columns.items()}
  mixed = {name: kind for name, kind in found.items() if kind.is_mixed}
  if mixed:
    listed = [f"column {name!r} {kind.reason}" for name, kind in mixed.items()]
    more = [f"and {len(listed) - _MOST_NAMED} more"] if len(listed) > _MOST_NAMED else []
    count = f"{len(listed)} columns mix kinds: " if len(listed) > 1 else ""
    fix = f"correct the values, or set {frames.example({name: kind.name for name, kind in mixed.items()})}"
    raise errors.UserError(f"{where}: {count}{'; '.join([*listed[:_MOST_NAMED], *more, fix])}")
  return found


def _kind_of(values: pd.Series) -> str:
  """Returns the kind of the values; "text" if the dtype does not determine it, "empty" if all values are missing."""
  if pd.api.types.is_bool_dtype(values.dtype):
    return "boolean"
  if pd.api.types.is_numeric_dtype(values.dtype):
    if values.dtype.kind in "iu" and not values.hasnans:
      return "integer"
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    whole = lambda rows: bool(((rows == np.rint(rows)) | np.isnan(rows)).all())
    empty = lambda rows: bool(np.isnan(rows).all())
    for holds, kind in ((empty, "empty"), (whole, "integer")):
      if holds(numbers[:_FIRST_ROWS]) and holds(numbers):
        return kind
    return "numeric"
  if pd.api.types.is_datetime64_any_dtype(values.dtype):
    return "date"
  return "text" if values.notna().any() else "empty"


class Scan(NamedTuple):
  """Properties of a table, collected in one pass over its rows."""

  columns: dict[str, ColumnScan]  # {name: scan} of the columns that are inputs
  answers: dict[str, np.ndarray]  # {config key: values} of the columns that are not inputs, such as {"label": values}
  rows: dict[str, int]  # {file: number of its rows}; the file is "" for DataFrames in memory
  names: list[str]  # names of all columns


def scan(parts: Iterable[pd.DataFrame], keys: Mapping[str, str], given: Mapping[str, str], where: str) -> Scan:
  """Collects the properties of a table in one pass over its rows.

  Args:
    parts: The rows.
    keys: {key of `config.data`: column name} for the columns that are not inputs, such as {"label": "class"}.
    given: {column: kind} for the columns whose kind the user has set.
    where: Prefix of error messages.

  Raises:
    UserError: A column of `keys` does not exist, or has missing values.
  """
  found: dict[str, ColumnScan] = {}
  collected: dict[str, list[np.ndarray]] = {key: [] for key in keys}
  rows: dict[str, int] = {}
  names: list[str] = []
  for frame in parts:
    names = list(map(str, frame.columns))
    for key, name in keys.items():
      if name not in names:
        raise errors.UserError(
          f"config.data.{key}={name!r}: {where} has no such column; {errors.list_known(name, names)}"
        )
      collected[key].append(answers(frame[name], f"{key} column {name!r}", sum(rows.values()), where))
    for name in names:
      if name not in keys.values() and given.get(name) != "ignore":
        column = found.setdefault(name, ColumnScan())
        if given.get(name) in ("categorical", "boolean"):
          column.words |= set(frames.words_of(frames.factorized(frame[name])[1]))
        elif name not in given:
          column.add(frame[name])
        if not rows:
          column.has_zone = dates.have_zone(frame[name])
    file = frame.attrs.get(several_files.FILE, "")
    rows[file] = rows.get(file, 0) + len(frame)
  return Scan(found, {key: np.concatenate(values) for key, values in collected.items()}, rows, names)


def answers(values: pd.Series, name: str, row: int, where: str) -> np.ndarray:
  """Converts a column of labels or groups to an array of numbers or strings; raises UserError if a value is missing."""
  missing = np.flatnonzero(values.isna())
  if len(missing):
    raise errors.UserError(
      f"{where}: the {name} has {remarks.counted(len(missing), 'missing value')} in the first "
      f"{row + len(values):,} rows; the first is in row {row + missing[0]:,} (counted from 0); fill or remove them"
    )
  if values.dtype.kind in "biuf":
    return values.to_numpy()
  codes, distinct = frames.factorized(values)
  return np.array(frames.words_of(distinct))[codes]

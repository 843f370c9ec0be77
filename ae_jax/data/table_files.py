"""Reads the CSV and Parquet files of tables as pandas DataFrames, and finds the kinds of their columns.

Rows are counted from 0 in messages.
"""

import dataclasses
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ae_jax import errors
from ae_jax.data import frames, remarks, schema

STREAMED_ROWS = 1 << 17  # rows that are read at a time from a file that exceeds the memory budget
_PEEKED_ROWS = 100  # rows that are read first, to find the columns of texts
_FIRST_ROWS = 1 << 10  # rows that are examined before all rows, because most columns differ in them already
_MOSTLY = 0.8  # a column of texts of which at least this share are numbers is a column of numbers with faults
_LEAST_IDS = 20  # a column with more values, all different texts, is an id
_MOST_DISTINCT = 100_000  # a column with more different texts is an id


def read_csv(path: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Iterator[pd.DataFrame]:
  """Yields the rows of a CSV file: all at once or, if `streamed`, at most STREAMED_ROWS at a time.

  The separator is a comma, a semicolon or a tab, whichever is most frequent in the first line.
  """
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", errors="replace") as file:
      first = file.readline()
    separator = max(",;\t", key=first.count)
    peeked = pd.read_csv(path, sep=separator, nrows=_PEEKED_ROWS)
  _check_header(list(peeked.columns), where)
  texts = {
    name
    for name, values in peeked.items()
    if kinds.get(name) == "categorical" or pd.api.types.infer_dtype(values, skipna=True) == "string"
  }
  # pandas reads texts as categories in half the time, and later passes see each of the different texts once
  options: dict[str, Any] = {"sep": separator, "dtype": dict.fromkeys(texts, "category"), "low_memory": False}
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    if not streamed:
      yield pd.read_csv(path, **options)
      return
    with pd.read_csv(path, chunksize=STREAMED_ROWS, **options) as chunks:
      yield from chunks


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
  """Raises UserError if the first row of a CSV file holds numbers, not names."""
  numbers = pd.to_numeric(pd.Series(names, dtype=str), errors="coerce")
  if len(names) and numbers.notna().all():
    raise errors.UserError(f"{where}: the first row holds numbers, not the names of the columns; add a header row")


@dataclasses.dataclass
class ColumnScan:
  """Result of a pass over the values of a column."""

  found: set[str] = dataclasses.field(default_factory=set)  # kinds of the parts; "text" for texts
  words: set[str] = dataclasses.field(default_factory=set)  # different texts, at most `_MOST_DISTINCT` + a part
  filled: int = 0  # number of values that are not missing
  following: float | None = None  # the next value of a column that counts the rows; NaN: it does not
  count: int = 0

  def add(self, values: pd.Series) -> None:
    """Takes the values of further rows into account."""
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

  def kind(self, name: str, where: str) -> tuple[str, str]:
    """Returns the kind of the column, and the reason if it is left out ("ignore").

    Raises:
      UserError: Most, but not all, texts are numbers.
    """
    if not self.found:
      return "ignore", "has no values"
    if "text" not in self.found:
      kind = "numeric" if self.found == {"numeric", "integer"} else "/".join(sorted(self.found))
      if kind not in schema.KINDS:
        raise errors.UserError(
          f"{where}: column {name!r} mixes {kind}; set its kind: {frames.example(name, 'numeric')}"
        )
      is_count = kind == "integer" and self.count > _LEAST_IDS and not np.isnan(self.following or np.nan)
      return ("ignore", "counts the rows") if is_count else (kind, "")
    return self._kind_of_texts(name, where)

  def _kind_of_texts(self, name, where):
    words = sorted(self.words)
    if {word.lower() for word in words} <= frames.TRUE | frames.FALSE and self.found <= {"text", "boolean"}:
      return "boolean", ""
    are_different = len(words) == self.filled and self.filled > _LEAST_IDS
    if len(words) > _MOST_DISTINCT or (are_different and not frames.are_dates(words)):
      numbers = frames.are_numbers(words)
      if numbers.mean() < _MOSTLY:
        return "ignore", "is an id: its strings are all different"
    numbers = frames.are_numbers(words)
    if numbers.all() and self.found == {"text"}:
      return "numeric", ""
    if numbers.mean() >= _MOSTLY or self.found & {"numeric", "integer"}:
      word = words[int(np.argmin(numbers))]
      raise errors.UserError(
        f"{where}: column {name!r} holds numbers, but also strings such as {word!r}; correct them, or set "
        f"{frames.example(name, 'categorical')}"
      )
    return ("date", "") if frames.are_dates(words) else ("categorical", "")


def _kind_of(values: pd.Series) -> str:
  """Returns the kind of the values by their dtype; "text" if it depends on the words, "empty" if all are missing."""
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
  """Result of a pass over the rows of a table."""

  columns: dict[str, ColumnScan]  # of each column that is an input
  answers: dict[str, np.ndarray]  # {key: values} of the columns of `keys`
  rows: int
  names: list[str]  # of all columns


def scan(parts: Iterable[pd.DataFrame], keys: Mapping[str, str], given: Mapping[str, str], where: str) -> Scan:
  """Passes over the rows of a table once.

  Args:
    parts: The rows.
    keys: {key of `config.data`: name} of the columns that are not inputs, such as the labels.
    given: {column: kind} of the columns whose kind is not to be found.
    where: Prefix of error messages.

  Raises:
    UserError: A column of `keys` does not exist, or has missing values.
  """
  found: dict[str, ColumnScan] = {}
  answers: dict[str, list[np.ndarray]] = {key: [] for key in keys}
  rows, names = 0, []
  for frame in parts:
    names = list(map(str, frame.columns))
    for key, name in keys.items():
      if name not in names:
        raise errors.UserError(
          f"config.data.{key}={name!r}: {where} has no such column; {errors.list_known(name, names)}"
        )
      answers[key].append(_answers(frame[name], f"{key} column {name!r}", rows, where))
    for name in names:
      if name not in keys.values() and given.get(name) != "ignore":
        column = found.setdefault(name, ColumnScan())
        if given.get(name) == "categorical":
          column.words |= set(frames.words_of(frames.factorized(frame[name])[1]))
        elif name not in given:
          column.add(frame[name])
    rows += len(frame)
  return Scan(found, {key: np.concatenate(values) for key, values in answers.items()}, rows, names)


def _answers(values: pd.Series, name: str, row: int, where: str) -> np.ndarray:
  """Returns the values of a column as integers, floats or texts; raises UserError if one is missing."""
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

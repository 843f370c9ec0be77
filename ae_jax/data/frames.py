"""Tables as pandas DataFrames: reads CSV and Parquet files, finds the kinds of columns, and converts the values.

Raw numbers are described in `ae_jax.data.schema`. Rows are counted from 0 in messages.
"""

import dataclasses
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from ae_jax import errors
from ae_jax.data import remarks, schema

STREAMED_ROWS = 1 << 17  # rows that are read at a time from a file that exceeds the memory budget
_TRUE, _FALSE = {"true", "yes"}, {"false", "no"}
_EPOCH = pd.Timestamp(0)
_DAY = pd.Timedelta(days=1)
_CACHED_ROWS = 2048  # rows of all columns that fit in the cache of a CPU
_MOSTLY = 0.8  # a column of texts of which at least this share are numbers is a column of numbers with faults
_LEAST_IDS = 20  # a column with more values, all different texts, is an id
_MOST_DISTINCT = 100_000  # a column with more different texts is an id


def read_csv(path: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Iterator[pd.DataFrame]:
  """Yields the rows of a CSV file: all at once, or if `streamed` at most STREAMED_ROWS at a time.

  The separator is a comma, a semicolon or a tab, whichever is most frequent in the first line.
  """
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", errors="replace") as file:
      first = file.readline()
    separator = max(",;\t", key=first.count)
    names = list(pd.read_csv(path, sep=separator, nrows=0).columns)
  _check_header(names, where)
  texts = {name: str for name in names if kinds.get(name) == "categorical"}
  options: dict[str, Any] = {"sep": separator, "dtype": texts, "low_memory": False}
  with errors.convert_errors(f"{where}: not a readable CSV file"):
    if not streamed:
      yield pd.read_csv(path, **options)
      return
    with pd.read_csv(path, chunksize=STREAMED_ROWS, **options) as chunks:
      yield from chunks


def read_parquet(path: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Iterator[pd.DataFrame]:
  """Yields the rows of a Parquet file: all at once, or if `streamed` at most STREAMED_ROWS at a time.

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
    raise errors.UserError(f"{where}: the first row holds numbers, not the names of the columns; add a row with names")


@dataclasses.dataclass
class ColumnScan:
  """What a pass over the values of a column has found."""

  found: set[str] = dataclasses.field(default_factory=set)  # kinds of the parts; "text" for texts
  words: set[str] = dataclasses.field(default_factory=set)  # different texts, at most `_MOST_DISTINCT` + a part
  filled: int = 0  # number of values that are not missing
  following: float | None = None  # the next value of a column that counts the rows; NaN: it does not
  count: int = 0

  def add(self, values: pd.Series) -> None:
    """Takes the values of further rows into account."""
    kind = _kind_of(values)
    self.found |= {kind} - {"empty"}
    self.filled += int(values.notna().sum()) if kind != "empty" else 0
    self.count += len(values)
    if kind == "text" and len(self.words) <= _MOST_DISTINCT:
      self.words |= set(_words(values.dropna().drop_duplicates()))
    if kind == "integer" and len(values):
      numbers = values.to_numpy(np.float64, na_value=np.nan)
      starts = self.following is None or numbers[0] == self.following
      self.following = numbers[-1] + 1 if starts and (np.diff(numbers) == 1).all() else np.nan

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
        raise errors.UserError(f"{where}: column {name!r} mixes {kind}; set its kind: {_example(name, 'numeric')}")
      is_count = kind == "integer" and self.count > _LEAST_IDS and not np.isnan(self.following or np.nan)
      return ("ignore", "counts the rows") if is_count else (kind, "")
    return self._kind_of_texts(name, where)

  def _kind_of_texts(self, name, where):
    words = sorted(self.words)
    if {word.lower() for word in words} <= _TRUE | _FALSE and self.found <= {"text", "boolean"}:
      return "boolean", ""
    if len(words) > _MOST_DISTINCT or (len(words) == self.filled and self.filled > _LEAST_IDS and not _dates(words)):
      numbers = _numeric(words)
      if numbers.mean() < _MOSTLY:
        return "ignore", "is an id: its texts are all different"
    numbers = _numeric(words)
    if numbers.all() and self.found == {"text"}:
      return "numeric", ""
    if numbers.mean() >= _MOSTLY or self.found & {"numeric", "integer"}:
      word = words[int(np.argmin(numbers))]
      raise errors.UserError(
        f"{where}: column {name!r} holds numbers, but also texts such as {word!r}; correct them, or set "
        f"{_example(name, 'categorical')}"
      )
    return ("date", "") if _dates(words) else ("categorical", "")


def _numeric(words: Sequence[str]) -> np.ndarray:
  """Returns the mask of the texts that are numbers."""
  return pd.to_numeric(pd.Series(list(words), dtype=object), errors="coerce").notna().to_numpy()


def _dates(words: Sequence[str]) -> bool:
  """Returns whether all texts are dates of the form 2024-05-31, with or without a time."""
  texts = pd.Series(list(words), dtype=object)
  if not texts.str.match(r"\d{4}-\d{2}-\d{2}").all():
    return False
  return bool(pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).notna().all())


def _example(name: str, kind: str) -> str:
  return f"--config.data.columns=\"'{name}={kind}',\""


def _kind_of(values: pd.Series) -> str:
  """Returns the kind of the values by their dtype; "text" if it depends on the words, "empty" if all are missing."""
  if pd.api.types.is_bool_dtype(values.dtype):
    return "boolean"
  if pd.api.types.is_numeric_dtype(values.dtype):
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    if values.dtype.kind in "iu" and not values.hasnans:
      return "integer"
    known = numbers[: 1 << 10]
    whole = lambda rows: bool(((rows == np.rint(rows)) | np.isnan(rows)).all())
    if np.isnan(numbers).all():
      return "empty"
    return "integer" if whole(known) and whole(numbers) else "numeric"
  if pd.api.types.is_datetime64_any_dtype(values.dtype):
    return "date"
  return "text" if values.notna().any() else "empty"


def _words(values: pd.Series) -> list[str]:
  """Returns values as texts; whole floats like integers, so that 3.0 is "3"."""
  if pd.api.types.is_float_dtype(values.dtype) and (values == np.rint(values)).all():
    values = values.astype(np.int64)
  return [str(value) for value in values.tolist()]


def scan(
  frames: Iterable[pd.DataFrame], label: str, given: Mapping[str, str], where: str
) -> tuple[dict[str, ColumnScan], list[np.ndarray], int, list[str]]:
  """Passes over the rows of a table once.

  Args:
    frames: The rows, in parts.
    label: Name of the column of labels, or "".
    given: {column: kind} of the columns whose kind is not to be found.
    where: Prefix of error messages.

  Returns:
    What was found in each column that is not the label or ignored, the labels in parts, the number of rows, and the
    names of all columns.
  """
  found: dict[str, ColumnScan] = {}
  labels, rows, names = [], 0, []
  for frame in frames:
    names = list(map(str, frame.columns))
    if label:
      if label not in names:
        raise errors.UserError(
          f"config.data.label={label!r}: {where} has no such column; {errors.list_known(label, names)}"
        )
      labels.append(_labels(frame[label], label, rows, where))
    for name in names:
      if name != label and given.get(name) != "ignore":
        column = found.setdefault(name, ColumnScan())
        if given.get(name) == "categorical":
          column.words |= set(_words(frame[name].dropna().drop_duplicates()))
        elif name not in given:
          column.add(frame[name])
    rows += len(frame)
  return found, labels, rows, names


def _labels(values: pd.Series, name: str, row: int, where: str) -> np.ndarray:
  """Returns a column of labels as integers, floats or texts; raises UserError if a label is missing."""
  missing = np.flatnonzero(values.isna())
  if len(missing):
    raise errors.UserError(
      f"{where}: the label column {name!r} has {remarks.counted(len(missing), 'missing value')} in the first "
      f"{row + len(values):,} rows; the first is in row {row + missing[0]:,} (counted from 0); fill or remove them"
    )
  return values.to_numpy() if values.dtype.kind in "biuf" else np.array(_words(values))


def raw_rows(
  frame: pd.DataFrame, columns: Sequence[Sequence[Any]], row: int, where: str
) -> Float64[np.ndarray, "rows columns"]:
  """Returns the rows of a DataFrame as raw numbers.

  Args:
    frame: A DataFrame with these and possibly other columns.
    columns: Name, kind and words of each column. A word that is not among them becomes their number.
    row: Number of the first row, for messages.
    where: Prefix of error messages.

  Raises:
    UserError: A value cannot be converted; the message names the row and the column.
  """
  converted = []
  for name, kind, words in columns:
    values = frame[name]
    convert = _CONVERSIONS[kind]
    numbers = convert(values, words)
    converted.append(numbers)
    gaps = np.flatnonzero(np.isnan(numbers))
    faults = gaps[values.iloc[gaps].notna().to_numpy()] if len(gaps) else gaps
    if len(faults):
      raise errors.UserError(
        f"{where}: {values.iloc[faults[0]]!r} in row {row + faults[0]:,} (counted from 0) of column {name!r} is not "
        f"{_NOUNS[kind]}; correct it, or set {_example(name, 'categorical')}"
      )
  raw = np.empty((len(frame), len(columns)))
  for start in range(0, len(frame), _CACHED_ROWS):  # a column at a time would read each cache line for every column
    rows = slice(start, start + _CACHED_ROWS)
    raw[rows] = np.stack([numbers[rows] for numbers in converted], axis=1)
  return raw


def _to_number(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  if pd.api.types.is_numeric_dtype(values.dtype):
    return values.to_numpy(np.float64, na_value=np.nan)
  return pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _to_boolean(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  if pd.api.types.is_bool_dtype(values.dtype) and not values.hasnans:
    return values.to_numpy(np.float64)
  texts = {**dict.fromkeys(_TRUE | {"1", "1.0"}, 1.0), **dict.fromkeys(_FALSE | {"0", "0.0"}, 0.0)}
  return values.astype(object).map(lambda value: texts.get(str(value).lower(), np.nan)).to_numpy(np.float64)


def _to_days(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  if not pd.api.types.is_datetime64_any_dtype(values.dtype):
    mixed = {"format": "ISO8601"} if _dates(_words(values.dropna().drop_duplicates())) else {}
    values = pd.to_datetime(values, errors="coerce", utc=True, **mixed)
  if values.dt.tz is not None:
    values = values.dt.tz_convert("UTC").dt.tz_localize(None)
  return ((values - _EPOCH) / _DAY).to_numpy(np.float64)


def _to_position(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  positions = {word: position for position, word in enumerate(words)}
  codes, distinct = pd.factorize(values)  # -1: missing
  of_distinct = [positions.get(word, len(positions)) for word in _words(pd.Series(distinct))]
  return np.array([*of_distinct, np.nan])[codes]


_CONVERSIONS = {
  "numeric": _to_number,
  "integer": _to_number,
  "boolean": _to_boolean,
  "date": _to_days,
  "categorical": _to_position,
}
_NOUNS = {"numeric": "a number", "integer": "a number", "boolean": "true or false", "date": "a date", "categorical": ""}


def is_frame(x: Any) -> bool:
  """Returns whether `x` is a DataFrame or a dict of columns."""
  return isinstance(x, pd.DataFrame | Mapping)


def of_frame(x: Any, fitted: schema.Schema) -> Float64[np.ndarray, "rows columns"]:
  """Returns the raw rows of a DataFrame, or of a dict {column: values}; the order of the columns does not matter.

  Columns that the run did not use, such as the labels, may be there.

  Raises:
    UserError: A column is missing or unknown, or a value cannot be converted.
  """
  frame = x if isinstance(x, pd.DataFrame) else pd.DataFrame(dict(x))
  names = [column.name for column in fitted.columns]
  missing = [name for name in names if name not in frame.columns]
  if missing:
    raise errors.UserError(f"the table has no column {missing[0]!r}; the run needs {', '.join(names)}")
  unknown = [str(name) for name in frame.columns if name not in names and name not in fitted.unused]
  if unknown:
    raise errors.UserError(
      f"the table has the columns {', '.join(unknown)}, which are no columns of this run; drop them, or rename them"
    )
  columns = [(column.name, column.kind, column.words) for column in fitted.columns]
  return raw_rows(frame, columns, 0, "the table")


def to_frame(raw: Float[np.ndarray, "rows columns"], fitted: schema.Schema, index: Any = None) -> pd.DataFrame:
  """Returns raw rows as a DataFrame with numbers, words, booleans and dates. `index` is its index."""
  return pd.DataFrame(
    {column.name: _of_kind(raw[:, position], column) for position, column in enumerate(fitted.columns)}, index=index
  )


def _of_kind(values: Float[np.ndarray, " rows"], column: schema.Column) -> Any:
  if column.kind == "categorical":
    return np.array([*column.words, schema.OTHER], dtype=object)[values.astype(np.intp)]
  if column.kind == "boolean":
    return values.astype(bool)
  if column.kind == "date":
    return (_EPOCH + pd.to_timedelta(values, unit="D")).round("s")
  finite = column.kind == "integer" and np.isfinite(values).all() and (np.abs(values) < 2**62).all()
  return values.astype(np.int64) if finite else values


def index_of(x: Any) -> Any:
  """Returns the index of a DataFrame; None for a dict of columns."""
  return x.index if isinstance(x, pd.DataFrame) else None

"""Converts rows of pandas DataFrames to raw rows (one number per column), and back.

Raw rows are described in `ae_jax.data.schema`. Messages count rows from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int, Shaped

from ae_jax import errors
from ae_jax.data import dates, lazy_arrays, schema, truth_words

_EPOCH = pd.Timestamp(0)
_DAY = pd.Timedelta(days=1)


def are_numbers(words: Sequence[str]) -> Bool[np.ndarray, " words"]:
  """Returns a boolean mask: True for each string that is a number."""
  return pd.to_numeric(pd.Series(list(words), dtype=object), errors="coerce").notna().to_numpy()


def example(kinds: Mapping[str, str]) -> str:
  """Returns a command-line flag that sets the kinds of columns, for messages; `kinds` is {column: kind}."""
  entries = "".join(f"'{name}={kind}'," for name, kind in kinds.items())
  return f'--config.data.columns="{entries}"'


def factorized(values: pd.Series) -> tuple[Int[np.ndarray, " rows"], pd.Series]:
  """Returns the code of each value (-1: missing), and the distinct values in order of appearance.

  The code of a value is its position among the distinct values. Lists and dicts are compared as strings.
  """
  try:
    codes, distinct = pd.factorize(values)
  except TypeError:  # unhashable values
    codes, distinct = pd.factorize(values.map(str, na_action="ignore"))
  distinct = pd.Series(distinct)
  is_coded = isinstance(distinct.dtype, pd.CategoricalDtype)
  return codes, distinct.astype(distinct.cat.categories.dtype) if is_coded else distinct


def words_of(values: pd.Series) -> list[str]:
  """Returns the values as strings. If all values are whole numbers, 3.0 becomes "3"."""
  if pd.api.types.is_float_dtype(values.dtype) and (values == np.rint(values)).all():
    values = values.astype(np.int64)
  return [str(value) for value in values.tolist()]


def raw_rows(
  frame: pd.DataFrame,
  columns: Sequence[Sequence[Any]],
  row: int,
  where: str,
  raw: Float64[np.ndarray, "rows columns"] | None = None,
  *,
  is_new: bool = False,
) -> Float64[np.ndarray, "rows columns"]:
  """Returns the rows of a DataFrame as raw rows, one number per column.

  Args:
    frame: A DataFrame with the columns in `columns`, and possibly others.
    columns: Name, kind and words of each column. The words of a categorical column are its categories: a value becomes
      the position of its category, or K if it is in none of the K categories. Other words are ignored.
    row: Number of the first row, for messages.
    where: Prefix of error messages.
    raw: Array to which the result is written; if None, a new array is allocated.
    is_new: Whether the rows are new data for a trained run, which determines the kinds of the columns.

  Raises:
    UserError: A value cannot be converted; the message names the row and the column.
  """
  converted = []
  for name, kind, words in columns:
    values = frame[name]
    if pd.api.types.is_numeric_dtype(values.dtype) and kind in ("numeric", "integer"):
      is_plain = isinstance(values.dtype, np.dtype)
      converted.append(values.to_numpy() if is_plain else values.to_numpy(np.float64, na_value=np.nan))
      continue
    converted.append(_CONVERSIONS[kind](values, words))
    fix = "correct it" if is_new else f"correct it, or set {example({name: 'categorical'})}"
    _check(values, converted[-1], row, where, f"of column {name!r} is not {_NOUNS[kind]}; {fix}")
  raw = np.empty((len(frame), len(columns))) if raw is None else raw

  def write(rows: slice) -> None:
    raw[rows] = np.array([numbers[rows] for numbers in converted]).T  # a stack along axis 1 takes ten times as long

  lazy_arrays.map_blocks(
    write, len(frame), lazy_arrays.CACHED_ROWS
  )  # whole columns would load each cache line once per column
  return raw


def shared_or_raw_rows(
  frame: pd.DataFrame, columns: Sequence[Sequence[Any]], where: str
) -> Float64[np.ndarray, "rows columns"]:
  """Returns `raw_rows`; for a table that has only columns of floats, as a view of its memory.

  A copy takes longer than reading the values, because the operating system clears new memory.
  """
  is_same = list(frame.columns) == [name for name, _, _ in columns] and (frame.dtypes == np.float64).all()
  if is_same and all(kind in ("numeric", "integer") for _, kind, _ in columns):
    return frame.to_numpy()
  return raw_rows(frame, columns, 0, where)


def _check(values: pd.Series, numbers: Float[np.ndarray, " rows"], row: int, where: str, fault: str) -> None:
  """Raises UserError if a value that is not missing was converted to NaN; its message ends with `fault`.

  See `raw_rows` for `row` and `where`.
  """
  gaps = np.flatnonzero(np.isnan(numbers))
  invalid = gaps[values.iloc[gaps].notna().to_numpy()] if len(gaps) else gaps
  if len(invalid):
    raise errors.UserError(f"{where}: {values.iloc[invalid[0]]!r} in row {row + invalid[0]:,} (counted from 0) {fault}")


def _by_distinct(values: pd.Series, convert: Callable[[pd.Series], Any]) -> Float[np.ndarray, " rows"]:
  """Converts the values to floats by calling `convert` on the distinct values only. Missing values become NaN."""
  codes, distinct = factorized(values)
  return np.array([*convert(distinct), np.nan], np.float64)[codes]


def _to_number(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  as_texts = lambda value: str(value) if type(value) is int else value  # Python integers may exceed the range of floats
  return _by_distinct(values, lambda distinct: pd.to_numeric(distinct.map(as_texts), errors="coerce"))


def _to_boolean(values: pd.Series, words: Sequence[Any]) -> Float[np.ndarray, " rows"]:
  if pd.api.types.is_bool_dtype(values.dtype) and not values.hasnans:
    return values.to_numpy(np.float64)
  texts = {word: value for words in truth_words.PAIRS for value, word in enumerate(words)} | {"0.0": 0.0, "1.0": 1.0}
  return _by_distinct(values, lambda distinct: [texts.get(str(value).lower(), np.nan) for value in distinct])


def _to_days(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  if pd.api.types.is_datetime64_any_dtype(values.dtype):
    return _days(values)

  parse = dates.of_numbers if pd.api.types.is_numeric_dtype(values.dtype) else dates.parse
  return _by_distinct(values, lambda distinct: _days(parse(distinct)))


def _days(times: pd.Series) -> Float[np.ndarray, " rows"]:
  """Returns dates as days since 1970-01-01."""
  if times.dt.tz is not None:
    times = times.dt.tz_convert("UTC").dt.tz_localize(None)
  return ((times - _EPOCH) / _DAY).to_numpy(np.float64)


def _to_position(values: pd.Series, words: Sequence[str]) -> Float[np.ndarray, " rows"]:
  positions = {word: position for position, word in enumerate(words)}
  return _by_distinct(values, lambda distinct: [positions.get(word, len(positions)) for word in words_of(distinct)])


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


def with_dates(x: Any) -> Any:
  """Returns a DataFrame with the dates of its index as a column; other rows are returned unchanged."""
  if not isinstance(x, pd.DataFrame) or not isinstance(x.index, pd.DatetimeIndex | pd.PeriodIndex):
    return x
  if x.index.name in x.columns:  # the column has the dates already
    return x.reset_index(drop=True)
  return (x.to_timestamp() if isinstance(x.index, pd.PeriodIndex) else x).reset_index()


def is_rows(x: Any) -> bool:
  """Returns whether `x` has named columns: a DataFrame, a dict of columns, or a Series, which is one row."""
  return is_frame(x) or isinstance(x, pd.Series)


def as_frame(x: Any) -> pd.DataFrame:
  """Converts a DataFrame, a dict {column: values} or a Series to a DataFrame whose column names are strings.

  A dict of scalars, or a Series, is one row. The index of the Series contains the names of the columns.

  Raises:
    UserError: The columns of a dict differ in length, or two columns have the same name.
  """
  if isinstance(x, pd.Series):
    x = x.to_frame().T.infer_objects()
  if not isinstance(x, pd.DataFrame):
    is_row = all(np.ndim(values) == 0 for values in x.values())
    try:
      x = pd.DataFrame([dict(x)] if is_row else dict(x))
    except ValueError as error:
      raise errors.UserError(
        f"the dict cannot be converted to a DataFrame ({errors.one_line(error)}); give all columns the same length"
      ) from None
  if isinstance(x.columns, pd.MultiIndex):
    raise errors.UserError(
      "the columns of the table have several levels; join their names: "
      "frame.columns = ['_'.join(map(str, names)) for names in frame.columns]"
    )
  frame = x.rename(columns=str)
  if not frame.columns.is_unique:
    name = frame.columns[frame.columns.duplicated()][0]
    raise errors.UserError(f"the table has two columns {name!r}; rename one of them")
  return frame


def of_frame(x: Any, fitted: schema.Schema) -> Float64[np.ndarray, "rows columns"]:
  """Returns the raw rows of a DataFrame, or of a dict {column: values}; the columns may be in any order.

  The training data may have had columns that the run did not use, such as the labels; `x` may have them, too.

  Raises:
    UserError: A column is missing or was not in the training data, or a value cannot be converted.
  """
  frame = as_frame(x)
  names = [column.name for column in fitted.columns]
  missing = [name for name in names if name not in frame.columns]
  if missing:
    raise errors.UserError(f"the table has no column {missing[0]!r}; the run needs {', '.join(names)}")
  unknown = [str(name) for name in frame.columns if name not in names and name not in fitted.unused]
  if unknown:
    raise errors.UserError(
      f"the table has columns that the run was not trained on: {', '.join(unknown)}; drop or rename them"
    )
  columns = [(column.name, column.kind, column.words) for column in fitted.columns]
  return raw_rows(frame, columns, 0, "the table", is_new=True)


def to_frame(raw: Float[np.ndarray, "rows columns"], fitted: schema.Schema, like: Any = None) -> pd.DataFrame:
  """Converts raw rows to a DataFrame of numbers, strings, booleans and dates.

  `like`, the input of the user, determines the index and how booleans are spelt; None: as in the training rows.
  """
  return pd.DataFrame(
    {column.name: _of_kind(raw[:, position], column, like) for position, column in enumerate(fitted.columns)},
    index=index_of(like),
  )


def to_objects(
  raw: Float[np.ndarray, "rows columns"], fitted: schema.Schema, like: Any
) -> Shaped[np.ndarray, "rows columns"]:
  """Converts raw rows to an object array of numbers, strings, booleans and dates; missing values become None.

  Dates of columns without times of day are `datetime.date`. See `to_frame` for `like`.
  """
  found = np.empty(raw.shape, dtype=object)
  for position, column in enumerate(fitted.columns):
    known = ~np.isnan(raw[:, position])
    values = pd.Series(_of_kind(raw[known, position], column, like)).astype(object)
    is_day = column.whole_days & (raw[known, position] == np.rint(raw[known, position]))
    found[known, position] = values.where(~is_day, values.map(lambda date: date.date())) if is_day.any() else values
  return found


def words_at(x: Any, name: str, rows: Bool[np.ndarray, " rows"]) -> list[str]:
  """Returns the values of a column of `x`, the input of the user, at the chosen rows as strings."""
  return words_of(as_frame(x).loc[rows, name])


def _of_kind(values: Float[np.ndarray, " rows"], column: schema.Column, like: Any) -> Any:
  if column.kind == "categorical":
    return np.array([*column.words, schema.OTHER], dtype=object)[values.astype(np.intp)]
  if column.kind == "boolean":
    words = words_of(factorized(as_frame(like)[column.name])[1]) if is_rows(like) else []
    truths = truth_words.pair(words) or column.truths
    return np.array(truths, dtype=object if isinstance(truths[0], str) else None)[values.astype(np.intp)]
  if column.kind == "date":
    return (_EPOCH + pd.to_timedelta(values, unit="D")).round("s")
  whole = column.kind == "integer" and (np.abs(values) < 2**62).all() and (values == np.rint(values)).all()
  return values.astype(np.int64) if whole else values  # observed values of new rows can have fractions


def index_of(x: Any) -> Any:
  """Returns the index of a DataFrame, [name] for a Series (which is one row), or None for a dict of columns."""
  if isinstance(x, pd.Series):
    return [x.name]
  return x.index if isinstance(x, pd.DataFrame) else None

"""Fits the schema of a table to its training rows, and encodes the rows of all splits."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from ae_jax import errors
from ae_jax.data import empty_rows, lazy_arrays, placements, remarks, schema, splits, value_remarks
from ae_jax.data.kinds import ARRAY_FILES

MOST_WORDS = 100  # maximum number of categories of a column; rarer strings are encoded as `schema.OTHER`
NAMED = ("csv", "parquet", "frame")  # sources of tables whose columns have names and kinds
_OF_ARRAYS = ("numeric", "integer")  # kinds that a column of an array can have
_CACHED_ROWS = 2048  # number of rows that are encoded at a time; they fit in the cache of a CPU


@dataclasses.dataclass(frozen=True)
class RawTable:
  """The columns of a source's raw rows (see `schema`), before the schema is fitted."""

  names: tuple[str, ...]
  kinds: tuple[str, ...]  # kind of each column, one of `schema.KINDS` but not "ignore"
  # {categorical column: strings of all rows}; the raw value of a row is the position of its string
  vocabularies: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  unused: tuple[str, ...] = ()  # columns of the files that are not inputs
  named: bool = True  # False for an array, whose columns have no names
  zoned: tuple[str, ...] = ()  # columns of dates with time zones
  truths: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)  # {boolean column: `Column.truths`}


def table_of(arrays: dict[str, Any], name: str, kinds: Mapping[str, str], missing: str) -> RawTable | None:
  """Returns the columns of a source's table and removes the key "table" from `arrays`; None if there is no table.

  Arrays [N, columns] of floats are also a table, unless they have masks or targets; arrays of integers and booleans are
  one only if `kinds` or `missing` is set.

  Raises:
    UserError: `kinds` or `missing` is set, but the examples are not a table.
  """
  table = arrays.pop("table", None)
  if table is not None and table.named and name in NAMED:
    return table  # the source has applied `kinds`
  train, is_set = arrays["train"], bool(kinds) or missing != "error"
  is_masked = "train_mask" in arrays or "train_target" in arrays  # a schema must not handle their missing values
  is_array = not is_masked and name in ARRAY_FILES and len(train.shape) == 2 and train.dtype.kind in "biuf"
  if is_set and not (is_array or table):
    key = "columns" if kinds else "missing"
    raise errors.UserError(f"config.data.{key}: is for tables, but config.data.name={name!r} has none; remove it")
  if table is not None:
    return dataclasses.replace(table, kinds=_with_kinds(table.names, kinds))
  if is_array and (is_set or train.dtype.kind == "f"):
    names = tuple(f"column_{position}" for position in range(train.shape[1]))
    return RawTable(names, _with_kinds(names, kinds), named=False)
  return None


def _with_kinds(names: Sequence[str], kinds: Mapping[str, str]) -> tuple[str, ...]:
  """Returns the kind of each column of an array: `kinds[name]` if it is given, otherwise "numeric".

  Raises:
    UserError: `kinds` has an unknown column, or a kind that a column of an array cannot have.
  """
  for name, kind in kinds.items():
    if name not in names:
      raise errors.UserError(f"config.data.columns: there is no column {name!r}; {errors.list_known(name, names)}")
    if kind not in _OF_ARRAYS:
      raise errors.UserError(
        f"config.data.columns: {name}={kind}: the column of an array can only be {' or '.join(_OF_ARRAYS)}; for other "
        "kinds, save the table as a CSV or Parquet file"
      )
  return tuple(kinds.get(name, "numeric") for name in names)


def load_and_check(
  arrays: dict[str, Any], table: RawTable, missing: str, decide: Callable[[int], placements.Placement], where: str
) -> list[str]:
  """Reads raw rows that fit in memory, in place, and returns the notes of `check_complete`."""
  for split in splits.present(arrays):
    count = arrays[split].shape[1]
    if count != len(table.names):
      raise errors.UserError(
        f"{where}: the {split} examples have {remarks.counted(count, 'column')}, but the training examples have "
        f"{len(table.names)}; use the same columns"
      )
  if not decide(lazy_arrays.total_bytes(arrays["train"])).lazy:
    arrays |= {split: lazy_arrays.load_all(arrays[split]) for split in splits.present(arrays)}
  return check_complete(arrays, table, missing, where)


def parse_kinds(columns: Sequence[Any]) -> dict[str, str]:
  """Parses `config.data.columns`, a sequence of strings "NAME=KIND", to {column name: kind}.

  Raises:
    UserError: An entry is invalid.
  """
  example = "a tuple of strings NAME=KIND, such as --config.data.columns=\"'age=integer','code=categorical'\""
  valid = isinstance(columns, tuple | list) and all(isinstance(entry, str) and "=" in entry for entry in columns)
  errors.check(valid, "data.columns", columns, example)
  kinds = dict(entry.rpartition("=")[::2] for entry in columns)
  for name, kind in kinds.items():
    errors.choose(dict.fromkeys(schema.KINDS), kind, f"data.columns: {name}")
  return kinds


def check_complete(arrays: Mapping[str, Any], table: RawTable, missing: str, where: str) -> list[str]:
  """Returns notes about rows in which all values are missing.

  Raises:
    UserError: A raw value is infinite, or values are missing and `missing` is "error".
  """
  notes = []
  for split in splits.present(arrays):
    raw = arrays[split]
    if all(np.isfinite(rows).all() for rows in _cached(raw)):
      continue
    invalid = np.concatenate([np.where(np.isfinite(rows), 0, rows).astype(np.float16) for rows in _blocks(raw)])
    name = f"{where}: {split}" if "test" in arrays else where
    schema.check(invalid, table.names, missing, name)
    found = empty_rows.note(np.isnan(invalid).all(1), missing)
    notes += [f"{name}: {found}"] if found else []
  return notes


def encode(arrays: dict[str, Any], table: RawTable, missing: str, where: str) -> tuple[schema.Schema, list[str]]:
  """Fits a schema to the raw training rows, and encodes the raw rows of all splits as examples, in place.

  With `missing="mask"`, the masks of the observed elements are added as "train_mask", "test_mask", ...

  Returns:
    The schema, and notes about the columns, missing values, and strings that do not occur in the training rows.
  """
  columns, tables_of_words = _fit(arrays["train"], table, missing)
  tables_of_words = {
    position: answers for position, answers in tables_of_words.items() if (answers != np.arange(len(answers))).any()
  }
  fitted = schema.Schema(tuple(columns), missing, table.unused, table.named)
  notes = [f"{where}: {fitted.in_words()}", *_constant(fitted, where)]

  def recoded(raw: Float[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "rows columns"]:
    raw = raw.astype(np.float64, copy=bool(tables_of_words))
    for position, positions in tables_of_words.items():
      known = ~np.isnan(raw[:, position])
      raw[known, position] = positions[raw[known, position].astype(np.intp)]
    return raw

  def examples(raw: Float[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows elements"]:
    x = np.zeros((len(raw), fitted.elements), np.float32)
    lazy_arrays.map_blocks(lambda rows: fitted.encode(recoded(raw[rows]), x[rows]), len(raw), _CACHED_ROWS)
    return x

  for split in splits.present(arrays):
    raw = arrays[split]
    notes += _notes_on_split(raw, tables_of_words, fitted, split, where)
    if missing == "mask":
      arrays[f"{split}_mask"] = lazy_arrays.map_rows(raw, (fitted.elements,), bool, fitted.observed)
    arrays[split] = lazy_arrays.map_rows(raw, (fitted.elements,), np.float32, examples)
  return fitted, notes


def _blocks(raw: lazy_arrays.MaybeLazy) -> Iterator[np.ndarray]:
  """Yields the rows in blocks whose size depends only on the size of a row, so the placement changes no result."""
  return (raw[part] for part in _parts(raw))


def _parts(raw: lazy_arrays.MaybeLazy) -> Iterator[slice]:
  size = max(1, lazy_arrays.PART_BYTES // lazy_arrays.row_bytes(raw))
  return (slice(start, min(start + size, len(raw))) for start in range(0, len(raw), size))


def _cached(raw: lazy_arrays.MaybeLazy) -> Iterator[Float64[np.ndarray, "rows columns"]]:
  """Yields the rows in blocks that fit in the cache of a CPU; the placement does not change the blocks."""
  from_files = isinstance(raw, lazy_arrays.LazyArray) and not raw.in_memory
  for part in _parts(raw):
    rows, first = (raw[part], part.start) if from_files else (raw, 0)  # files are read in large parts
    for start in range(part.start - first, part.stop - first, _CACHED_ROWS):
      block = rows[start : min(start + _CACHED_ROWS, part.stop - first)]
      yield np.ascontiguousarray(block, np.float64)  # the order in memory would change the rounding of sums


class _Statistics(NamedTuple):
  """Statistics of the raw values of each column that are not missing."""

  seen: Float64[np.ndarray, " columns"]  # number of values that are not missing
  means: Float64[np.ndarray, " columns"]
  deviations: Float64[np.ndarray, " columns"]
  least: Float64[np.ndarray, " columns"]  # the first date of a date column; infinite for other columns
  whole: Bool[np.ndarray, " columns"]  # True for date columns whose dates have no time of day
  tallies: dict[int, Int[np.ndarray, " words"]]  # {position of a categorical or boolean column: counts of its values}


def _statistics(raw: lazy_arrays.MaybeLazy, table: RawTable) -> _Statistics:
  """Computes the statistics of raw rows in one pass."""
  tallies = {
    position: np.zeros(max(2, len(table.vocabularies.get(name, ()))), np.int64)
    for position, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True))
    if kind in ("categorical", "boolean")
  }
  seen, sums, squares = np.zeros((3, len(table.names)))
  least = np.full(len(table.names), np.inf)
  shift = np.nan_to_num(raw[:1][0].astype(np.float64))  # avoids cancellation in the variances
  dates = np.array(table.kinds) == "date"
  whole = dates.copy()
  for rows in _cached(raw):
    moved = rows - shift
    gaps = np.isnan(rows) if np.isnan(moved.sum()) else np.zeros(rows.shape, bool)
    moved[gaps] = 0.0
    seen += len(rows) - gaps.sum(0)
    sums, squares = sums + moved.sum(0), squares + np.einsum("ij,ij->j", moved, moved)
    least[dates] = np.fmin(least[dates], np.fmin.reduce(rows[:, dates]))
    days = rows[:, whole]
    whole[whole] = ((days == np.rint(days)) | np.isnan(days)).all(0)
    for position, tally in tallies.items():
      tally += np.bincount(rows[~gaps[:, position], position].astype(np.intp), minlength=len(tally))
  count = np.maximum(seen, 1)
  variances = np.maximum(squares / count - np.square(sums / count), 0.0)
  return _Statistics(seen, shift + sums / count, np.sqrt(variances), least, whole, tallies)


def _fit(
  raw: lazy_arrays.MaybeLazy, table: RawTable, missing: str
) -> tuple[list[schema.Column], dict[int, Int[np.ndarray, " vocabulary"]]]:
  """Returns the fitted columns, and {position of a categorical column: new code of each raw value}.

  The new code is the position in `Column.words`, or len(words) for a string that is not a category.
  """
  found = _statistics(raw, table)
  columns, positions_of_words = [], {}
  for position, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True)):
    words, answers = (), np.arange(2)
    if kind == "categorical":
      words, answers = _words(table.vocabularies[name], found.tallies[position])
      positions_of_words[position] = answers
    fill, spread = float(found.means[position]), float(found.deviations[position])
    if position in found.tallies:
      tally = found.tallies[position]
      fill, spread = float(answers[tally.argmax()]), float(1 - tally.max() / max(1, found.seen[position]))
    first = float(found.least[position]) if kind == "date" and found.seen[position] else 0.0
    indicator = missing == "mean" and bool(found.seen[position] < len(raw))
    truths = table.truths.get(name, (False, True))
    whole = bool(found.whole[position])
    columns.append(schema.Column(name, kind, fill, spread, first, words, indicator, whole, truths))
  return columns, positions_of_words


def _words(vocabulary: Sequence[str], tally: Int[np.ndarray, " vocabulary"]) -> tuple[tuple[str, ...], np.ndarray]:
  """Returns the categories of a column, and the new code of each string of the vocabulary.

  The categories are the at most MOST_WORDS most frequent strings of the training rows; `tally` counts the strings. The
  code is the position among the categories, or the number of categories for other strings.
  """
  kept = np.sort(np.argsort(-tally, kind="stable")[: min(MOST_WORDS, np.count_nonzero(tally))])
  positions = np.full(len(tally), len(kept))
  positions[kept] = np.arange(len(kept))
  return tuple(vocabulary[word] for word in kept), positions


def _constant(fitted: schema.Schema, where: str) -> list[str]:
  """Returns a list with one note that names the columns with a single value in the training rows, or []."""
  names = [column.name for column in fitted.columns if column.spread == 0]
  if not names:
    return []
  listed = value_remarks.listed(names)
  return [f"{where}: constant in the training rows: {listed}; config.data.columns=NAME=ignore leaves out"]


def _notes_on_split(
  raw: Any, tables_of_words: Mapping[int, np.ndarray], fitted: schema.Schema, split: str, where: str
) -> list[str]:
  """Returns notes about missing values in `split`, and about strings that are not categories."""
  gaps, others = np.zeros(len(fitted.columns), int), np.zeros(len(fitted.columns), int)
  if fitted.missing == "error" and not tables_of_words:
    return []
  for rows in _blocks(raw):
    if fitted.missing != "error":
      gaps += np.isnan(rows).sum(0)
    for position, positions in tables_of_words.items():
      codes = rows[:, position]
      known = positions[codes[~np.isnan(codes)].astype(np.intp)]
      others[position] += np.count_nonzero(known == len(fitted.columns[position].words))
  reason = f"beyond the {MOST_WORDS} most frequent" if split == "train" else "not in the training rows"
  return value_remarks.of_counts(gaps, others, fitted, reason, f"{where}: {split}")

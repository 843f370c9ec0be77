"""Fits the schema of a table to its training rows, and encodes the rows of all splits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from ae_jax import errors
from ae_jax.data import empty_rows, lazy_arrays, placements, remarks, schema, splits, table_statistics, value_remarks
from ae_jax.data.kinds import ARRAY_FILES

MOST_WORDS = 100  # maximum number of categories of a column; rarer strings are encoded as `schema.OTHER`
NAMED = ("csv", "parquet", "frame")  # sources of tables whose columns have names and kinds
_OF_ARRAYS = ("numeric", "integer")  # kinds that a column of an array can have


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
    if table_statistics.are_finite(raw):
      continue
    invalid = table_statistics.invalid_values(raw)
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
    lazy_arrays.map_blocks(lambda rows: fitted.encode(recoded(raw[rows]), x[rows]), len(raw), lazy_arrays.CACHED_ROWS)
    return x

  for split in splits.present(arrays):
    raw = arrays[split]
    notes += _notes_on_split(raw, tables_of_words, fitted, split, where)
    if missing == "mask":
      arrays[f"{split}_mask"] = lazy_arrays.map_rows(raw, (fitted.elements,), bool, fitted.observed)
    arrays[split] = lazy_arrays.map_rows(raw, (fitted.elements,), np.float32, examples)
  return fitted, notes


def _fit(
  raw: lazy_arrays.MaybeLazy, table: RawTable, missing: str
) -> tuple[list[schema.Column], dict[int, Int[np.ndarray, " vocabulary"]]]:
  """Returns the fitted columns, and {position of a categorical column: new code of each raw value}.

  The new code is the position in `Column.words`, or len(words) for a string that is not a category.
  """
  tallied = {
    position: max(2, len(table.vocabularies.get(name, ())))
    for position, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True))
    if kind in ("categorical", "boolean")
  }
  found = table_statistics.of_rows(raw, table.kinds, tallied)
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
    has_limits = position not in found.tallies and bool(found.seen[position])
    limits = (float(found.limits[0, position]), float(found.limits[1, position])) if has_limits else None
    first = limits[0] if limits and kind == "date" else 0.0
    indicator = missing == "mean" and bool(found.seen[position] < len(raw))
    truths = table.truths.get(name, (False, True))
    whole = bool(found.whole[position])
    columns.append(schema.Column(name, kind, fill, spread, first, words, indicator, whole, truths, limits))
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
  for rows in (raw[part] for part in table_statistics.parts(raw)):
    if fitted.missing != "error":
      gaps += np.isnan(rows).sum(0)
    for position, positions in tables_of_words.items():
      codes = rows[:, position]
      known = positions[codes[~np.isnan(codes)].astype(np.intp)]
      others[position] += np.count_nonzero(known == len(fitted.columns[position].words))
  reason = f"beyond the {MOST_WORDS} most frequent" if split == "train" else "not in the training rows"
  return value_remarks.of_counts(gaps, others, fitted, reason, f"{where}: {split}")

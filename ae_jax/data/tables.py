"""Data sources for tables in CSV and Parquet files, and for data sets bundled with scikit-learn.

A source returns raw rows (see `ae_jax.data.schema`) as float64 [N, columns], and under the key "table" a `RawTable`
that describes the columns. A file that exceeds the memory budget is converted once to raw rows in the cache folder,
part by part, and streamed from there.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import labels, lazy_arrays, remarks, schema_fit, several_files, splits, truth_words
from ae_jax.system import cache

_SUFFIXES = {"csv": (".csv", ".csv.gz", ".tsv"), "parquet": (".parquet", ".pq")}
_EXPANSION = {"csv": 1, "parquet": 2}  # estimated ratio of the size of the raw rows to the size of the file
_NAMES = {"train": ("train",), "validation": splits.VALIDATION_NAMES, "test": ("test",)}  # split -> names of its file
_CACHE_VERSION = "5"  # changes whenever the contents of the cache change


def files(
  name: str,
  path: str,
  *,
  label: str = "",
  group: str = "",
  columns: tuple = (),
  read_validation: bool = True,
  streams: Callable[[int], bool] = lambda size: False,
) -> dict[str, Any]:
  """Reads a CSV or Parquet file, or a folder with train.csv and possibly test.csv and validation.csv.

  A CSV file begins with a row of column names. Without a test file, the test rows are drawn from the training rows (see
  `draws.divide`). `record_steps` and `record_names` describe several files, as in `series_folders.read`.

  Args:
    name: Name of the source, "csv" or "parquet".
    path: The file or folder, or several files (see `several_files`). File names end with .csv, .csv.gz or .tsv, or with
      .parquet or .pq.
    label: Name of the column of labels; "" for none.
    group: Name of the column with the group of each training row; "" for none.
    columns: `config.data.columns`; see `schema_fit.parse_kinds`.
    read_validation: Whether the validation file of a folder is read.
    streams: Function that maps the size of the rows in bytes to whether they exceed the memory budget.

  Raises:
    UserError: A file is missing or damaged, or a value cannot be converted to the kind of its column.
  """
  keys, kinds = _keys_and_kinds(label, group, columns)
  splits.check_path(name, path, f"{name} file, or folder with train{_SUFFIXES[name][0]},")
  where = f"config.data.path={path!r}"
  paths, notes = _files(name, path, where, read_validation)
  in_files = streams(sum(os.path.getsize(file) for each in paths.values() for file in each) * _EXPANSION[name])
  readers = {split: several_files.tables(name, file, kinds, where, in_files) for split, file in paths.items()}
  version = json.dumps(
    [_CACHE_VERSION, name, keys, kinds, {split: list(map(_version, each)) for split, each in paths.items()}]
  )
  if not in_files:
    return _in_memory({split: list(read()) for split, read in readers.items()}, keys, kinds, notes, where)
  scanned = cache.arrays(f"{name}-columns", version, lambda: _pack(_scan(readers, keys, kinds, where)))
  description, arrays = _unpack(scanned), {}
  for split, read in readers.items():
    fill = functools.partial(_fill, read, description["columns"], f"{where}: {split}")
    shape = (description["counts"][split], len(description["columns"]))
    stored = cache.memory_map(f"{name}-{split}", version, shape, np.float64, fill)
    arrays[split] = lazy_arrays.LazyArray(shape, np.dtype(np.float64), functools.partial(_rows_of, stored))
  return _with_answers(arrays, description, notes, where)


def of_frames(
  frames: Mapping[str, Any], where: str, *, label: str = "", group: str = "", columns: tuple = ()
) -> dict[str, Any]:
  """Converts DataFrames to the arrays of a data source; `frames` is {split: DataFrame}.

  `where` is the prefix of messages; see `files` for the other arguments.
  """
  keys, kinds = _keys_and_kinds(label, group, columns)
  return _in_memory({split: [frame] for split, frame in frames.items()}, keys, kinds, [], where)


def _in_memory(
  parts: Mapping[str, list[Any]], keys: Mapping[str, str], kinds: Mapping[str, str], notes: list[str], where: str
) -> dict[str, Any]:
  """Converts the DataFrames of each split to the arrays of a data source; `parts` is {split: DataFrames}."""
  from ae_jax.data import frames

  readers = {split: functools.partial(iter, each) for split, each in parts.items()}
  description, arrays = _scan(readers, keys, kinds, where), {}
  for split, read in readers.items():
    if len(parts[split]) == 1:
      arrays[split] = frames.shared_or_raw_rows(parts[split][0], description["columns"], f"{where}: {split}")
      continue
    arrays[split] = np.empty((description["counts"][split], len(description["columns"])))
    _fill(read, description["columns"], f"{where}: {split}", arrays[split])
  return _with_answers(arrays, description, notes, where)


def _keys_and_kinds(label: str, group: str, columns: tuple) -> tuple[dict[str, str], dict[str, str]]:
  """Returns {"label": column, "group": column} (columns that are not inputs), and {column: kind} from `columns`."""
  kinds = schema_fit.parse_kinds(columns)
  keys = {key: column for key, column in (("label", label), ("group", group)) if column}
  for key, column in keys.items():
    if kinds.get(column, "ignore") != "ignore":
      raise errors.UserError(f"config.data.columns: {column!r} is the column of config.data.{key}; remove its kind")
  return keys, kinds


def bundled(name: str, path: str) -> dict[str, Any]:
  """Loads a data set bundled with scikit-learn: breast_cancer [569, 30], wine [178, 13] or diabetes [442, 10].

  The labels of breast_cancer and wine are their classes; the last fifth of each class is the test set. diabetes has no
  classes; a random fifth is the test set.
  """
  splits.check_no_path(name, path)
  from sklearn import datasets

  bunch = {
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
  }[name]()
  has_classes = "target_names" in bunch
  held_out = (
    splits.last_of_each_class(bunch.target, 1 / 5)
    if has_classes
    else splits.drawn(len(bunch.data), splits.share_of(len(bunch.data), 1 / 5), 0)
  )
  table = schema_fit.RawTable(tuple(map(str, bunch.feature_names)), ("numeric",) * bunch.data.shape[1])
  arrays = splits.train_and_test(bunch.data, bunch.target if has_classes else None, held_out)
  names = tuple(map(str, bunch.target_names)) if has_classes else None
  return arrays | {"table": table, "class_names": names}


FILES: dict[str, Callable[..., dict[str, Any]]] = dict.fromkeys(("csv", "parquet"), files)
BUNDLED = ("breast_cancer", "wine", "diabetes")


def matches(name: str, path: pathlib.Path) -> bool:
  """Returns whether a path is a file that the source `name` reads, or a folder with such a training file."""
  names = [*remarks.visible(path)] if path.is_dir() else [path.name]
  ends = tuple(("train" if path.is_dir() else "") + suffix for suffix in _SUFFIXES[name])
  return any(found.endswith(ends) for found in names)


def first_rows(name: str, path: str) -> Any:
  """Reads the first training rows of a file or folder as a DataFrame; `name` is a key of `FILES`."""
  where = f"config.data.path={path!r}"
  train = _files(name, path, where, read_validation=False)[0]["train"]
  return next(several_files.tables(name, train, {}, where, streamed=True)())


def rows_of(name: str, path: str, kinds: Mapping[str, str], where: str) -> Iterator[Any]:
  """Yields the rows of a file as DataFrames of limited size; `name` is a key of `FILES`, `kinds` is {column: kind}."""
  return several_files.tables(name, [path], kinds, where, streamed=True)()


def _rows_of(stored: np.ndarray, rows: np.ndarray) -> np.ndarray:
  return np.asarray(stored[rows])


def _files(name: str, path: str, where: str, read_validation: bool) -> tuple[dict[str, list[str]], list[str]]:
  """Returns {split: files}, and notes about several files, or about files of the folder that are not read."""
  train = several_files.of_path(path)
  if not os.path.exists(train[0]):
    raise errors.UserError(f"{where}: file not found; check the path")
  if not os.path.isdir(path):
    return {"train": train}, several_files.note(train, where)
  names = sorted(remarks.visible(path))
  found = {}
  for split, stems in _NAMES.items():
    if split == "validation" and not read_validation:
      continue
    present = [stem + suffix for stem in stems for suffix in _SUFFIXES[name] if stem + suffix in names]
    if len(present) > 1:
      raise errors.UserError(f"{where}: contains both {present[0]} and {present[1]}; keep one of them")
    found |= {split: present[0]} if present else {}
  if "train" not in found:
    raise errors.UserError(
      f"{where}: contains no train{_SUFFIXES[name][0]}; rename the training file, or set config.data.path to it"
    )
  notes = remarks.not_read(
    where, set(names) - set(found.values()), f"the files that are read are {', '.join(found.values())}"
  )
  return {split: [str(pathlib.Path(path, file))] for split, file in found.items()}, notes


def _version(file: str) -> list[Any]:
  status = os.stat(file)
  return [os.path.realpath(file), status.st_size, status.st_mtime_ns]


def _scan(
  readers: Mapping[str, Callable[[], Iterator[Any]]], keys: Mapping[str, str], kinds: Mapping[str, str], where: str
) -> dict[str, Any]:
  """Reads all rows once; returns a description of the table, with its labels and groups.

  The training file determines the kinds of the columns. Groups are read from the training file only.

  Args:
    readers: {split: function that yields the rows as DataFrames}.
    keys: {"label": column, "group": column}, the columns that are not inputs.
    kinds: {column: kind} that the user has set.
    where: Prefix of messages.

  Returns:
    {"columns": [(name, kind, words), ...], "unused": columns that are not inputs, "counts": {split: number of rows},
    "files": {split: {file: number of its rows}}, "answers": {"train_label": labels, ...}, "notes": notes}. The words
    are the categories, how a boolean column spells false and true, or "UTC" for dates with time zones.
  """
  from ae_jax.data import table_files

  found = {}
  for split, read in readers.items():
    place = f"{where}: {split}" if len(readers) > 1 else where
    needed = {key: name for key, name in keys.items() if split == "train" or key != "group"}
    unused = {name: "ignore" for name in keys.values() if name not in needed.values()}
    found[split] = table_files.scan(read(), needed, {**kinds, **unused}, place)
  columns, notes = [], []
  for name, (kind, reason, _) in table_files.kinds_of(found["train"].columns, kinds, where).items():
    if kind == "ignore":
      notes.append(f"{where}: column {name!r} {reason}: not used; --config.data.columns=\"'{name}=KIND',\" uses it")
      continue
    words = set().union(*(each.columns[name].words for each in found.values() if name in each.columns))
    scan = found["train"].columns[name]
    truths = list(truth_words.pair(scan.words) or ()) if kind == "boolean" else ["UTC"] * scan.has_zone
    columns.append((name, kind, sorted(words) if kind == "categorical" else truths))
  answers = {f"{split}_{key}": values for split, each in found.items() for key, values in each.answers.items()}
  names, of_files = ({split: getattr(each, field) for split, each in found.items()} for field in ("names", "rows"))
  counts = {split: sum(rows.values()) for split, rows in of_files.items()}
  if not columns:
    raise errors.UserError(f"{where}: no column can be used; set the kinds of the inputs in config.data.columns")
  used = [name for name, _, _ in columns]
  for name in kinds:
    if name not in names["train"]:
      few = ", ".join(names["train"][:20]) + (", ..." if len(names["train"]) > 20 else "")
      raise errors.UserError(f"config.data.columns: the training file has no column {name!r}; it has the columns {few}")
  for split, present in names.items():
    if missing := [name for name in used if name not in present]:
      raise errors.UserError(f"{where}: the {split} file has no column {missing[0]!r}; add it")
    notes += remarks.not_read(
      f"{where}: {split}", set(present) - set(names["train"]), "the training file has no such columns"
    )
  unused = [name for name in names["train"] if name not in used]
  return {"columns": columns, "unused": unused, "counts": counts, "files": of_files, "answers": answers, "notes": notes}


def _fill(read: Callable[[], Iterator[Any]], columns: Any, where: str, raw: np.ndarray) -> None:
  """Reads a file and writes its raw rows to `raw`."""
  from ae_jax.data import frames

  row = 0
  for frame in read():
    frames.raw_rows(frame, columns, row, where, raw[row : row + len(frame)])
    row += len(frame)


def _with_answers(
  arrays: dict[str, Any], description: Mapping[str, Any], notes: list[str], where: str
) -> dict[str, Any]:
  """Adds labels, groups, the `RawTable` and notes from `description`, a result of `_scan`, to the raw rows."""
  columns = description["columns"]
  vocabularies = {name: words for name, kind, words in columns if kind == "categorical"}
  table = schema_fit.RawTable(
    tuple(name for name, _, _ in columns),
    tuple(kind for _, kind, _ in columns),
    vocabularies,
    tuple(description["unused"]),
    zoned=tuple(name for name, kind, words in columns if kind == "date" and words),
    truths={name: tuple(words) for name, kind, words in columns if kind == "boolean" and words},
  )
  answers = description["answers"]
  given = {split: answers[f"{split}_label"] for split in splits.present(arrays) if f"{split}_label" in answers}
  integers, class_names, label_notes = labels.as_integers(given, where)
  arrays |= {f"{split}_labels": values for split, values in integers.items()}
  arrays |= {"train_group": answers["train_group"]} if "train_group" in answers else {}
  count = len(arrays["train"])
  if "test" not in arrays and count < 3:
    raise errors.UserError(
      f"{where}: has only {remarks.counted(count, 'row')}, too few to hold out a test set; provide at least 3, or add "
      "a test file"
    )
  arrays |= several_files.as_recordings(description["files"])
  return arrays | {"table": table, "class_names": class_names, "remarks": [*notes, *description["notes"], *label_notes]}


def _pack(description: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Converts a result of `_scan` to arrays, which the cache can store."""
  texts = json.dumps({key: value for key, value in description.items() if key != "answers"})
  return {"json": np.frombuffer(texts.encode(), np.uint8)} | description["answers"]


def _unpack(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  """Inverts `_pack`."""
  return json.loads(arrays.pop("json").tobytes()) | {"answers": arrays}

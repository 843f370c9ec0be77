"""Data sources for tables in CSV and Parquet files, and for the tables that scikit-learn contains.

A source returns raw rows (see `ae_jax.data.schema`) as float64 [N, columns], and "table", the `RawTable` that describes
the columns. Files that exceed the memory budget are converted to raw rows part by part, once, in the cache folder, and
streamed from there.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import labels, lazy_arrays, remarks, schema_fit, splits
from ae_jax.system import cache

_SUFFIXES = {"csv": (".csv", ".csv.gz", ".tsv"), "parquet": (".parquet", ".pq")}
_EXPANSION = {"csv": 1, "parquet": 2}  # estimated ratio of the size of the raw rows to the size of the file
_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}  # of files in a folder
_CACHE_VERSION = "1"  # changes whenever the contents of the cache change


def csv(
  name: str, path: str, *, label: str = "", columns: tuple = (), streams: Callable[[int], bool] = lambda size: False
) -> dict[str, Any]:
  """Reads a CSV file with a row of names, or a folder with train.csv and possibly test.csv and validation.csv.

  Without a test file, the test rows are drawn from the rows (see `draws.divide`).

  Args:
    name: Name of the source.
    path: The file or folder. The names may end in .csv, .csv.gz or .tsv.
    label: Name of the column of labels; "" for none.
    columns: `config.data.columns`; see `schema_fit.parse_kinds`.
    streams: Returns whether rows of this size in bytes exceed the memory budget.

  Raises:
    UserError: A file is missing or damaged, or a value does not fit its column.
  """
  return _read(name, path, label, columns, streams)


def parquet(
  name: str, path: str, *, label: str = "", columns: tuple = (), streams: Callable[[int], bool] = lambda size: False
) -> dict[str, Any]:
  """Reads a Parquet file, or a folder with train.parquet and possibly test.parquet; see `csv`."""
  return _read(name, path, label, columns, streams)


def bundled(name: str, path: str) -> dict[str, Any]:
  """Loads a table that scikit-learn contains: breast_cancer [569, 30], wine [178, 13] or diabetes [442, 10].

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
  arrays = splits.split(bunch.data, bunch.target if has_classes else None, held_out)
  names = tuple(map(str, bunch.target_names)) if has_classes else None
  return arrays | {"table": table, "class_names": names}


FILES: dict[str, Callable[..., dict[str, Any]]] = {"csv": csv, "parquet": parquet}
BUNDLED = ("breast_cancer", "wine", "diabetes")


def _read(name: str, path: str, label: str, columns: tuple, streams: Callable[[int], bool]) -> dict[str, Any]:
  kinds = schema_fit.parse_kinds(columns)
  splits.check_path(name, path, f"{name} file, or folder with train{_SUFFIXES[name][0]},")
  where = f"config.data.path={path!r}"
  files, notes = _files(name, path, where)
  in_files = streams(sum(os.path.getsize(file) for file in files.values()) * _EXPANSION[name])
  frames = {half: _frames(name, file, kinds, where, in_files) for half, file in files.items()}
  version = json.dumps([_CACHE_VERSION, name, label, kinds, [_version(file) for file in files.values()]])
  if in_files:
    scanned = cache.arrays(f"{name}-columns", version, lambda: _pack(_scan(frames, label, kinds, where)))
    described = _unpack(scanned)
  else:
    frames = {half: functools.partial(iter, list(read())) for half, read in frames.items()}
    described = _scan(frames, label, kinds, where)
  arrays = {}
  for half, read in frames.items():
    fill = functools.partial(_fill, read, described["columns"], f"{where}: {half}")
    shape = (described["counts"][half], len(described["columns"]))
    if not in_files:
      arrays[half] = np.empty(shape)
      fill(arrays[half])
      continue
    stored = cache.memory_map(f"{name}-{half}", version, shape, np.float64, fill)
    arrays[half] = lazy_arrays.LazyArray(shape, np.dtype(np.float64), functools.partial(_rows_of, stored))
  return _with_labels(arrays, described, notes, where)


def _rows_of(stored: np.ndarray, rows: np.ndarray) -> np.ndarray:
  return np.asarray(stored[rows])


def _files(name: str, path: str, where: str) -> tuple[dict[str, str], list[str]]:
  """Returns the file of each half, and remarks about files of a folder that are not read."""
  if not os.path.exists(path):
    raise errors.UserError(f"{where}: file not found; check the path")
  if not os.path.isdir(path):
    return {"train": path}, []
  names = sorted(remarks.visible(path))
  files = {}
  for half, stems in _NAMES.items():
    present = [stem + suffix for stem in stems for suffix in _SUFFIXES[name] if stem + suffix in names]
    if len(present) > 1:
      raise errors.UserError(f"{where}: contains both {present[0]} and {present[1]}; keep one of them")
    files |= {half: present[0]} if present else {}
  if "train" not in files:
    raise errors.UserError(f"{where}: contains no train{_SUFFIXES[name][0]}; name the file, or rename it")
  notes = remarks.not_read(
    where, set(names) - set(files.values()), f"the files that are read are {', '.join(files.values())}"
  )
  return {half: str(pathlib.Path(path, file)) for half, file in files.items()}, notes


def _version(file: str) -> list[Any]:
  status = os.stat(file)
  return [os.path.realpath(file), status.st_size, status.st_mtime_ns]


def _frames(name: str, file: str, kinds: Mapping[str, str], where: str, streamed: bool) -> Callable[[], Iterator[Any]]:
  """Returns the function that reads a file as DataFrames."""
  from ae_jax.data import frames  # pandas takes half a second to import

  read = {"csv": frames.read_csv, "parquet": frames.read_parquet}[name]
  return lambda: read(
    file, kinds, where if os.path.basename(file) in where else f"{where}: {os.path.basename(file)}", streamed
  )


def _scan(
  readers: Mapping[str, Callable[[], Iterator[Any]]], label: str, kinds: Mapping[str, str], where: str
) -> dict[str, Any]:
  """Returns the columns, the number of rows, the labels and remarks, from one pass over the files.

  The kinds of the columns are those of the training file.
  """
  from ae_jax.data import frames

  found, values, counts, names = {}, {}, {}, {}
  for half, read in readers.items():
    place = f"{where}: {half}" if len(readers) > 1 else where
    found[half], values[half], counts[half], names[half] = frames.scan(read(), label, kinds, place)
  columns, notes = [], []
  for name, column in found["train"].items():
    kind, reason = (kinds[name], "") if name in kinds else column.kind(name, where)
    if kind == "ignore":
      notes.append(f"{where}: column {name!r} {reason}: not used; --config.data.columns=\"'{name}=KIND',\" uses it")
      continue
    words = set().union(*(half[name].words for half in found.values() if name in half))
    columns.append((name, kind, sorted(words) if kind == "categorical" else []))
  if not columns:
    raise errors.UserError(f"{where}: no column can be used; name their kinds in config.data.columns")
  used = [name for name, _, _ in columns]
  for name in kinds:
    errors.check(name in names["train"], "data.columns", f"{name}=...", f"columns of the file: {_few(names['train'])}")
  for half, present in names.items():
    if missing := [name for name in used if name not in present]:
      raise errors.UserError(f"{where}: the {half} file has no column {missing[0]!r}; add it")
    notes += remarks.not_read(
      f"{where}: {half}", set(present) - set(names["train"]), "the training file has no such columns"
    )
  unused = [name for name in names["train"] if name not in used]
  joined = {half: np.concatenate(parts) for half, parts in values.items() if parts}
  return {"columns": columns, "unused": unused, "counts": counts, "labels": joined, "notes": notes}


def _few(names: Any) -> str:
  return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _fill(read: Callable[[], Iterator[Any]], columns: Any, where: str, raw: np.ndarray) -> None:
  """Writes the raw rows of a file into `raw`."""
  from ae_jax.data import frames

  row = 0
  for frame in read():
    raw[row : row + len(frame)] = frames.raw_rows(frame, columns, row, where)
    row += len(frame)


def _with_labels(arrays: dict[str, Any], described: Mapping[str, Any], notes: list[str], where: str) -> dict[str, Any]:
  """Returns the result of a source: raw rows, labels, the columns and remarks."""
  columns = described["columns"]
  vocabularies = {name: words for name, kind, words in columns if kind == "categorical"}
  table = schema_fit.RawTable(
    tuple(name for name, _, _ in columns),
    tuple(kind for _, kind, _ in columns),
    vocabularies,
    tuple(described["unused"]),
  )
  integers, class_names, label_notes = labels.as_integers(described["labels"], where)
  arrays |= {f"{half}_labels": values for half, values in integers.items()}
  count = len(arrays["train"])
  if "test" not in arrays and count < 3:
    raise errors.UserError(f"{where}: has {remarks.counted(count, 'row')}; provide at least 3, or add a test file")
  return arrays | {"table": table, "class_names": class_names, "remarks": [*notes, *described["notes"], *label_notes]}


def _pack(described: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns the result of `_scan` as arrays for the cache."""
  texts = json.dumps({key: value for key, value in described.items() if key != "labels"})
  return {"json": np.frombuffer(texts.encode(), np.uint8)} | described["labels"]


def _unpack(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  """Returns the result of `_scan` from the arrays of `_pack`."""
  texts = arrays.pop("json").tobytes().decode()
  return json.loads(texts) | {"labels": arrays}

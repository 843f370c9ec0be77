"""Reads files of new examples for a trained run: images, tables and arrays, without a division into halves."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import archives, folders, hdf5, image_sets, lazy_arrays, ranges, remarks, tables
from ae_jax.data.schema import Schema
from ae_jax.system import paths


class Part(NamedTuple):
  """Examples that are read at a time."""

  names: Sequence[str]  # path of the file in the folder, value of the column of names, or number of the row
  x: Any  # examples [N, *shape], or a DataFrame, for the methods of a run


class NewFiles(NamedTuple):
  """Examples of a path."""

  parts: Iterator[Part]
  remarks: list[str]  # about files, columns and arrays that are not read, and about images that are changed


class Wanted(NamedTuple):
  """Shape, range and columns of the examples of a run, and the config section with the options for reading files."""

  shape: tuple[int, ...]  # of an example
  value_range: str  # config.data.range
  schema: Schema | None  # columns of a table
  section: Mapping[str, Any]  # config.data


def read(path: str, wanted: Wanted, *, names: str = "", array: str = "") -> NewFiles:
  """Returns the examples of a file or folder.

  Args:
    path: A folder of images or a single image, a CSV or Parquet file, or a file of arrays (npz, npy, HDF5).
    wanted: What the run needs.
    names: Name of the column of a table with the names of the rows; "" for their numbers.
    array: Name of the array in a file of arrays; "" for the only one whose rows have the shape of an example.

  Raises:
    UserError: The path is missing or of an unknown kind, a file is damaged, or it does not fit the run.
  """
  where, file = f"--data={path}", pathlib.Path(path)
  if not file.exists():
    raise errors.UserError(f"{where}: file or folder not found; check the path")
  for key in ("window", "patch"):
    if wanted.section[key]:
      raise errors.UserError(
        f"{where}: the run has config.data.{key}={wanted.section[key]}, which is not applied to new files; cut "
        "the examples in Python, and use the methods of ae_jax.load(workdir)"
      )
  name = next((name for name, matches in _KINDS.items() if matches(file)), None)
  if name is None:
    known = "a folder of images, an image, or a file .csv, .csv.gz, .tsv, .parquet, .pq, .npz, .npy, .h5"
    raise errors.UserError(f"{where}: is of no known kind; pass {known}")
  for argument, value, taken in (("names", names, tables.FILES), ("array", array, _ARRAYS)):
    if value and name not in taken:
      raise errors.UserError(f"--{argument}={value}: is not used for {where}, which is read as {name}; remove it")
  if name in tables.FILES:
    return _of_table(name, path, wanted, names, where)
  return _of_images(path, wanted, where) if name == "folder" else _of_arrays(name, path, wanted, array, where)


def _of_images(path: str, wanted: Wanted, where: str) -> NewFiles:
  """Reads images, which get the size and the channels of the examples of the run."""
  section, shape, root = wanted.section, wanted.shape, pathlib.Path(path)
  if len(shape) != 3:
    raise errors.UserError(f"{where}: holds images, but the run takes examples of shape {list(shape)}")
  if shape[2] > 4:
    raise errors.UserError(f"{where}: image files have at most 4 channels, but the run takes {shape[2]}; pass an array")
  options = {key: section[key] for key in ("fit", "exif_orientation", "follow_links")}
  chosen = image_sets.options(size=shape[:2], channels=shape[2], on_bad="skip", **options)
  files, skipped, version = folders.files_under(root, chosen.follow_links)
  notes = remarks.not_read(where, remarks.by_suffix(skipped), "these files have no supported image suffix")
  kept, headers, left_out = image_sets.readable({"new": files}, chosen, version, where)
  images = kept["new"]
  if not images:
    raise errors.UserError(f"{where}: no readable image; {'; '.join([*notes, *left_out]) or 'the folder is empty'}")
  layout = image_sets.common_layout(headers, images, chosen, where)
  lazy = image_sets.images(images, layout, chosen, version, lambda: None)
  if layout.scaled:
    lazy = lazy_arrays.map_rows(lazy, lazy.shape[1:], np.float32, lambda x: ranges.from_unit(x, wanted.value_range))
  names = [paths.relative_name(file, root) if root.is_dir() else root.name for file in images]
  return NewFiles(_parts(lazy, names), notes + left_out + image_sets.changes(headers, images, chosen, where))


def _of_table(name: str, path: str, wanted: Wanted, names: str, where: str) -> NewFiles:
  """Reads a table; columns that the run does not know are left out."""
  schema = wanted.schema
  if schema is None or not schema.named:
    raise errors.UserError(f"{where}: is a table, but the run was not trained on a table with named columns")
  kinds_of = {column.name: column.kind for column in schema.columns} | ({names: "categorical"} if names else {})
  parts = tables.rows_of(name, path, kinds_of, where)
  first = next(parts, None)
  if first is None or not len(first):
    raise errors.UserError(f"{where}: has no rows")
  used = [column.name for column in schema.columns]
  if names and names not in first.columns:
    raise errors.UserError(f"--names={names}: is no column of {where}; {errors.list_known(names, list(first.columns))}")
  unread = {*map(str, first.columns)} - {*used, names} - {*schema.unused}
  notes = remarks.not_read(where, unread, "the run was trained without such columns")

  def of_frames() -> Iterator[Part]:
    row, frame = 0, first
    while frame is not None:
      labels = frame[names] if names else range(row, row + len(frame))
      yield Part([str(label) for label in labels], frame[[column for column in used if column in frame.columns]])
      row += len(frame)
      frame = next(parts, None)

  return NewFiles(of_frames(), notes)


def _of_arrays(name: str, path: str, wanted: Wanted, array: str, where: str) -> NewFiles:
  """Reads an array of a file, whose rows have the shape of an example; the axis of channels may be missing."""
  stored = _ARRAYS[name](path, where)
  fitting = [key for key, values in stored.items() if _fits(values, wanted)]
  listed = ", ".join(f"{key} {list(values.shape)}" for key, values in stored.items()) or "no array"
  if array and array not in stored:
    raise errors.UserError(f"--array={array}: is no array of {where}; it contains {listed}")
  if not array and len(fitting) != 1:
    problem = "several arrays have" if fitting else "no array has"
    raise errors.UserError(
      f"{where}: {problem} rows of shape {list(wanted.shape)}, as the run needs; it contains {listed}. "
      f"{'Name one with --array' if fitting else 'Save one array [N, ...]'}"
    )
  key = array or fitting[0]
  notes = remarks.not_read(where, {*stored} - {key}, f"the array that is read is {key}")
  values = stored[key]
  if _is_channels_first(values, wanted):
    move = lambda rows: np.moveaxis(rows, 1, -1)
    values = lazy_arrays.map_rows(values, wanted.shape, values.dtype, move)
  values = lazy_arrays.load_all(values)
  return NewFiles(_parts(values, [str(row) for row in range(len(values))]), notes)


def _fits(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  row, shape = values.shape[1:], wanted.shape
  is_table = wanted.schema is not None and row == (len(wanted.schema.columns),)
  without_channels = shape[-1] == 1 and row == shape[:-1] and len(shape) > 1
  return row == shape or without_channels or is_table or _is_channels_first(values, wanted)


def _is_channels_first(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  first = (wanted.shape[-1], *wanted.shape[:-1])
  return wanted.section["layout"] == "nchw" and len(first) == 3 and values.shape[1:] == first


def _parts(values: lazy_arrays.MaybeLazy, names: Sequence[str]) -> Iterator[Part]:
  """Yields the rows of an array in parts of limited size, with their names."""
  row = 0
  for part in lazy_arrays.parts(values, np.arange(len(values))):
    yield Part(names[row : row + len(part)], part)
    row += len(part)


_ARRAYS: dict[str, Callable[[str, str], dict[str, lazy_arrays.LazyArray]]] = {
  "npz": archives.arrays_of,
  "npy": lambda path, where: {"x": archives.array_of(path, where)},
  "hdf5": hdf5.arrays_of,
}
# kind of a path -> function that returns whether it is of this kind, in the order of trial
_KINDS: dict[str, Callable[[pathlib.Path], bool]] = {
  "npz": lambda path: path.suffix == ".npz",
  "npy": lambda path: path.suffix == ".npy",
  "hdf5": lambda path: path.suffix in (".h5", ".hdf5", ".hdf"),
  **{
    name: functools.partial(lambda name, path: path.is_file() and tables.matches(name, path), name)
    for name in tables.FILES
  },
  "folder": lambda path: path.is_dir() or path.suffix.lower() in folders.SUFFIXES,
}

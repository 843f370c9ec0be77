"""Reads files of new examples for a trained run: images, tables and arrays, without splitting them."""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import (
  archives,
  folders,
  hdf5,
  image_sets,
  lazy_arrays,
  new_cuts,
  ranges,
  remarks,
  series_folders,
  tables,
)
from ae_jax.data.schema import Schema
from ae_jax.system import paths


class Part(NamedTuple):
  """A batch of examples that is read at once."""

  names: Sequence[str]  # per example: path of the file in the folder, entry of the column of names, or row number
  x: Any  # examples [N, *shape], or a DataFrame, for the methods of a run


class NewFiles(NamedTuple):
  """All examples of a file or folder."""

  parts: Iterator[Part]
  remarks: list[str]  # messages about files, columns and arrays that are not read, and about converted images


class Wanted(NamedTuple):
  """Properties of examples that are compatible with a run, and the config section with the options for reading."""

  shape: tuple[int, ...]  # of an example
  value_range: str  # config.data.range
  schema: Schema | None  # columns of a table
  section: Mapping[str, Any]  # config.data


def read(path: str, wanted: Wanted, *, names: str = "", array: str = "") -> NewFiles:
  """Returns the examples of a file or folder.

  Args:
    path: A folder of images or a single image, a CSV or Parquet file, or a file of arrays (npz, npy, HDF5).
    wanted: Properties of the examples of the run.
    names: Column of a table that contains the names of the rows; "" to name the rows by their number.
    array: Name of the array in a file of arrays; "" for the only array whose rows have the shape of an example.

  Raises:
    UserError: The path does not exist or has an unsupported file type, or a file is damaged or not compatible with the
      run.
  """
  where, file = f"--data={path}", pathlib.Path(path)
  if not file.exists():
    raise errors.UserError(f"{where}: file or folder not found; check the path")
  name = next((name for name, matches in _KINDS.items() if matches(file)), None)
  if name is None:
    known = "a folder of images, an image, or a file .csv, .csv.gz, .tsv, .parquet, .pq, .npz, .npy, .h5"
    raise errors.UserError(f"{where}: unsupported file type; pass {known}")
  for argument, value, taken in (("names", names, tables.FILES), ("array", array, _ARRAYS)):
    if value and name not in taken:
      raise errors.UserError(f"--{argument}={value}: is not used for {where}, which is read as {name}; remove it")
  if name in tables.FILES:
    return _of_table(name, path, wanted, names, where)
  if name == "folder":
    return (_of_records if wanted.section["window"] else _of_images)(path, wanted, where)
  return _of_arrays(name, path, wanted, array, where)


def _of_images(path: str, wanted: Wanted, where: str) -> NewFiles:
  """Reads images, converts them to the size and channels of the training images, and cuts them into patches if set."""
  section, shape, root = wanted.section, wanted.shape, pathlib.Path(path)
  if len(shape) != 3:
    raise errors.UserError(
      f"{where}: holds images, but the model of the run expects examples of shape {list(shape)}; pass examples of this "
      "shape"
    )
  if shape[2] > 4:
    raise errors.UserError(
      f"{where}: image files have at most 4 channels, but the model of the run expects {shape[2]} channels; pass an "
      "array"
    )
  options = {key: section[key] for key in ("fit", "exif_orientation", "follow_links")}
  size = section["size"] if section["patch"] else shape[:2]
  chosen = image_sets.options(size=size, channels=shape[2], on_bad="skip", **options)
  files, skipped, version = folders.files_under(root, chosen.follow_links)
  notes = remarks.not_read(where, remarks.by_suffix(skipped), "these files have no supported image suffix")
  kept, headers, left_out = image_sets.readable({"new": files}, chosen, version, where)
  images = kept["new"]
  if not images:
    raise errors.UserError(f"{where}: no readable image; {'; '.join([*notes, *left_out]) or 'the folder is empty'}")
  cuts = []
  for group in _of_equal_size(list(zip(images, headers, strict=True)), chosen):
    files, of_group = zip(*group, strict=True)
    layout = image_sets.common_layout(of_group, files, chosen, where)
    lazy = image_sets.images(files, layout, chosen, version, lambda: None)
    if layout.scaled:
      lazy = lazy_arrays.map_rows(lazy, lazy.shape[1:], np.float32, lambda x: ranges.from_unit(x, wanted.value_range))
    names = [paths.relative_name(file, root) if root.is_dir() else root.name for file in files]
    cuts.append(new_cuts.of_images(lazy, names, section))
  return _joined(cuts, notes + left_out + image_sets.changes(headers, images, chosen, where), where, section)


def _of_equal_size(images: list[tuple[str, Any]], chosen: image_sets.Options) -> list[list[tuple[str, Any]]]:
  """Groups consecutive (path, header) pairs of equal image size; a single group if the images are resized."""
  size = lambda pair: chosen.preparation.size or (pair[1].height, pair[1].width)
  return [[*group] for _, group in itertools.groupby(images, size)]


def _of_records(path: str, wanted: Wanted, where: str) -> NewFiles:
  """Reads a folder of .npy files, one recording per file, and cuts the recordings into windows."""
  records, labels, unread = series_folders.files_in(pathlib.Path(path), where)
  unread += [f"{name}_labels.npy" for name in labels]
  for name, record in records.items():
    if record.shape[1] != wanted.shape[1]:
      channels, expected = (remarks.counted(count, "channel") for count in (record.shape[1], wanted.shape[1]))
      raise errors.UserError(
        f"{where}: {name}.npy has {channels}, but the model of the run expects {expected}; convert or remove it"
      )
  cuts = [new_cuts.of_records(record, f"{name}.npy", wanted.section) for name, record in records.items()]
  return _joined(cuts, remarks.not_read(where, unread, "only recordings are read"), where, wanted.section)


def _joined(cuts: Sequence[new_cuts.Cut], notes: list[str], where: str, section: Mapping[str, Any]) -> NewFiles:
  """Joins the examples of all cuts; raises UserError if all files or rows are smaller than a window or patch."""
  key, examples = ("window", "recordings") if section["window"] else ("patch", "images")
  small = [source for cut in cuts if not cut.names for source in cut.sources]
  if small and len(small) == sum(len(cut.sources) for cut in cuts):
    raise errors.UserError(
      f"{where}: all {examples} are smaller than config.data.{key}={section[key]} of the run; pass larger ones"
    )
  notes = notes + remarks.not_read(where, small, f"these are smaller than config.data.{key}={section[key]}")
  return NewFiles(itertools.chain.from_iterable(_parts(cut.x, cut.names) for cut in cuts if cut.names), notes)


def _of_table(name: str, path: str, wanted: Wanted, names: str, where: str) -> NewFiles:
  """Reads a table without the columns that are not inputs of the run."""
  schema = wanted.schema
  if schema is None or not schema.named:
    raise errors.UserError(
      f"{where}: is a table, but the run was not trained on a table with named columns; pass a file of arrays"
    )
  kinds_of = {column.name: column.kind for column in schema.columns} | ({names: "categorical"} if names else {})
  parts = tables.rows_of(name, path, kinds_of, where)
  first = next(parts, None)
  if first is None or not len(first):
    raise errors.UserError(f"{where}: has no rows; provide at least one")
  used = [column.name for column in schema.columns]
  if names and names not in first.columns:
    known = errors.list_known(names, list(first.columns))
    raise errors.UserError(f"--names={names}: {where} has no column of this name; {known}")
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
  """Reads the array `array` of a file; "" selects the only array whose rows have the shape of an example.

  Without a window or patch, a channel axis of size 1 may be missing.
  """
  stored = _ARRAYS[name](path, where)
  fitting = [key for key, values in stored.items() if _fits(values, wanted)]
  listed = ", ".join(f"{key} {list(values.shape)}" for key, values in stored.items()) or "no array"
  if array and array not in stored:
    raise errors.UserError(f"--array={array}: {where} has no array of this name; it contains {listed}")
  if not array and len(fitting) != 1:
    problem = "several arrays have" if fitting else "no array has"
    raise errors.UserError(
      f"{where}: {problem} {_form(wanted)}, as required by the run; it contains {listed}; "
      f"{'select one with --array' if fitting else 'save one such array'}"
    )
  key = array or fitting[0]
  notes = remarks.not_read(where, {*stored} - {key}, f"the array that is read is {key}")
  values = stored[key]
  if _is_channels_first(values, wanted):
    move = lambda rows: np.moveaxis(rows, 1, -1)
    values = lazy_arrays.map_rows(values, (*values.shape[2:], values.shape[1]), values.dtype, move)
  values = lazy_arrays.load_all(values)
  rows = [str(row) for row in range(len(values))]
  if wanted.section["window"]:
    cut = new_cuts.of_records(values, "", wanted.section)
  else:
    cut = new_cuts.of_images(values, rows, wanted.section)
  return _joined([cut], notes, where, wanted.section)


def _form(wanted: Wanted) -> str:
  """Returns the required shape of an array of new examples as text for error messages."""
  if wanted.section["window"]:
    return f"the form of a recording [T, {wanted.shape[1]}]"
  if wanted.section["patch"]:
    return f"the form of images [N, H, W, {wanted.shape[2]}]"
  return f"rows of shape {list(wanted.shape)}"


def _fits(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  row, shape, section = values.shape[1:], wanted.shape, wanted.section
  if section["window"]:
    return row == shape[1:] or (row == () and shape[1] == 1)
  if section["patch"]:
    return (len(row) == 3 and row[2] == shape[2]) or _is_channels_first(values, wanted)
  is_table = wanted.schema is not None and row == (len(wanted.schema.columns),)
  without_channels = shape[-1] == 1 and row == shape[:-1] and len(shape) > 1
  return row == shape or without_channels or is_table or _is_channels_first(values, wanted)


def _is_channels_first(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  row, shape = values.shape[1:], wanted.shape
  if wanted.section["layout"] != "nchw" or not len(row) == len(shape) == 3:
    return False
  return row[0] == shape[2] and (bool(wanted.section["patch"]) or row[1:] == shape[:2])


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
# kind -> function that returns whether a path is of this kind; the first kind that matches is used
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

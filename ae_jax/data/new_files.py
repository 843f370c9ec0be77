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
  new_labels,
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
  labels: Any = None  # as stored, [N, ...] or a column of a DataFrame, for `new_labels.in_run`; None: there are none


class NewFiles(NamedTuple):
  """All examples of a file or folder."""

  parts: Iterator[Part]
  remarks: list[str]  # messages about files, columns and arrays that are not read, and about converted images
  no_labels: str  # how to add labels, if the parts have none; otherwise ""


class Wanted(NamedTuple):
  """Properties of examples that are compatible with a run, and the config section with the options for reading."""

  shape: tuple[int, ...]  # of an example
  value_range: str  # config.data.range
  schema: Schema | None  # columns of a table
  section: Mapping[str, Any]  # config.data


def read(path: str, wanted: Wanted, *, names: str = "", array: str = "", label: str = "") -> NewFiles:
  """Returns the examples of a file or folder.

  Args:
    path: A folder of images or a single image, a CSV or Parquet file, or a file of arrays (npz, npy, HDF5).
    wanted: Properties of the examples of the run.
    names: Column of a table that contains the names of the rows; "" to name the rows by their number.
    array: Name of the array in a file of arrays; "" for the only array whose rows have the shape of an example.
    label: Column of a table, or array of a file of arrays, that contains the labels; "" for the column
      `config.data.label`, or the array that `new_labels.name_of_array` finds.

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
  for argument, value, taken in (
    ("names", names, tables.FILES),
    ("array", array, _ARRAYS),
    ("label", label, (*tables.FILES, *_ARRAYS)),
  ):
    if value and name not in taken:
      raise errors.UserError(f"--{argument}={value}: is not used for {where}, which is read as {name}; remove it")
  if name in tables.FILES:
    return _of_table(name, path, wanted, names, label, where)
  if name == "folder":
    return (_of_records if wanted.section["window"] else _of_images)(path, wanted, where)
  return _of_arrays(name, path, wanted, array, label, where)


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
  cuts, classes = [], new_labels.of_folder(images, root)
  for group in _of_equal_size(list(zip(images, headers, strict=True)), chosen):
    files, of_group = zip(*group, strict=True)
    layout = image_sets.common_layout(of_group, files, chosen, where)
    lazy = image_sets.images(files, layout, chosen, version, lambda: None)
    if layout.scaled:
      lazy = lazy_arrays.map_rows(lazy, lazy.shape[1:], np.float32, lambda x: ranges.from_unit(x, wanted.value_range))
    names = [paths.relative_name(file, root) if root.is_dir() else root.name for file in files]
    labels = np.array([classes[file] for file in files]) if classes else None
    cuts.append(new_cuts.of_images(lazy, names, section, labels))
  notes += left_out + image_sets.changes(headers, images, chosen, where)
  return _joined(cuts, notes, where, section, "put each image into a folder with the name of its class")


def _of_equal_size(images: list[tuple[str, Any]], chosen: image_sets.Options) -> list[list[tuple[str, Any]]]:
  """Groups consecutive (path, header) pairs of equal image size; a single group if the images are resized."""
  size = lambda pair: chosen.preparation.size or (pair[1].height, pair[1].width)
  return [[*group] for _, group in itertools.groupby(images, size)]


def _of_records(path: str, wanted: Wanted, where: str) -> NewFiles:
  """Reads a folder of .npy files, one recording per file, and cuts the recordings into windows."""
  records, labels, unread = series_folders.files_in(pathlib.Path(path), where)
  for name, record in records.items():
    if record.shape[1] != wanted.shape[1]:
      channels, expected = (remarks.counted(count, "channel") for count in (record.shape[1], wanted.shape[1]))
      raise errors.UserError(
        f"{where}: {name}.npy has {channels}, but the model of the run expects {expected}; convert or remove it"
      )
  labelled = records.keys() <= labels.keys()
  unread += [] if labelled else [f"{name}_labels.npy" for name in labels]
  cuts = []
  for name, record in records.items():
    of_steps = series_folders.labels_of_steps({name: record}, labels, where) if labelled else None
    cuts.append(new_cuts.of_records(record, f"{name}.npy", wanted.section, of_steps))
  notes = remarks.not_read(where, unread, f"only recordings{' and their labels' if labelled else ''} are read")
  return _joined(cuts, notes, where, wanted.section, "add NAME_labels.npy for each recording NAME.npy")


def _joined(
  cuts: Sequence[new_cuts.Cut], notes: list[str], where: str, section: Mapping[str, Any], fix: str
) -> NewFiles:
  """Joins the examples of all cuts; raises UserError if all files or rows are smaller than a window or patch.

  `fix` says how to add labels.
  """
  key, examples = ("window", "recordings") if section["window"] else ("patch", "images")
  small = [source for cut in cuts if not cut.names for source in cut.sources]
  if small and len(small) == sum(len(cut.sources) for cut in cuts):
    raise errors.UserError(
      f"{where}: all {examples} are smaller than config.data.{key}={section[key]} of the run; pass larger ones"
    )
  notes = notes + remarks.not_read(where, small, f"these are smaller than config.data.{key}={section[key]}")
  cuts = [cut for cut in cuts if cut.names]
  no_labels = fix if any(cut.labels is None for cut in cuts) else ""
  return NewFiles(itertools.chain.from_iterable(map(_parts, cuts)), notes, no_labels)


def _of_table(name: str, path: str, wanted: Wanted, names: str, label: str, where: str) -> NewFiles:
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
  for argument, column in (("names", names), ("label", label)):
    if column and column not in first.columns:
      known = errors.list_known(column, list(first.columns))
      raise errors.UserError(f"--{argument}={column}: {where} has no column of this name; {known}")
  of_run = wanted.section["label"]
  label = label or (of_run if of_run in first.columns else "")
  unread = {*map(str, first.columns)} - {*used, names, label} - {*schema.unused}
  notes = remarks.not_read(where, unread, "the run was trained without such columns")

  def of_frames() -> Iterator[Part]:
    row, frame = 0, first
    while frame is not None:
      of_rows = frame[names] if names else range(row, row + len(frame))
      x = frame[[column for column in used if column in frame.columns]]
      yield Part([str(each) for each in of_rows], x, frame[label] if label else None)
      row += len(frame)
      frame = next(parts, None)

  fix = f"add the column {of_run!r}, or name another one with --label" if of_run else "name their column with --label"
  return NewFiles(of_frames(), notes, "" if label else fix)


def _of_arrays(name: str, path: str, wanted: Wanted, array: str, label: str, where: str) -> NewFiles:
  """Reads the array `array` of a file; "" selects the only array whose rows have the shape of an example.

  Without a window or patch, a channel axis of size 1 may be missing.
  """
  stored = _ARRAYS[name](path, where)
  fitting = [key for key, values in stored.items() if _fits(values, wanted)]
  listed = ", ".join(f"{key} {list(values.shape)}" for key, values in stored.items()) or "no array"
  for argument, chosen in (("array", array), ("label", label)):
    if chosen and chosen not in stored:
      raise errors.UserError(f"--{argument}={chosen}: {where} has no array of this name; it contains {listed}")
  if not array and len(fitting) != 1:
    problem = "several arrays have" if fitting else "no array has"
    raise errors.UserError(
      f"{where}: {problem} {_form(wanted)}, as required by the run; it contains {listed}; "
      f"{'select one with --array' if fitting else 'save one such array'}"
    )
  key = array or fitting[0]
  if label and stored[label].shape[:1] != stored[key].shape[:1]:
    counts = f"{list(stored[label].shape)}, but {key} has {list(stored[key].shape)}"
    raise errors.UserError(f"--label={label}: has shape {counts}; pass one label per example")
  label = label or new_labels.name_of_array(stored, key, wanted.section)
  read_too = f", and that of its labels is {label}" if label else ""
  notes = remarks.not_read(where, {*stored} - {key, label}, f"the array that is read is {key}{read_too}")
  values = stored[key]
  if _is_channels_first(values, wanted):
    move = lambda rows: np.moveaxis(rows, 1, -1)
    values = lazy_arrays.map_rows(values, (*values.shape[2:], values.shape[1]), values.dtype, move)
  values = lazy_arrays.load_all(values)
  rows = [str(row) for row in range(len(values))]
  labels = stored[label].load() if label else None
  if wanted.section["window"]:
    is_one_per_step = labels is not None and labels.size == len(values)
    cut = new_cuts.of_records(values, "", wanted.section, labels if is_one_per_step else None)
  else:
    cut = new_cuts.of_images(values, rows, wanted.section, labels)
  return _joined([cut], notes, where, wanted.section, _NO_ARRAY)


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


def _parts(cut: new_cuts.Cut) -> Iterator[Part]:
  """Yields the examples of a cut in parts of limited size, with their names and labels."""
  row = 0
  for part in lazy_arrays.parts(cut.x, np.arange(len(cut.x))):
    rows = slice(row, row + len(part))
    yield Part(cut.names[rows], part, None if cut.labels is None else cut.labels[rows])
    row += len(part)


_NO_ARRAY = "save them as an array `y` with the examples in an .npz file, or name another array with --label"
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

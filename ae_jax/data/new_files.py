"""Reads files of new examples for a trained run: images, tables and arrays, without splitting them."""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import (
  defect_masks,
  folders,
  foreign_formats,
  image_sets,
  lazy_arrays,
  new_arrays,
  new_cuts,
  new_labels,
  ranges,
  recorded_tables,
  remarks,
  series_folders,
  several_files,
  tables,
  windows,
)
from ae_jax.data.new_parts import Named, NewFiles, Part, Wanted, joined
from ae_jax.system import paths


def read(path: str, wanted: Wanted, **options: str) -> NewFiles:
  """Returns the examples of a file or folder, or of several, one after the other (see `several_files`).

  Args:
    path: A folder of images or a single image, a CSV or Parquet file, or a file of arrays (npz, npy, HDF5); or several
      of one kind. The names of their examples then begin with the name of the file, unless `names` is given.
    wanted: Properties of the examples of the run.
    **options: Names of columns or arrays, the fields of `Named`. By default, the rows of a table are named by their
      number, and the labels are the column `config.data.label`. In a file of arrays, the examples are the only array
      whose rows have the shape of an example. `new_labels.name_of_array` finds its labels. Its targets and masks have
      a default name, such as `target` for `x` and `target_test` for `x_test`.

  Raises:
    UserError: The path does not exist or has an unsupported file type, or a file is damaged or not compatible with the
      run.
  """
  named, files = Named(**options), several_files.of_path(path, "--data")
  kinds = [_kind_of(file) for file in files]
  if different := next((file for file, kind in zip(files, kinds, strict=True) if kind != kinds[0]), ""):
    raise errors.UserError(
      f"--data={path}: {files[0]} is read as {kinds[0]}, but {different} as {_kind_of(different)}; pass files of one "
      "kind"
    )
  found = [_read_file(kinds[0], file, wanted, named) for file in files]
  if len(files) == 1:
    return found[0]
  extra = found[0].extra
  for file, each in zip(files, found, strict=True):
    if each.extra.keys() != extra.keys():
      expected, arrays = (" and ".join(keys) or "no target or mask" for keys in (extra, each.extra))
      raise errors.UserError(f"--data={path}: {files[0]} has {expected}, but {file} has {arrays}; pass equal files")
  notes = several_files.note(files, f"--data={path}") + [note for each in found for note in each.remarks]
  parts = itertools.chain.from_iterable(
    each.parts if named.names else _named_by_file(each.parts, file, files)
    for file, each in zip(files, found, strict=True)
  )
  return NewFiles(parts, notes, next((each.no_labels for each in found if each.no_labels), ""), extra)


def _kind_of(path: str) -> str:
  """Returns the key of `_KINDS` for a file or folder; raises UserError if there is none."""
  where, file = f"--data={path}", pathlib.Path(path)
  if not file.exists():
    raise errors.UserError(f"{where}: file or folder not found; check the path")
  foreign_formats.check(path, where)
  name = next((name for name, matches in _KINDS.items() if matches(file)), None)
  if name is None:
    known = "a folder of images, an image, or a file .csv, .csv.gz, .tsv, .parquet, .pq, .npz, .npy, .h5"
    raise errors.UserError(f"{where}: unsupported file type; pass {known}")
  return name


def _read_file(kind: str, path: str, wanted: Wanted, named: Named) -> NewFiles:
  """Returns the examples of one file or folder; `kind` is a key of `_KINDS`. See `read`."""
  where = f"--data={path}"
  used = ("names", "label") if kind in tables.FILES else ("array", "label", "target", "mask")
  for argument, value in named._asdict().items():
    if value and (argument not in used or kind == "folder"):
      fix = "remove it"
      if kind == "folder" and argument in ("target", "mask"):
        fix = f"save the images as the array x and the {argument}s as the array {argument} of an .npz file, and pass it"
      raise errors.UserError(f"--{argument}={value}: is not used for {where}, which is read as {kind}; {fix}")
  if kind in tables.FILES:
    return (_of_recorded_table if wanted.section["window"] else _of_table)(kind, path, wanted, named, where)
  if kind == "folder":
    return (_of_records if wanted.section["window"] else _of_images)(path, wanted, where)
  return new_arrays.read(kind, path, wanted, named, where)


def _named_by_file(parts: Iterable[Part], file: str, files: Sequence[str]) -> Iterator[Part]:
  """Yields the parts of a file with names that begin with its name, or with its path if another file has its name."""
  bases = [os.path.basename(os.path.normpath(each)) for each in files]
  base = bases[files.index(file)]
  prefix, is_folder = base if bases.count(base) == 1 else file, os.path.isdir(file)
  for part in parts:
    # the names of an image file and of its patches already begin with the file; those of windows are "[start:stop]"
    is_complete = lambda name: not is_folder and name.startswith((base, "["))
    ends = (name.removeprefix(base) if is_complete(name) else f":{name}" for name in part.names)
    yield part._replace(names=[prefix + end for end in ends])


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
  if folders.has_masks(root):
    notes += remarks.not_read(where, [defect_masks.FOLDER], "this folder contains masks of the defects in test images")
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
  return joined(cuts, notes, where, section, "put each image into a folder with the name of its class")


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
    cuts.append(new_cuts.of_records(record, f"{name}.npy", wanted.section, of_steps, wanted.normal))
  notes = remarks.not_read(where, unread, f"only recordings{' and their labels' if labelled else ''} are read")
  return joined(cuts, notes, where, wanted.section, "add NAME_labels.npy for each recording NAME.npy")


def _of_table(name: str, path: str, wanted: Wanted, named: Named, where: str) -> NewFiles:
  """Reads a table without the columns that are not inputs of the run."""
  schema, names, label = wanted.schema, named.names, named.label
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
      of_rows: Any = range(row, row + len(frame))
      if names:  # a row without a name keeps its number
        of_rows = frame[names].astype(object).where(frame[names].notna(), [f"row {number}" for number in of_rows])
      x = frame[[column for column in used if column in frame.columns]]
      yield Part([str(each) for each in of_rows], x, frame[label] if label else None)
      row += len(frame)
      frame = next(parts, None)

  fix = f"add the column {of_run!r}, or name another one with --label" if of_run else "name their column with --label"
  return NewFiles(of_frames(), notes, "" if label else fix)


def _of_recorded_table(name: str, path: str, wanted: Wanted, named: Named, where: str) -> NewFiles:
  """Reads a table whose rows are the time steps of a recording, and cuts it into windows.

  The name of a window is a slice of time steps or, if `named.names` is given, the value of this column at its first
  step.
  """
  import pandas as pd  # takes half a second to import

  from ae_jax.data import table_files

  section = wanted.section
  label = named.label or section["label"]
  kinds_of = {named.names: "categorical"} if named.names else {}
  frame = pd.concat([*tables.rows_of(name, path, kinds_of, where)], ignore_index=True)
  for argument in ("names", "label"):
    column = getattr(named, argument)
    if column and column not in frame.columns:
      known = errors.list_known(column, list(map(str, frame.columns)))
      raise errors.UserError(f"--{argument}={column}: {where} has no column of this name; {known}")
  record = recorded_tables.read_new(frame, wanted.columns, section["missing"], where)
  is_labelled = label in frame.columns
  labels = table_files.answers(frame[label], f"label column {label!r}", 0, where) if is_labelled else None
  cut = new_cuts.of_records(record.values, pathlib.Path(path).name, section, labels, wanted.normal, record.pieces)
  if cut.names and named.names:
    starts = windows.starts_of(record.pieces, section["window"], section["stride"] or section["window"])
    cut = cut._replace(names=[*frame[named.names].astype(str).iloc[starts]])
  time = wanted.columns.time.name if wanted.columns and wanted.columns.time else ""
  unread = {*map(str, frame.columns)} - {*wanted.columns.channels, time, named.names, label}
  notes = record.notes + remarks.not_read(where, unread, "these columns are no channels of the run")
  return joined([cut], notes, where, section, "name the column of classes with --label")


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

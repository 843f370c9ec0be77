"""Detects which data source can read a path, and which keys of `config.data` this source needs.

`DETECTORS` maps each source to its `Detector`. A new source that reads files is added there.
"""

import collections
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ae_jax import errors
from ae_jax.data import archives, folders, foreign_formats, hdf5, image_sets, remarks, several_files, sources, tables

_LABELS = ("label", "labels", "class", "target", "y")  # names of columns that are assumed to be labels
_TARGETS = ("clean", "target", "truth", "sharp")  # parts of names of folders that are assumed to contain targets
_MOST_LISTED = 5  # maximum number of sizes or modes in a line


class Found(NamedTuple):
  """A source that can read a path, and the arrays that it returned."""

  name: str  # config.data.name
  options: dict[str, Any]  # keys of config.data besides name and path
  arrays: dict[str, Any]  # arrays that the source returned
  files: dict[str, Sequence[str]]  # {split: file of each example}; {} if the examples are not in files of their own
  lines: list[str]  # descriptions of the files, for the user


class Detector(NamedTuple):
  """How a source is detected."""

  matches: Callable[[pathlib.Path], bool]  # whether the path looks like data of this source
  options: Callable[[str], Iterator[dict[str, Any]]]  # path -> dicts of options to try; the first that works is used


def detect(path: str, of_user: Mapping[str, Any] = MappingProxyType({})) -> Found:
  """Returns the first source that matches a path, with the arrays that it read.

  Args:
    path: A file or folder, several files (see `several_files`), or the name of a built-in data set.
    of_user: {key of `config.data`: value} that the user sets; those that the source takes replace the detected ones.

  Raises:
    UserError: The path does not exist, no source matches it, or the source cannot read it with any of the options to
      try; the message is then the error of the first try.
  """
  if not os.path.exists(path) and path in sources.SOURCES and path not in DETECTORS:
    return Found(path, {}, sources.read(path, "", {}), {}, [])
  files = several_files.of_path(path)
  first = files[0]
  if not os.path.exists(first):
    raise errors.UserError(f"{path}: file or folder not found; check the path")
  foreign_formats.check(first, path)
  name = next((name for name, each in DETECTORS.items() if all(map(each.matches, map(pathlib.Path, files)))), None)
  if name is None and len(files) > 1:
    raise errors.UserError(f"{path}: the files are not of one kind; several files can be CSV, Parquet or .npy files")
  if name is None and pathlib.Path(first).suffix.lower() in folders.SUFFIXES:
    raise errors.UserError(f"{path}: is a single image; give the folder that contains the images")
  if name is None:
    raise errors.UserError(f"{path}: unsupported format; supported: {', '.join(DETECTORS)} (config.data.name)")
  if name == "folder":
    _check_no_tables(pathlib.Path(path))
  fault = None
  set_by_user = {key: value for key, value in of_user.items() if key in (*sources.OPTIONS.get(name, ()), "kind")}
  for detected in DETECTORS[name].options(first):
    options = detected | set_by_user
    try:
      others = {key: value for key, value in options.items() if key != "kind"}
      arrays = sources.read(name, path, others, kind=options.get("kind", "auto"))
    except errors.UserError as error:
      fault = fault or error
      continue
    return Found(name, options, arrays, *(_image_files(path, others) if name == "folder" else ({}, [])))
  raise fault


def _check_no_tables(folder: pathlib.Path) -> None:
  """Raises UserError if a folder contains tables, but neither images nor other folders."""
  names = sorted(remarks.visible(folder))
  found = [(name, each) for name in names for each in tables.FILES if tables.matches(each, folder / name)]
  if not found or any((folder / name).is_dir() or name.lower().endswith(tuple(folders.SUFFIXES)) for name in names):
    return
  first, kind = folder / found[0][0], found[0][1]
  suffix = "".join(first.suffixes)
  raise errors.UserError(
    f"{folder}: contains tables ({remarks.counted(len(found), 'file')}, such as {first.name}), but no train{suffix}; "
    f"to read all of them as one table, give the pattern '{folder / '*'}{suffix}'. If they are recordings, convert "
    f'each to an array [steps, columns], numpy.save("{first.stem}.npy", '
    f'pandas.read_{kind}("{first}").select_dtypes("number")), and give the folder of these arrays'
  )


def _image_files(path: str, options: dict[str, Any]) -> tuple[dict[str, Sequence[str]], list[str]]:
  """Returns {split: paths of its images}, and lines about the sizes, modes and formats of all images."""
  found = folders.scan(path, image_sets.options(**options))
  sizes = collections.Counter(f"{header.height} x {header.width}" for header in found.headers)
  modes = collections.Counter(header.mode for header in found.headers)
  formats = remarks.by_suffix(found.all_files)
  lines = [f"sizes (height x width): {_counts(sizes)}", f"modes: {_counts(modes)}", f"files: {', '.join(formats)}"]
  lines += _on_pairs(found.files)
  reason = image_sets.on_fit(found.headers) if "fit" in options else ""
  return found.files, [*lines, f"resizing: {reason}"] if reason else lines


def _on_pairs(files: Mapping[str, Sequence[str]]) -> list[str]:
  """Returns lines that say how to save two folders as pairs, if their files have equal names; otherwise []."""
  names: dict[pathlib.Path, set[str]] = {}
  for file in map(pathlib.Path, files["train"]):
    names.setdefault(file.parent, set()).add(file.name)
  if [*files] != ["train"] or len(names) != 2 or len({*map(frozenset, names.values())}) > 1:
    return []
  is_target = lambda folder: any(word in folder.name.lower() for word in _TARGETS)
  inputs, targets = sorted(names, key=lambda folder: (is_target(folder), folder.name))
  suffixes = {pathlib.Path(name).suffix for name in names[inputs]}
  pattern = f"/*{suffixes.pop() if len(suffixes) == 1 else '.*'}"
  return [
    f"equal names: the files of {inputs} and {targets} have equal names. If they are pairs of inputs and targets, not "
    "classes, save them in an .npz file and train on it:",
    "  import glob, numpy as np; from PIL import Image",
    f"  read = lambda folder: np.stack([np.array(Image.open(f)) for f in sorted(glob.glob(folder + {pattern!r}))])",
    f"  np.savez('pairs.npz', x_train=read({str(inputs)!r}), target_train=read({str(targets)!r}))",
  ]


def _counts(counter: collections.Counter) -> str:
  texts = [f"{value} ({remarks.counted(count, 'image')})" for value, count in counter.most_common(_MOST_LISTED)]
  rest = len(counter) - len(texts)
  return ", ".join([*texts, f"{rest} more"] if rest else texts)


def _folder_options(path: str) -> Iterator[dict[str, Any]]:
  """Yields one dict of options that skip damaged files, and convert images that differ in size or mode."""
  found = folders.scan(path, image_sets.options(on_bad="skip"))
  yield ({"on_bad": "skip"} if found.damaged else {}) | image_sets.conversion(found.headers)


def _array_options(path: str) -> Iterator[dict[str, Any]]:
  """Yields options for the layout and the names of the arrays of a file or folder of arrays."""
  yield {}
  yield {"layout": "nchw"}
  if path.endswith(".npy") and not os.path.isdir(path):
    return
  if os.path.isdir(path):
    yield {"kind": "series"}
  names = hdf5.largest(path) if _is_hdf5(pathlib.Path(path)) else archives.largest(path)
  if names:
    yield names
    yield names | {"layout": "nchw"}


def _table_options(name: str, path: str) -> Iterator[dict[str, Any]]:
  """Yields the option that names the label column of a table, if exactly one column looks like labels; then {}."""
  first = tables.first_rows(name, path)
  named = [column for column in map(str, first.columns) if column.lower() in _LABELS]
  classes = [column for column in named if first[column].dtype.kind != "f"]
  if len(classes) == 1:
    yield {"label": classes[0]}
  yield {}


def _no_options(path: str) -> Iterator[dict[str, Any]]:
  del path
  yield {}


def _has_names(pattern: str) -> Callable[[pathlib.Path], bool]:
  """Returns a predicate: a path matches the pattern, or it is a folder with an entry that matches it."""
  return lambda path: path.match(pattern) or (path.is_dir() and any(path.glob(pattern)))


def _is_hdf5(path: pathlib.Path) -> bool:
  return path.is_file() and path.suffix in (".h5", ".hdf5", ".hdf")


# config.data.name -> detector; the first detector that matches is used
DETECTORS: dict[str, Detector] = {
  "npz": Detector(lambda path: path.is_file() and path.suffix == ".npz", _array_options),
  "npy": Detector(lambda path: _has_names("*.npy")(path) or any(path.glob("train/*.npy")), _array_options),
  "hdf5": Detector(_is_hdf5, _array_options),
  **{
    name: Detector(functools.partial(tables.matches, name), functools.partial(_table_options, name))
    for name in tables.FILES
  },
  "ucr": Detector(_has_names("*_TRAIN*"), _no_options),
  "folder": Detector(lambda path: path.is_dir(), _folder_options),
}

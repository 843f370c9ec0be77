"""Folders of image files as a data source: decoded once and cached, or file by file on demand."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ae_jax import errors
from ae_jax.data import decoding, lazy_arrays, remarks, splits
from ae_jax.system import cache

_SUFFIXES = {suffix for suffixes in decoding.FORMATS.values() for suffix in suffixes}
# lower-case folder name -> half
_HALVES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_HALVES |= dict.fromkeys(("val", "valid", "validation"), "validation")
_LONGEST_NUMBER = 9  # digits of a class name that is used as its label


def folder(name: str, path: str) -> dict[str, Any]:
  """Reads the images under a folder, all of one size and with 1 or 3 channels.

  Folders `train` and `test` (or Train, Training, TEST, ...) are the halves; see `_halves`. Without `test`, a fifth of
  the images (at most 10,000), drawn once with a fixed seed, is held out. Folders inside the halves are the classes.
  The label of a class is its position among the sorted class names of both halves or, if all names are whole numbers,
  that number. Files without an image suffix, and names that begin with a dot, are skipped. Links are followed only to
  files inside the folder.

  Raises:
    UserError: Names the file or folder that cannot be used.
  """
  splits.check_path(name, path, "folder of images")
  where, root = f"config.data.path={path!r}", pathlib.Path(path)
  if not root.is_dir():
    raise errors.UserError(f"{where}: folder not found")
  skipped = []
  try:
    halves = _halves(root, where)
    for half_folder in {*halves.values()} - {root}:
      _check_link(half_folder, root.resolve())
    files = {half: list(_files(half_folder, root.resolve(), skipped)) for half, half_folder in halves.items()}
    version = "\n".join([str(root.resolve()), *(_version(file) for paths in files.values() for file in paths)])
    notes = _not_read(root, halves, skipped, where)
  except OSError as error:
    raise errors.UserError(f"{where}: {error.filename} cannot be read: {error.strerror}") from None
  _check_counts(files, halves, where)
  return _arrays(files, halves, version) | {"remarks": notes}


def _check_counts(files: Mapping[str, Sequence[str]], halves: Mapping[str, pathlib.Path], where: str) -> None:
  """Raises UserError if a half has too few images."""
  for half, least in ({"train": 2, "test": 1} if "test" in files else {"train": 3}).items():
    if len(files[half]) < least:
      raise errors.UserError(
        f"{where}: found {remarks.counted(len(files[half]), 'image')} under {halves[half]}; at least {least} required, "
        f"with names that end in {', '.join(sorted(_SUFFIXES))}"
      )


def _arrays(files: Mapping[str, Sequence[str]], halves: Mapping[str, pathlib.Path], version: str) -> dict[str, Any]:
  """Returns the images and labels of each half, from the files {half: paths} and the folders {half: folder}."""
  all_files = [file for paths in files.values() for file in paths]
  shape = cache.arrays("folder-shape", version, lambda: {"shape": _common_shape(all_files)})["shape"].tolist()
  arrays = {half: _images(paths, shape, f"{half} {version}") for half, paths in files.items()}
  labels = _labels({half: _classes(paths, halves[half]) for half, paths in files.items()})
  if "test" in arrays:
    return arrays | {f"{half}_labels": values for half, values in labels.items()}
  return splits.split(arrays["train"], labels.get("train"), splits.drawn_fifth(len(files["train"])))


def _halves(root: pathlib.Path, where: str) -> dict[str, pathlib.Path]:
  """Returns {"train": folder, "test": folder}, without "test" if it is absent, or {"train": root} without halves.

  `train` and `test` are always halves. Other spellings (see `_HALVES`) could be classes ("Train" beside "Bus") and are
  halves only if there is one folder for training and another for testing or validation.
  """
  names_of = {}
  for name in sorted(remarks.visible(root)):
    half = _HALVES.get(name.lower())
    if half and (root / name).is_dir():
      names_of.setdefault(half, []).append(name)
  candidates = [name for names in names_of.values() for name in names]
  if not {"train", "test"} & {*candidates} and not ("train" in names_of and len(names_of) > 1):
    return {"train": root}
  for half, names in names_of.items():
    if len(names) > 1 and half != "validation":
      raise errors.UserError(f"{where}: contains both `{names[0]}` and `{names[1]}`; keep one folder")
  if "train" not in names_of:
    raise errors.UserError(f"{where}: contains a folder `{names_of['test'][0]}` but no folder `train`")
  return {half: root / names_of[half][0] for half in ("train", "test") if half in names_of}


def _not_read(root: pathlib.Path, halves: Mapping[str, pathlib.Path], skipped: Sequence[str], where: str) -> list[str]:
  """Returns remarks about images outside the halves, and about files inside them without an image suffix."""
  notes = []
  if halves["train"] != root:
    read, counts = [folder.name for folder in halves.values()], {}
    for name in set(remarks.visible(root)) - set(read):
      files = (file for _, _, files in os.walk(root / name) for file in files) if (root / name).is_dir() else [name]
      counts[name] = sum(_is_image(file) for file in files)
    names = [f"{name} ({remarks.counted(count, 'image')})" for name, count in counts.items() if count]
    notes = remarks.not_read(where, names, f"the folders that are read are {' and '.join(read)}")
  return notes + remarks.not_read(where, remarks.by_suffix(skipped), "these files have no supported image suffix")


def _is_image(file: str) -> bool:
  """Returns whether a file name has the suffix of an image format."""
  return os.path.splitext(file)[1].lower() in _SUFFIXES


def _files(folder: str | os.PathLike[str], root: pathlib.Path, skipped: list[str]) -> Iterator[str]:
  """Yields the paths of the image files under a folder, sorted by name in each folder.

  Appends the names of other files to `skipped`.
  """
  with os.scandir(folder) as entries:
    visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
  for entry in visible:
    _check_link(entry, root)
    if entry.is_dir():
      yield from _files(entry.path, root, skipped)
    elif not _is_image(entry.name):
      skipped.append(entry.name)
    else:
      if not entry.is_file():
        raise errors.UserError(f"{entry.path}: is a pipe or a device; expected an image file")
      yield entry.path


def _check_link(path: pathlib.Path | os.DirEntry, root: pathlib.Path) -> None:
  """Raises UserError for a link, unless it leads to a file inside `root`."""
  if path.is_symlink():
    target = pathlib.Path(os.path.realpath(path))  # unlike `resolve`, does not fail for a link to itself
    if not (target.is_file() and target.is_relative_to(root)):
      raise errors.UserError(
        f"{os.fspath(path)}: is a link to {target}; only links to files inside {root} are followed"
      )


def _version(file: str) -> str:
  status = os.stat(file)
  return f"{file} {status.st_size} {status.st_mtime_ns}"


def _common_shape(files: Sequence[str]) -> Int[np.ndarray, " 3"]:
  """Returns the shape (H, W, C) of all images, from the file headers; UserError names the first that differs."""

  def read(indices):
    return np.array([decoding.shape(files[index], files[index]) for index in indices])

  shapes = lazy_arrays.read_all(lazy_arrays.LazyArray((len(files), 3), np.dtype(np.int64), read))
  others = np.flatnonzero((shapes != shapes[0]).any(1))
  if len(others):
    other, first = (decoding.in_words(shape.tolist()) for shape in (shapes[others[0]], shapes[0]))
    raise errors.UserError(f"{files[others[0]]}: is {other}, but {files[0]} is {first}; all images must have one size")
  return shapes[0]


def _images(files: Sequence[str], shape: Sequence[int], version: str) -> lazy_arrays.LazyArray:
  """Returns the images as a LazyArray; loading them all keeps them in the cache."""

  def read(indices):
    return np.stack([decoding.decode(files[index], files[index], shape) for index in indices])

  @functools.cache
  def load():
    return cache.arrays("folder", version, lambda: {"images": lazy_arrays.read_all(lazy)})["images"]

  lazy = lazy_arrays.LazyArray((len(files), *shape), np.dtype(np.uint8), read)
  return dataclasses.replace(lazy, load=load)


def _classes(files: Sequence[str], folder: str | os.PathLike[str]) -> list[str] | None:
  """Returns the class of each file, the name of its folder directly below `folder`; None if no file is in a class."""
  relative = [os.path.relpath(file, folder).split(os.sep) for file in files]
  loose = [len(parts) == 1 for parts in relative]
  if all(loose):
    return None
  if any(loose):
    raise errors.UserError(f"{files[loose.index(True)]}: lies beside class folders; move it into one of them")
  return [parts[0] for parts in relative]


def _labels(classes: Mapping[str, Sequence[str] | None]) -> dict[str, Int[np.ndarray, "..."]]:
  """Returns {half: labels} from {half: class of each file, or None}; halves without classes are left out."""
  names = sorted({name for half in classes.values() for name in half or ()})
  numeric = all(name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in names)
  label_of = {name: int(name) if numeric else position for position, name in enumerate(names)}
  return {half: np.array([label_of[name] for name in names]) for half, names in classes.items() if names}

"""A folder of image files, as a source of data: decoded once and kept, or one by one when they are asked for."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from ae_jax import cache, errors
from ae_jax.data import decoding, rows, splits

_SUFFIXES = {suffix for suffixes in decoding.FORMATS.values() for suffix in suffixes}
_LONGEST_NUMBER = 9  # digits of a class that is its own label


def folder(name, path):
  """The images under a folder, all of one size and of 1 or 3 channels; folders `train` and `test` in it part them.

  Without `test`, a fifth (10,000 at most), drawn once with a fixed seed, is held out. Folders inside are the classes:
  the label is the place of the name among the sorted ones of both halves or, where all are whole numbers, the number.
  Files without an image's suffix, and names that begin with a dot, are passed over. A link to a file inside the folder
  is followed, any other refused. Raises UserError, which names the file.
  """
  splits.check_path(name, path, "folder of images")
  where, root = f"config.data.path={path!r}", pathlib.Path(path)
  if not root.is_dir():
    raise errors.UserError(f"{where}: there is no such folder")
  halves = {half: root / half for half in ("train", "test") if (root / half).is_dir()}
  for inside in halves.values():
    _check_link(inside, root.resolve())
  halves = halves or {"train": root}
  if "train" not in halves:
    raise errors.UserError(f"{where}: holds a folder `test` but no `train` beside it")
  try:
    files = {half: list(_files(inside, root.resolve())) for half, inside in halves.items()}
    version = "\n".join([str(root.resolve()), *(_version(file) for found in files.values() for file in found)])
  except OSError as error:
    raise errors.UserError(f"{where}: {error.filename} cannot be read: {error.strerror}") from None
  for half, least in ({"train": 2, "test": 1} if "test" in files else {"train": 3}).items():
    if len(files[half]) < least:
      raise errors.UserError(
        f"{where}: {len(files[half])} images under {halves[half]}; {least} or more are wanted, "
        f"whose names end in {', '.join(sorted(_SUFFIXES))}"
      )
  everything = [file for found in files.values() for file in found]
  shape = cache.arrays("folder-shape", version, lambda: {"shape": _common_shape(everything)})["shape"].tolist()
  arrays = {half: _rows(found, shape, f"{half} {version}") for half, found in files.items()}
  labels = _labels({half: _classes(found, halves[half]) for half, found in files.items()})
  if "test" not in arrays:
    return splits.split(arrays["train"], labels.get("train"), splits.drawn_fifth(len(files["train"])))
  return arrays | {f"{half}_labels": numbers for half, numbers in labels.items()}


def _files(folder, root):
  """Generates the paths of the image files under a folder, in the order of their names, folder by folder."""
  with os.scandir(folder) as entries:
    visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
  for entry in visible:
    _check_link(entry, root)
    if entry.is_dir():
      yield from _files(entry.path, root)
    elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES:
      if not entry.is_file():
        raise errors.UserError(f"{entry.path}: is a pipe or a device; images in files are wanted")
      yield entry.path


def _check_link(path, root):
  """Raises UserError for a link to anything but a file inside the folder."""
  if path.is_symlink():
    target = pathlib.Path(os.path.realpath(path))  # which, unlike `resolve`, bears a link to itself
    if not (target.is_file() and target.is_relative_to(root)):
      raise errors.UserError(
        f"{os.fspath(path)}: is a link to {target}; links are followed to files inside {root} only"
      )


def _version(file):
  status = os.stat(file)
  return f"{file} {status.st_size} {status.st_mtime_ns}"


def _common_shape(files):
  """The shape (H, W, C) of all images, from the heads of their files; UserError names the first that differs."""

  def read(numbers):
    return np.array([decoding.shape(files[number], files[number]) for number in numbers])

  shapes = rows.gathered(rows.Rows((len(files), 3), np.dtype(np.int64), read))
  others = np.flatnonzero((shapes != shapes[0]).any(1))
  if len(others):
    found, wanted = (decoding.in_words(shape) for shape in (shapes[others[0]], shapes[0]))
    raise errors.UserError(f"{files[others[0]]}: is {found}, but {files[0]} is {wanted}; images of one size are wanted")
  return shapes[0]


def _rows(files, shape, version):
  """The images as Rows; those of a set that is loaded whole are kept in the cache."""

  def read(numbers):
    return np.stack([decoding.decode(files[number], files[number], shape) for number in numbers])

  @functools.cache
  def load():
    return cache.arrays("folder", version, lambda: {"images": rows.gathered(lazy)})["images"]

  lazy = rows.Rows((len(files), *shape), np.dtype(np.uint8), read)
  return dataclasses.replace(lazy, load=load)


def _classes(files, folder):
  """The name of the class of each file [N], the folder below `folder` that it is in; None if all are right in it."""
  inside = [os.path.relpath(file, folder).split(os.sep) for file in files]
  loose = [len(parts) == 1 for parts in inside]
  if all(loose):
    return None
  if any(loose):
    raise errors.UserError(f"{files[loose.index(True)]}: lies beside folders of images; put it into one, its class")
  return [parts[0] for parts in inside]


def _labels(classes):
  """{half: labels int64 [N]} from {half: the names of classes, or None}."""
  names = sorted({name for half in classes.values() for name in half or ()})
  own = all(name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in names)
  numbers = {name: int(name) if own else place for place, name in enumerate(names)}
  return {half: np.array([numbers[name] for name in found]) for half, found in classes.items() if found}

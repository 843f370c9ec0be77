"""A folder of image files, as a source of data: decoded once and kept, or one by one when they are asked for."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from ae_jax import errors
from ae_jax.data import decoding, lazy_arrays, remarks, splits
from ae_jax.system import cache

_SUFFIXES = {suffix for suffixes in decoding.FORMATS.values() for suffix in suffixes}
# lower-case names of folders -> what is in them
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation"), "validation")
_LONGEST_NUMBER = 9  # digits of a class that is its own label


def folder(name, path):
  """The images under a folder, all of one size and of 1 or 3 channels, in halves and classes by the folders inside.

  Folders `train` and `test` (or Train, Training, TEST, ...) are the halves; see `_halves`. Without `test`, a fifth
  (10,000 at most), drawn once with a fixed seed, is held out. Folders inside are the classes: the label is the place of
  the name among the sorted ones of both halves or, where all are whole numbers, the number. Files without an image's
  suffix, and names that begin with a dot, are passed over. A link to a file inside the folder is followed, any other
  refused. Raises UserError, which names the file.
  """
  splits.check_path(name, path, "folder of images")
  where, root = f"config.data.path={path!r}", pathlib.Path(path)
  if not root.is_dir():
    raise errors.UserError(f"{where}: there is no such folder")
  passed_over = []
  try:
    halves = _halves(root, where)
    for inside in {*halves.values()} - {root}:
      _check_link(inside, root.resolve())
    files = {half: list(_files(inside, root.resolve(), passed_over)) for half, inside in halves.items()}
    version = "\n".join([str(root.resolve()), *(_version(file) for found in files.values() for file in found)])
    said = _not_read(root, halves, passed_over, where)
  except OSError as error:
    raise errors.UserError(f"{where}: {error.filename} cannot be read: {error.strerror}") from None
  for half, least in ({"train": 2, "test": 1} if "test" in files else {"train": 3}).items():
    if len(files[half]) < least:
      raise errors.UserError(
        f"{where}: {remarks.counted(len(files[half]), 'image')} under {halves[half]}; {least} or more are wanted, "
        f"whose names end in {', '.join(sorted(_SUFFIXES))}"
      )
  everything = [file for found in files.values() for file in found]
  shape = cache.arrays("folder-shape", version, lambda: {"shape": _common_shape(everything)})["shape"].tolist()
  arrays = {half: _rows(found, shape, f"{half} {version}") for half, found in files.items()}
  labels = _labels({half: _classes(found, halves[half]) for half, found in files.items()})
  if "test" not in arrays:
    arrays = splits.split(arrays["train"], labels.get("train"), splits.drawn_fifth(len(files["train"])))
  else:
    arrays |= {f"{half}_labels": numbers for half, numbers in labels.items()}
  return arrays | {"remarks": said}


def _halves(root, where):
  """{"train": folder, "test": folder}, without "test" if there is none; {"train": root} if the folders are classes.

  `train` and `test` are always halves. Other spellings (see `_SPLITS`) could be classes ("Train" beside "Bus") and are
  halves only if there is a folder for training and another one for testing or validation.
  """
  found = {}
  for name in sorted(remarks.visible(root)):
    half = _SPLITS.get(name.lower())
    if half and (root / name).is_dir():
      found.setdefault(half, []).append(name)
  named = [name for names in found.values() for name in names]
  if not {"train", "test"} & {*named} and not ("train" in found and len(found) > 1):
    return {"train": root}
  for half, names in found.items():
    if len(names) > 1 and half != "validation":
      raise errors.UserError(f"{where}: holds both `{names[0]}` and `{names[1]}`; keep one folder")
  if "train" not in found:
    raise errors.UserError(f"{where}: holds a folder `{found['test'][0]}` but no `train` beside it")
  return {half: root / found[half][0] for half in ("train", "test") if half in found}


def _not_read(root, halves, passed_over, where):
  """Sentences about images beside the halves, and about files inside that are no images by their names."""
  said = []
  if halves["train"] != root:
    read, beside = [folder.name for folder in halves.values()], {}
    for name in set(remarks.visible(root)) - set(read):
      files = (file for _, _, inside in os.walk(root / name) for file in inside) if (root / name).is_dir() else [name]
      beside[name] = sum(_is_image(file) for file in files)
    names = [f"{name} ({remarks.counted(count, 'image')})" for name, count in beside.items() if count]
    said = remarks.not_read(where, names, f"the folders that are read are {' and '.join(read)}")
  return said + remarks.not_read(where, remarks.by_suffix(passed_over), "the names of images end in other suffixes")


def _is_image(file):
  """Returns True if a file name has the suffix of an image format."""
  return os.path.splitext(file)[1].lower() in _SUFFIXES


def _files(folder, root, passed_over):
  """Generates the paths of the image files under a folder, in the order of their names, folder by folder.

  The names of other files are appended to `passed_over`.
  """
  with os.scandir(folder) as entries:
    visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
  for entry in visible:
    _check_link(entry, root)
    if entry.is_dir():
      yield from _files(entry.path, root, passed_over)
    elif not _is_image(entry.name):
      passed_over.append(entry.name)
    else:
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

  shapes = lazy_arrays.gathered(lazy_arrays.LazyArray((len(files), 3), np.dtype(np.int64), read))
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
    return cache.arrays("folder", version, lambda: {"images": lazy_arrays.gathered(lazy)})["images"]

  lazy = lazy_arrays.LazyArray((len(files), *shape), np.dtype(np.uint8), read)
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

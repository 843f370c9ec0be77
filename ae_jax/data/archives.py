"""The user's own arrays, as sources of data: `npz` and `npy`, read whole or, where they are too large, through a map.

Nothing is unpickled and nothing is unpacked to a disk. A map reads the rows that are asked for and no others; checksums
are verified only where an archive is read whole.
"""

import functools
import math
import os
import pathlib
import struct
import zipfile

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays, remarks, splits

_LARGEST_LABEL = 1024  # bytes: a text, at most
_NAMES = ("x_train", "x_test", "y_train", "y_test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # bytes that a byte of a compressed member can become
_LOCAL_HEADER = 30  # bytes of a zip file's header of a member, before the name and the extra field


def npz(name, path):
  """An archive of `x_train` and perhaps `x_test` [N, H, W] or [N, H, W, C], `y_train`, `y_test` [N].

  Without `x_test`, a fifth of the examples (10,000 at most), drawn once with a fixed seed, is held out. Object arrays
  are refused. Single rows can be read of what `numpy.savez` stored; of `numpy.savez_compressed` the whole or nothing.
  """
  where = _where(name, path, ".npz file")
  with _readable(where), open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise errors.UserError(f"{where}: not an archive but one bare array; config.data.name=npy reads it")
    with zipfile.ZipFile(file) as archive:
      members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
      stored = {key: _member(path, file, archive, members[key], where) for key in _NAMES if key in members}
  said = remarks.not_read(where, members.keys() - stored.keys(), f"the arrays that are read are {', '.join(_NAMES)}")
  return _halves(stored, ", ".join(members), where) | {"remarks": said}


def npy(name, path):
  """A file of all examples [N, H, W] or [N, H, W, C], or a folder of `x_train.npy` and perhaps the others of `npz`."""
  where = _where(name, path, ".npy file or folder of them")
  there = pathlib.Path(path)
  files = {key: there / f"{key}.npy" for key in _NAMES} if there.is_dir() else {"x_train": there}
  with _readable(where):
    stored = {key: _file(file, where) for key, file in files.items() if key == "x_train" or file.exists()}
    others = set(remarks.visible(path)) - {file.name for file in files.values()} if there.is_dir() else ()
  said = remarks.not_read(where, others, f"the files that are read are {', '.join(f'{key}.npy' for key in _NAMES)}")
  return _halves(stored, "", where) | {"remarks": said}


def _where(name, path, wanted):
  """What a message begins with; UserError where nothing is."""
  splits.check_path(name, path, wanted)
  where = f"config.data.path={path!r}"
  if not os.path.exists(path):
    raise errors.UserError(f"{where}: there is no such file")
  return where


def _readable(where):
  """What NumPy, zipfile and zlib raise at a damaged file, which is nearly anything, as one line."""
  return errors.explained(f"{where}: not a readable file of NumPy's")


def _member(path, file, archive, info, where):
  """The Rows of an array in an archive."""
  with archive.open(info) as member:
    shape, fortran, dtype = _header(member)
    header = member.tell()
  possible = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED)
  if info.file_size != header + math.prod(shape) * dtype.itemsize or info.file_size > possible:
    raise ValueError(f"{info.filename} is not as large as it says")
  file.seek(info.header_offset + _LOCAL_HEADER - 4)
  offset = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4))) + header

  def load():
    with _readable(where), open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
      return archive[info.filename]

  compressed = info.compress_type != zipfile.ZIP_STORED
  obstacle = "is compressed: store it with numpy.savez" if compressed else _FORTRAN if fortran else None
  return _rows(path, info.filename, offset, shape, dtype, obstacle, load, where)


def _file(path, where):
  """The Rows of an array in a file of its own."""
  if path.exists() and not path.is_file():
    raise ValueError(f"{path.name} is a folder, a pipe or a device")
  with open(path, "rb") as file:
    shape, fortran, dtype = _header(file)
    offset = file.tell()
    if os.fstat(file.fileno()).st_size < offset + math.prod(shape) * dtype.itemsize:
      raise ValueError(f"{path.name} is not as large as it says")

  def load():
    with _readable(where), open(path, "rb") as file:
      return np.load(file, allow_pickle=False)

  return _rows(path, path.name, offset, shape, dtype, _FORTRAN if fortran else None, load, where)


_FORTRAN = "is in Fortran's order: store it with numpy.ascontiguousarray"


def _header(file):
  """(shape, whether in Fortran's order, dtype) from the beginning of a file in NumPy's format."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"its format is NumPy's {version}; plain arrays are wanted")
  shape, fortran, dtype = _HEADERS[version](file)
  if min(shape, default=0) < 0:
    raise ValueError(f"its shape {shape} is none")
  if not dtype.itemsize or 0 in shape:
    raise ValueError(f"its shape is {shape}, its dtype {dtype}: nothing in it")
  if dtype.hasobject:
    raise ValueError("it holds Python objects, which are never unpickled; store plain arrays")
  return shape, fortran, dtype


def _rows(path, array, offset, shape, dtype, obstacle, load, where):
  """Rows through a map of the file from an offset on, unless there is an obstacle (words)."""

  @functools.cache
  def mapped():
    return np.memmap(path, dtype, "r", offset, shape)

  def read(numbers):
    if obstacle:
      raise errors.UserError(
        f"{where}: {array} cannot be streamed, for it {obstacle}; or set config.data.placement=memory"
      )
    with _readable(where):
      return np.asarray(mapped()[numbers])

  return lazy_arrays.LazyArray(shape, dtype, read, functools.cache(load))


def _halves(stored, names, where):
  """The dict that a source gives, from the Rows of the arrays that are there, and the names of all in words."""
  if "x_train" not in stored:
    raise errors.UserError(f"{where}: no array `x_train` in it; it holds {names or 'nothing'}")
  arrays = {}
  for half in ("train", "test"):
    images, labels = stored.get(f"x_{half}"), stored.get(f"y_{half}")
    if labels is not None and (images is None or labels.shape != images.shape[:1]):
      raise errors.UserError(
        f"{where}: `y_{half}` has shape {labels.shape}; one label per image of `x_{half}` is wanted"
      )
    if images is not None:
      arrays[half] = _with_channels(images)
    if labels is not None and labels.dtype.itemsize > _LARGEST_LABEL:
      raise errors.UserError(f"{where}: `y_{half}` has dtype {labels.dtype}; one integer per image is wanted")
    if labels is not None:
      arrays[f"{half}_labels"] = labels.load()
  if "test" in arrays:
    return arrays
  shape = arrays["train"].shape
  if not shape or shape[0] < 3:
    raise errors.UserError(
      f"{where}: `x_train` of shape {shape}; 3 images or more are wanted, or an `x_test` beside it"
    )
  return splits.split(arrays["train"], arrays.get("train_labels"), splits.drawn_fifth(shape[0]))


def _with_channels(images):
  if len(images.shape) != 3:
    return images
  return lazy_arrays.mapped(images, (*images.shape[1:], 1), images.dtype, lambda values: values[..., None])

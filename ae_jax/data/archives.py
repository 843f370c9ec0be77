"""Data sources for `npz` and `npy` files, read whole or, if they exceed the memory budget, through a memory map.

Nothing is unpickled, and nothing is unpacked to disk. A memory map reads only the requested rows. The checksums of an
archive are verified only when it is read whole.
"""

import functools
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays, remarks, splits

_LARGEST_LABEL = 1024  # bytes per label; labels may be short texts
_NAMES = ("x_train", "x_test", "y_train", "y_test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # largest compression ratio of deflate
_LOCAL_HEADER = 30  # bytes of the header of a zip member, before its name and its extra field
_FORTRAN = "is in Fortran order; convert it with numpy.ascontiguousarray"


def npz(name: str, path: str, record: bool = False) -> dict[str, Any]:
  """Reads the arrays `x_train`, `x_test`, `y_train` and `y_test` of an archive; only `x_train` is required.

  Examples are [N, ...] (see `kinds.with_channels`), and labels [N]. Without `x_test`, a random fifth of the examples
  (at most 10,000), drawn with a fixed seed, becomes the test set. The rows of a `record` are time steps, of which the
  last fifth becomes the test set. Arrays of Python objects are refused. Examples can be streamed
  from archives of `numpy.savez`, but not from archives of `numpy.savez_compressed`.
  """
  where = _where(name, path, ".npz file")
  with _convert_errors(where), open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise errors.UserError(f"{where}: is a single array, not an archive; set config.data.name=npy")
    with zipfile.ZipFile(file) as archive:
      members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
      stored = {key: _member(path, file, archive, members[key], where) for key in _NAMES if key in members}
  notes = remarks.not_read(where, members.keys() - stored.keys(), f"the arrays that are read are {', '.join(_NAMES)}")
  return _train_and_test(stored, ", ".join(members), where, record) | {"remarks": notes}


def npy(name: str, path: str, record: bool = False) -> dict[str, Any]:
  """Reads one file of all examples, or a folder with `x_train.npy` and optionally the other arrays of `npz`.

  Examples are [N, ...], as in `npz`; so are the rows of a `record`.
  """
  where = _where(name, path, ".npy file or folder of .npy files")
  root = pathlib.Path(path)
  files = {key: root / f"{key}.npy" for key in _NAMES} if root.is_dir() else {"x_train": root}
  with _convert_errors(where):
    stored = {key: _file(file, where) for key, file in files.items() if key == "x_train" or file.exists()}
    others = set(remarks.visible(path)) - {file.name for file in files.values()} if root.is_dir() else ()
  notes = remarks.not_read(where, others, f"the files that are read are {', '.join(f'{key}.npy' for key in _NAMES)}")
  return _train_and_test(stored, "", where, record) | {"remarks": notes}


def _where(name: str, path: str, expected: str) -> str:
  """Returns the prefix of error messages; raises UserError if the file does not exist."""
  splits.check_path(name, path, expected)
  where = f"config.data.path={path!r}"
  if not os.path.exists(path):
    raise errors.UserError(f"{where}: file not found; check the path")
  return where


def _convert_errors(where: str) -> AbstractContextManager[None]:
  """Converts exceptions to a one-line UserError; NumPy, zipfile and zlib raise many types for damaged files."""
  return errors.convert_errors(f"{where}: not a readable NumPy file")


def _member(path: str, file: Any, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> lazy_arrays.LazyArray:
  """Returns an array of an archive as a LazyArray."""
  with archive.open(info) as member:
    shape, fortran, dtype = _header(member)
    header = member.tell()
  possible = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED)
  if info.file_size != header + math.prod(shape) * dtype.itemsize or info.file_size > possible:
    raise ValueError(f"the size of {info.filename} does not match its header; save the archive again")
  file.seek(info.header_offset + _LOCAL_HEADER - 4)
  offset = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4))) + header

  def load():
    with _convert_errors(where), open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
      return archive[info.filename]

  compressed = info.compress_type != zipfile.ZIP_STORED
  obstacle = "is compressed; save it with numpy.savez" if compressed else _FORTRAN if fortran else None
  return _mapped(path, info.filename, offset, shape, dtype, obstacle, load, where)


def _file(path: pathlib.Path, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of a .npy file as a LazyArray."""
  if path.exists() and not path.is_file():
    raise ValueError(f"{path.name} is a folder, a pipe or a device; expected a .npy file")
  with open(path, "rb") as file:
    shape, fortran, dtype = _header(file)
    offset = file.tell()
    if os.fstat(file.fileno()).st_size < offset + math.prod(shape) * dtype.itemsize:
      raise ValueError(f"the size of {path.name} does not match its header; save the array again")

  def load():
    with _convert_errors(where), open(path, "rb") as file:
      return np.load(file, allow_pickle=False)

  return _mapped(path, path.name, offset, shape, dtype, _FORTRAN if fortran else None, load, where)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Returns (shape, Fortran order, dtype) from the header of a file in NumPy format."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(
      f"it has NumPy format {version}, not (1, 0) or (2, 0); save an array without named fields with numpy.save"
    )
  shape, fortran, dtype = _HEADERS[version](file)
  if min(shape, default=0) < 0:
    raise ValueError(f"its shape {shape} is invalid; save the array again")
  if not dtype.itemsize or 0 in shape:
    raise ValueError(f"it is empty: it has shape {shape} and dtype {dtype}; save an array with elements")
  if dtype.hasobject:
    raise ValueError("it contains Python objects, which are never unpickled; save an array of numbers")
  return shape, fortran, dtype


def _mapped(
  path: str | pathlib.Path,
  array: str,
  offset: int,
  shape: tuple[int, ...],
  dtype: np.dtype,
  obstacle: str | None,
  load: Callable[[], np.ndarray],
  where: str,
) -> lazy_arrays.LazyArray:
  """Returns a LazyArray that reads rows through a memory map of a file.

  Args:
    path: File that contains the array.
    array: Name of the array in messages.
    offset: Position of the first element in the file, in bytes.
    shape: Shape of the array.
    dtype: Dtype of the array.
    obstacle: Error text (reason and fix) raised when rows are read; None if the file can be memory-mapped.
    load: Function that reads the whole array.
    where: Prefix of error messages.
  """

  @functools.cache
  def memory_map():
    return np.memmap(path, dtype, "r", offset, shape)

  def read(indices):
    if obstacle:
      raise errors.UserError(
        f"{where}: {array} cannot be streamed because it {obstacle}, or set config.data.placement=memory"
      )
    with _convert_errors(where):
      return np.asarray(memory_map()[indices])

  return lazy_arrays.LazyArray(shape, dtype, read, functools.cache(load))


def _train_and_test(
  stored: Mapping[str, lazy_arrays.LazyArray], names: str, where: str, record: bool
) -> dict[str, Any]:
  """Returns the arrays of the training and test set; `names` lists all arrays in the file, for error messages."""
  if "x_train" not in stored:
    raise errors.UserError(
      f"{where}: contains no array `x_train`; it contains {names or 'nothing'}. Name the images `x_train`"
    )
  arrays = {}
  for half in ("train", "test"):
    images, labels = stored.get(f"x_{half}"), stored.get(f"y_{half}")
    if labels is not None and (images is None or labels.shape != images.shape[:1]):
      raise errors.UserError(
        f"{where}: `y_{half}` has shape {labels.shape}; expected one label per example of `x_{half}`"
      )
    if images is not None:
      arrays[half] = images
    if labels is not None and labels.dtype.itemsize > _LARGEST_LABEL:
      raise errors.UserError(f"{where}: `y_{half}` has dtype {labels.dtype}; expected one integer per example")
    if labels is not None:
      arrays[f"{half}_labels"] = labels.load()
  if "test" in arrays:
    return arrays
  shape = arrays["train"].shape
  if not shape or shape[0] < 3:
    raise errors.UserError(f"{where}: `x_train` has shape {shape}; provide at least 3 examples, or add `x_test`")
  held_out = splits.last_fifth(shape[0]) if record else splits.drawn_fifth(shape[0])
  return splits.split(arrays["train"], arrays.get("train_labels"), held_out)

"""Reads arrays of .npy files and .npz archives, either whole or row by row through a memory map.

Nothing is unpickled, and nothing is unpacked to disk. A memory map reads only the requested rows. The checksums of an
archive are verified only when it is read whole.
"""

import contextlib
import functools
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # largest compression ratio of deflate
_LOCAL_HEADER = 30  # bytes of the header of a zip member, before its name and its extra field
_FORTRAN = "is in Fortran order; convert it with numpy.ascontiguousarray"


def convert_errors(where: str) -> contextlib.AbstractContextManager[None]:
  """Converts exceptions to a one-line UserError; NumPy, zipfile and zlib raise many types for damaged files."""
  return errors.convert_errors(f"{where}: not a readable NumPy file")


def of_member(
  path: str, file: Any, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str
) -> lazy_arrays.LazyArray:
  """Returns an array of an archive as a LazyArray; call it inside `with convert_errors(...)`.

  Args:
    path: Path of the archive.
    file: The open archive.
    archive: The same archive, opened by zipfile.
    info: The member that contains the array.
    where: Prefix of error messages.
  """
  with archive.open(info) as member:
    shape, fortran, dtype = _header(member)
    header = member.tell()
  possible = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED)
  if info.file_size != header + math.prod(shape) * dtype.itemsize or info.file_size > possible:
    raise ValueError(f"the size of {info.filename} does not match its header; save the archive again")
  file.seek(info.header_offset + _LOCAL_HEADER - 4)
  offset = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4))) + header

  def load():
    with convert_errors(where), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
      return arrays[info.filename]

  compressed = info.compress_type != zipfile.ZIP_STORED
  obstacle = "is compressed; save it with numpy.savez" if compressed else _FORTRAN if fortran else None
  return _mapped(path, info.filename, shape, dtype, offset=offset, obstacle=obstacle, load=load, where=where)


def of_file(path: pathlib.Path, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of a .npy file as a LazyArray; call it inside `with convert_errors(...)`."""
  if path.exists() and not path.is_file():
    raise ValueError(f"{path.name} is a folder, a pipe or a device; expected a .npy file")
  with open(path, "rb") as file:
    shape, fortran, dtype = _header(file)
    offset = file.tell()
    if os.fstat(file.fileno()).st_size < offset + math.prod(shape) * dtype.itemsize:
      raise ValueError(f"the size of {path.name} does not match its header; save the array again")

  def load():
    with convert_errors(where), open(path, "rb") as file:
      return np.load(file, allow_pickle=False)

  obstacle = _FORTRAN if fortran else None
  return _mapped(path, path.name, shape, dtype, offset=offset, obstacle=obstacle, load=load, where=where)


def file_array(path: pathlib.Path, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of a .npy file; raises UserError if it cannot be read."""
  with convert_errors(f"{where}: {path.name}"):
    return of_file(path, where)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Returns (shape, Fortran order, dtype) from the header of a file in NumPy format."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"it has NumPy format {version}; save a plain array, which has format (1, 0) or (2, 0)")
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
  shape: tuple[int, ...],
  dtype: np.dtype,
  *,
  offset: int,
  obstacle: str | None,
  load: Callable[[], np.ndarray],
  where: str,
) -> lazy_arrays.LazyArray:
  """Returns a LazyArray that reads rows through a memory map of a file.

  Args:
    path: File that contains the array.
    array: Name of the array in messages.
    shape: Shape of the array.
    dtype: Dtype of the array.
    offset: Position of the first element in the file, in bytes.
    obstacle: Why the file cannot be memory-mapped, and the fix; reading rows then raises UserError. None: it can be
      memory-mapped.
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
    with convert_errors(where):
      return np.asarray(memory_map()[indices])

  return lazy_arrays.LazyArray(shape, dtype, read, functools.cache(load))

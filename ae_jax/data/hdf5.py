"""Data source for HDF5 files. Arrays that exceed the memory budget are read row by row."""

import contextlib
import functools
import os
from typing import Any

import numpy as np
from jaxtyping import Int

from ae_jax import errors
from ae_jax.data import array_names, array_roles, lazy_arrays, splits

_CHUNK_CACHE = 2**26  # bytes of decompressed chunks that HDF5 keeps for each array


def hdf5(name: str, path: str, **options: Any) -> dict[str, Any]:
  """Reads the examples and labels of an HDF5 file; array names and arguments are the same as for `archives.npz`.

  An array in an HDF5 group has a name such as group/x. Rows are read when they are needed, so a file of any size can be
  streamed. Links to other files are not followed.
  """
  where, chosen = splits.where_of(name, path, ".h5 file"), array_names.Options(**options)
  headers = _arrays(path, where)
  stored, names = array_roles.read(headers, chosen, where)
  return array_roles.train_and_test(stored, names, chosen.layout, where, array_roles.unread(headers, names, where))


def largest(path: str) -> dict[str, str]:
  """Returns {"x": array name, "y": array name}, suggestions for `config.data`; see `array_names.largest`."""
  return array_names.largest(_arrays(path, f"config.data.path={path!r}"))


def arrays_of(path: str, where: str) -> dict[str, lazy_arrays.LazyArray]:
  """Returns the arrays of a file by name; their values are not read. `where` is the prefix of messages."""
  return {name: header() for name, header in _arrays(path, where).items()}


def _arrays(path: str, where: str) -> array_names.Headers:
  """Returns {array name: function that returns the array as a LazyArray} for all arrays of a file."""
  try:
    import h5py
  except ImportError:
    raise errors.UserError("config.data.name='hdf5': h5py is not installed; run `pip install 'ae_jax[hdf5]'`") from None

  @functools.cache
  def opened():
    return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)

  found = []

  def visit(key, item):
    # arrays with parts in other files are left out: a data file must not be able to make the program read other files
    if isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual):
      found.append(key)

  with _convert_errors(where):
    if os.path.isdir(path):
      raise ValueError("it is a folder")
    opened().visititems(visit)  # follows no links
  return {key: functools.partial(_array, opened, key, where) for key in found}


def _array(opened: Any, key: str, where: str) -> lazy_arrays.LazyArray:
  """Returns an array of an open file.

  String arrays are loaded into memory immediately, because NumPy needs the length of the longest string; numeric arrays
  are read lazily.
  """
  with _convert_errors(where):
    array = opened()[key]
    shape, dtype = array.shape, array.dtype
    if dtype.kind == "O":
      if len(shape) > 1 or dtype.metadata.get("vlen") not in (str, bytes):
        raise ValueError(f"`{key}` contains neither numbers nor strings; save an array of numbers")
      texts = array.asstr()[:].astype(str)
      return lazy_arrays.LazyArray(shape, texts.dtype, texts.__getitem__, lambda: texts)

  def read(indices):
    with _convert_errors(where):
      return _rows(array, indices)

  def load():
    with _convert_errors(where):
      return array[:]

  return lazy_arrays.LazyArray(shape, dtype, read, functools.cache(load))


def _rows(array: Any, indices: Int[np.ndarray, " rows"]) -> np.ndarray:
  """Returns rows of an array; each chunk of the file is decompressed at most once.

  HDF5 reads a list of indices one by one, which is many times slower than a slice.
  """
  step = array.chunks[0] if array.chunks else max(1, lazy_arrays.BLOCK // 4)
  rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
  chunks = indices // step
  for chunk in np.unique(chunks):
    positions = np.flatnonzero(chunks == chunk)
    wanted = indices[positions]
    first = wanted.min()
    rows[positions] = array[first : wanted.max() + 1][wanted - first]
  return rows


def _convert_errors(where: str) -> contextlib.AbstractContextManager[None]:
  """Converts exceptions to a one-line UserError; h5py raises many types for damaged files."""
  return errors.convert_errors(f"{where}: not a readable HDF5 file")

"""Arrays whose rows are read from files on demand. All functions also accept ndarrays."""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import DTypeLike

from ae_jax import errors
from ae_jax.types import AnyArray

BLOCK = 256  # maximum number of rows that a thread reads at a time, if they have more than `CACHED_VALUES` values
PART_BYTES = 2**26  # maximum size of each array that `parts` yields
PROBES = 1000  # number of random rows in `probe_indices`
SAMPLE_ROWS, SAMPLE_BYTES = 20_000, 2**28  # limits of `sample`
CACHED_VALUES = 2**16  # number of values that are processed at a time; as float64, they fit in the cache of a CPU
CACHED_ROWS = 2048  # number of rows of a table that are processed at a time; they fit in the cache of a CPU
_FEWEST_BLOCKS = 32  # minimum number of blocks for `map_blocks` to start threads, because threads take time to start

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, eq=False)
class LazyArray:
  """An array [N, ...] that reads its rows on demand: `array[slice or indices]` returns an ndarray.

  Indices are integers [K] in [0, N).
  """

  shape: tuple[int, ...]  # (N, ...)
  dtype: np.dtype
  read: Callable[[np.ndarray], np.ndarray]  # int64 [K] -> [K, ...]: reads only these rows; must be thread-safe
  # () -> [N, ...]: reads all rows, for example from a cache or with checksums; None: use `read`
  load: Callable[[], np.ndarray] | None = None
  in_memory: bool = False  # whether `read` selects rows of an ndarray, so that reading in small blocks is fast

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: slice | Sequence[int] | AnyArray) -> np.ndarray:
    indices = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.int64)
    return self.read(indices)


MaybeLazy = np.ndarray | LazyArray  # in memory, or in files


def map_rows(
  array: MaybeLazy, shape: tuple[int, ...], dtype: DTypeLike, function: Callable[[np.ndarray], np.ndarray]
) -> MaybeLazy:
  """Applies a function to the rows of an array. The result is lazy if the array is lazy.

  Args:
    array: Rows [N, ...].
    shape: Shape of a row of the result.
    dtype: Dtype of the result.
    function: Maps rows [K, ...] to rows [K, *shape]; each result must depend only on its own row.
  """
  if isinstance(array, np.ndarray):
    return function(array)
  return LazyArray(
    shape=(len(array), *shape),
    dtype=np.dtype(dtype),
    read=lambda indices: function(array.read(indices)),
    load=lambda: function(load_all(array)),
  )


def map_pairs(
  first: MaybeLazy, second: MaybeLazy, function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> MaybeLazy:
  """Applies a function to the rows of two arrays of equal length. The result is lazy if one of the arrays is lazy.

  Args:
    first: Rows [N, ...]; the result has their shape and dtype.
    second: Rows [N, ...].
    function: Maps rows of both arrays to rows; each result must depend only on its own pair of rows.
  """
  if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
    return function(first, second)
  return LazyArray(
    shape=first.shape,
    dtype=first.dtype,
    read=lambda indices: function(first[indices], second[indices]),
    load=lambda: function(load_all(first), load_all(second)),
  )


def checked(array: LazyArray, fault: Callable[[np.ndarray], str | None], name: str) -> LazyArray:
  """Returns a `LazyArray` of the same rows that raises UserError when it reads a row with a fault.

  Args:
    array: Rows [N, ...].
    fault: Maps rows [K, ...] or one row [...] to the end of an error message, or to None if they are valid.
    name: Start of the error message, which the index of the row follows.
  """

  def read(indices):
    rows = array.read(indices)
    if fault(rows):
      faults = ((index, fault(row)) for index, row in zip(indices, rows, strict=True))
      raise errors.UserError("{} {} {}".format(name, *next(pair for pair in faults if pair[1])))
    return rows

  return dataclasses.replace(array, read=read)


def of_memory(array: np.ndarray) -> LazyArray:
  """Returns a `LazyArray` of the rows of an ndarray; `take` and `map_rows` then copy no rows until it is read."""
  return LazyArray(array.shape, array.dtype, array.__getitem__, in_memory=True)


def map_blocks(function: Callable[[slice], Result], count: int, size: int) -> list[Result]:
  """Applies a function to blocks of rows in several threads, and returns the results in the order of the blocks.

  The results do not depend on the number of threads, because the blocks do not.

  Args:
    function: Function of a slice of rows; must be thread-safe.
    count: Number of rows.
    size: Number of rows of each block; the last block may have fewer.
  """
  blocks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
  if len(blocks) < _FEWEST_BLOCKS:
    return list(map(function, blocks))
  threads = os.cpu_count() or 1
  size = -(-len(blocks) // (8 * threads))  # a task for each block would take longer than some functions
  tasks = [blocks[start : start + size] for start in range(0, len(blocks), size)]
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    return list(itertools.chain.from_iterable(pool.map(lambda task: list(map(function, task)), tasks)))


def cached_rows(array: MaybeLazy) -> int:
  """Returns how many rows have `CACHED_VALUES` values, at least 1."""
  return max(1, CACHED_VALUES // max(1, math.prod(array.shape[1:])))


def take(array: MaybeLazy, mask: Bool[np.ndarray, " rows"]) -> MaybeLazy:
  """Returns the rows that a mask selects. For a `LazyArray`, the result is lazy, and no row is read here."""
  kept = np.flatnonzero(mask)
  if isinstance(array, np.ndarray):
    rows = np.empty((len(kept), *array.shape[1:]), array.dtype)
    map_blocks(lambda block: rows.__setitem__(block, array[kept[block]]), len(kept), cached_rows(array))
    return rows
  return LazyArray(
    shape=(len(kept), *array.shape[1:]),
    dtype=array.dtype,
    read=lambda indices: array.read(kept[indices]),
    load=lambda: load_all(array)[mask],
    in_memory=array.in_memory,
  )


def joined(arrays: Sequence[LazyArray], dtype: np.dtype) -> LazyArray:
  """Concatenates arrays along the first axis; the other axes have equal sizes. The result is lazy."""
  ends, shape = np.cumsum([len(array) for array in arrays]), arrays[0].shape[1:]

  def read(indices: np.ndarray) -> np.ndarray:
    numbers = np.searchsorted(ends, indices, side="right")
    rows = np.empty((len(indices), *shape), dtype)
    for number in np.unique(numbers):
      chosen = numbers == number
      rows[chosen] = arrays[number][indices[chosen] - (ends[number] - len(arrays[number]))]
    return rows

  return LazyArray((int(ends[-1]), *shape), dtype, read)


def load_all(array: MaybeLazy) -> np.ndarray:
  """Returns all rows as an ndarray, read by `LazyArray.load` if it is set."""
  return array.load() if isinstance(array, LazyArray) and array.load else read_all(array)


def read_all(array: MaybeLazy) -> np.ndarray:
  """Returns all rows as an ndarray, read by `LazyArray.read`."""
  return array if isinstance(array, np.ndarray) else read_rows(array, np.arange(len(array)))


def read_rows(array: MaybeLazy, indices: Int[np.ndarray, " rows"]) -> np.ndarray:
  """Returns the rows at `indices` [K] as an ndarray [K, ...], read by several threads."""
  rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
  # at least eight blocks per thread, so that no thread waits long for the last block
  size = min(max(BLOCK, cached_rows(array)), max(1, len(indices) // (8 * (os.cpu_count() or 1))))

  def fill(start):
    block = slice(start, start + size)
    rows[block] = array[indices[block]]

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(fill, range(0, len(indices), size)):
      pass
  return rows


def parts(array: MaybeLazy, indices: Int[np.ndarray, " rows"] | None = None) -> Iterator[np.ndarray]:
  """Yields the rows at `indices`, in order, as ndarrays of at most `PART_BYTES` bytes; a larger row is yielded alone.

  Without `indices`, it yields all rows, as views if `array` is an ndarray.
  """
  size = rows_per_part(array.shape[1:], array.dtype)
  for start in range(0, len(array) if indices is None else len(indices), size):
    part = slice(start, start + size)
    if indices is None:
      yield array[part] if isinstance(array, np.ndarray) else read_rows(array, np.arange(len(array))[part])
    else:
      yield read_rows(array, indices[part])


def probe_indices(count: int) -> Int[np.ndarray, " probes"]:
  """Returns sorted indices in [0, count): the first, the last, and up to 1,000 random ones (fixed seed)."""
  drawn = np.random.default_rng(0).integers(count, size=PROBES)
  return np.unique(np.concatenate([[0, count - 1], drawn]))


def examined(array: MaybeLazy) -> np.ndarray:
  """Returns an ndarray unchanged, or the rows of a `LazyArray` at `probe_indices` as an ndarray."""
  return array if isinstance(array, np.ndarray) else read_rows(array, probe_indices(len(array)))


def sample(array: MaybeLazy) -> np.ndarray:
  """Returns an ndarray unchanged, or a random sample of the rows of a `LazyArray` as an ndarray.

  The sample is drawn with a fixed seed and keeps the order of the rows. It has at most `SAMPLE_ROWS` rows and
  `SAMPLE_BYTES` bytes, but at least 2 rows.
  """
  return array if isinstance(array, np.ndarray) else read_rows(array, sample_indices(array))


def sample_indices(array: MaybeLazy) -> Int[np.ndarray, " rows"]:
  """Returns the indices of the rows that `sample` returns."""
  if isinstance(array, np.ndarray):
    return np.arange(len(array))
  size = min(len(array), SAMPLE_ROWS, max(2, SAMPLE_BYTES // row_bytes(array)))
  return np.sort(np.random.default_rng(0).choice(len(array), size, replace=False))


def rows_per_part(shape: Sequence[int], dtype: np.dtype) -> int:
  """Returns how many rows of this shape and dtype fit in `PART_BYTES` bytes, at least 1."""
  return max(1, PART_BYTES // max(1, math.prod(shape) * dtype.itemsize))


def row_bytes(array: MaybeLazy) -> int:
  """Returns the size of one row in memory, in bytes."""
  return max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)


def total_bytes(array: MaybeLazy) -> int:
  """Returns the size of all rows in memory, in bytes."""
  return len(array) * row_bytes(array)

"""Arrays whose rows stay in files until they are read. Every function here also accepts an ndarray."""

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import DTypeLike

from ae_jax.types import AnyArray

BLOCK = 256  # rows that one thread reads at a time
PART_BYTES = 2**26  # size limit of each array that `parts` yields
PROBES = 1000
SAMPLE_ROWS, SAMPLE_BYTES = 20_000, 2**28  # limits of `sample`


@dataclasses.dataclass(frozen=True, eq=False)
class LazyArray:
  """An array [N, ...] that reads its rows on demand: `array[slice or indices]` returns an ndarray.

  Indices are integers [K] from 0 to N - 1.
  """

  shape: tuple[int, ...]  # (N, ...)
  dtype: np.dtype
  read: Callable[[np.ndarray], np.ndarray]  # int64 [K] -> [K, ...]: reads these rows only; called from any thread
  load: Callable[[], np.ndarray] | None = (
    None  # () -> [N, ...]: reads all rows (cached, or with checksums); None: `read`
  )

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: slice | Sequence[int] | AnyArray) -> np.ndarray:
    indices = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.int64)
    return self.read(indices)


MaybeLazy = np.ndarray | LazyArray  # in memory, or in files


def map_rows(
  array: MaybeLazy, shape: tuple[int, ...], dtype: DTypeLike, function: Callable[[np.ndarray], np.ndarray]
) -> MaybeLazy:
  """Applies a function to the rows of an array; the result is lazy if the array is.

  Args:
    array: Rows [N, ...].
    shape: Shape of a row of the result.
    dtype: Dtype of the result.
    function: Maps rows [K, ...] to rows [K, *shape], each row on its own.
  """
  if isinstance(array, np.ndarray):
    return function(array)
  return LazyArray(
    shape=(len(array), *shape),
    dtype=np.dtype(dtype),
    read=lambda indices: function(array.read(indices)),
    load=lambda: function(load_all(array)),
  )


def take(array: MaybeLazy, mask: Bool[np.ndarray, " rows"]) -> MaybeLazy:
  """Returns the rows that a mask selects. The result is lazy if the array is; no row is read here."""
  if isinstance(array, np.ndarray):
    return array[mask]
  kept = np.flatnonzero(mask)
  return LazyArray(
    shape=(len(kept), *array.shape[1:]),
    dtype=array.dtype,
    read=lambda indices: array.read(kept[indices]),
    load=lambda: load_all(array)[mask],
  )


def load_all(array: MaybeLazy) -> np.ndarray:
  """Returns all rows in memory, by `LazyArray.load` where it is set."""
  return array.load() if isinstance(array, LazyArray) and array.load else read_all(array)


def read_all(array: MaybeLazy) -> np.ndarray:
  """Returns all rows in memory, by `LazyArray.read`."""
  return array if isinstance(array, np.ndarray) else read_rows(array, np.arange(len(array)))


def read_rows(array: MaybeLazy, indices: Int[np.ndarray, " rows"]) -> np.ndarray:
  """Returns the rows at `indices` [K] as an ndarray [K, ...]; several threads read them."""
  rows = np.empty((len(indices), *array.shape[1:]), array.dtype)

  def fill(start):
    block = slice(start, start + BLOCK)
    rows[block] = array[indices[block]]

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(fill, range(0, len(indices), BLOCK)):
      pass
  return rows


def parts(array: MaybeLazy, indices: Int[np.ndarray, " rows"]) -> Iterator[np.ndarray]:
  """Yields the rows at `indices`, in order, in ndarrays of at most `PART_BYTES` (or one row)."""
  size = max(1, PART_BYTES // row_bytes(array))
  for start in range(0, len(indices), size):
    yield read_rows(array, indices[start : start + size])


def probe_indices(count: int) -> Int[np.ndarray, " probes"]:
  """Returns sorted indices below `count`: the first, the last, and 1,000 drawn with a fixed seed."""
  drawn = np.random.default_rng(0).integers(count, size=PROBES)
  return np.unique(np.concatenate([[0, count - 1], drawn]))


def sample(array: MaybeLazy) -> np.ndarray:
  """Returns an ndarray itself, or a sample in memory of a LazyArray.

  The sample is drawn with a fixed seed and keeps the order of the rows. It has at most `SAMPLE_ROWS` rows and
  `SAMPLE_BYTES` bytes.
  """
  if isinstance(array, np.ndarray):
    return array
  size = min(len(array), SAMPLE_ROWS, max(2, SAMPLE_BYTES // row_bytes(array)))
  return read_rows(array, np.sort(np.random.default_rng(0).choice(len(array), size, replace=False)))


def row_bytes(array: MaybeLazy) -> int:
  """Returns the size of one row in memory."""
  return max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)


def total_bytes(array: MaybeLazy) -> int:
  """Returns the size of all rows in memory."""
  return len(array) * row_bytes(array)

"""Examples that stay in their files until they are asked for; an ndarray is such rows too, all of them at hand."""

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np

BLOCK = 256  # rows that a thread reads at a time
PART_BYTES = 2**26  # of what `parts` gives at a time
PROBES = 1000
SAMPLE_ROWS, SAMPLE_BYTES = 20_000, 2**28  # at most, of `sample`


@dataclasses.dataclass(frozen=True, eq=False)
class LazyArray:
  """LazyArray [N, ...] read on demand: `rows[a slice, or integers [K] from 0 to N - 1]` is an ndarray [K, ...]."""

  shape: tuple[int, ...]  # (N, ...)
  dtype: np.dtype
  read: Callable  # int64 [K] -> ndarray [K, ...]; of these rows only, and from any thread
  load: Callable | None = None  # () -> ndarray [N, ...]: all, from a cache or checked better; None: as `read` has them

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, index):
    numbers = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.int64)
    return self.read(numbers)


def mapped(rows, shape, dtype, function):
  """Each row through a function of ndarrays [K, ...]; `shape` is that of a row. What is lazy stays so."""
  if isinstance(rows, np.ndarray):
    return function(rows)
  return LazyArray(
    shape=(len(rows), *shape),
    dtype=np.dtype(dtype),
    read=lambda numbers: function(rows.read(numbers)),
    load=lambda: function(loaded(rows)),
  )


def take(rows, mask):
  """The rows of a mask [N]. What is lazy stays so, and none of it is read."""
  if isinstance(rows, np.ndarray):
    return rows[mask]
  kept = np.flatnonzero(mask)
  return LazyArray(
    shape=(len(kept), *rows.shape[1:]),
    dtype=rows.dtype,
    read=lambda numbers: rows.read(kept[numbers]),
    load=lambda: loaded(rows)[mask],
  )


def loaded(rows):
  """All rows as an ndarray, by `LazyArray.load`."""
  return rows.load() if isinstance(rows, LazyArray) and rows.load else gathered(rows)


def gathered(rows):
  """All rows as an ndarray, by `LazyArray.read`."""
  return rows if isinstance(rows, np.ndarray) else gather(rows, np.arange(len(rows)))


def gather(rows, numbers):
  """The rows of these numbers [K], as an ndarray [K, ...], read by a few threads."""
  found = np.empty((len(numbers), *rows.shape[1:]), rows.dtype)

  def fill(start):
    block = slice(start, start + BLOCK)
    found[block] = rows[numbers[block]]

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(fill, range(0, len(numbers), BLOCK)):
      pass
  return found


def parts(rows, numbers):
  """Generates the rows of these numbers, in order, as ndarrays of a bounded size."""
  size = max(1, PART_BYTES // bytes_of_a_row(rows))
  for start in range(0, len(numbers), size):
    yield gather(rows, numbers[start : start + size])


def probes(count):
  """The numbers of some of `count` rows, sorted: the first, the last, and 1,000 drawn with a fixed seed."""
  drawn = np.random.default_rng(0).integers(count, size=PROBES)
  return np.unique(np.concatenate([[0, count - 1], drawn]))


def sample(rows):
  """LazyArray that speak for all, as an ndarray: the ndarray itself, or lazy ones drawn with a fixed seed, all if few."""
  if isinstance(rows, np.ndarray):
    return rows
  size = min(len(rows), SAMPLE_ROWS, max(2, SAMPLE_BYTES // bytes_of_a_row(rows)))
  return gather(rows, np.sort(np.random.default_rng(0).choice(len(rows), size, replace=False)))


def bytes_of_a_row(rows):
  """The size of a row in memory."""
  return max(1, math.prod(rows.shape[1:]) * rows.dtype.itemsize)


def bytes_of(rows):
  """The size of all rows in memory."""
  return len(rows) * bytes_of_a_row(rows)

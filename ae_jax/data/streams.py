"""Training examples that Grain's threads read while the device trains, in the order of a `BatchSchedule`."""

import functools
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int

from ae_jax.data import batch_schedule, lazy_arrays

PREFETCHED_BYTES = 2**28  # limit of the batches that are read ahead, unless a single batch is larger
_MOST_THREADS = 16

Positions = slice | Int[np.ndarray, "positions"]  # in a padded batch


def chunks(
  examples: Mapping[str, lazy_arrays.MaybeLazy],
  schedule: batch_schedule.BatchSchedule,
  first: int,
  last: int,
  positions: Positions = slice(None),
) -> Generator[tuple[dict[str, np.ndarray], Float32[np.ndarray, "steps positions"]], None, None]:
  """Yields the chunks `first` to `last` - 1 of a run, counted from its beginning: (columns, weights).

  Chunk c holds the rows that `schedule.chunks(c // chunks_per_epoch)[c % chunks_per_epoch]` lists; padding repeats row
  0 with weight 0. The order is a function of the seed and the chunk, so no reader state needs saving. Close the
  generator (`contextlib.closing`) to end its threads.

  Args:
    examples: Columns {"x": [N, ...], ...}.
    schedule: Order of the examples.
    first: First chunk.
    last: End of the chunks (exclusive).
    positions: Positions in each padded batch that this process holds; it reads no rows of other positions.

  Yields:
    {"x": [chunk, positions, elements], other columns: [chunk, positions]} in their dtypes, and weights
    [chunk, positions].

  Raises:
    UserError: If a file is damaged. Other exceptions of reading pass unchanged.
  """
  import grain  # takes half a second; a run in memory does not need it

  read = functools.partial(_read, examples, positions, schedule.steps, _order(schedule))
  count = len(np.arange(schedule.padded_batch_size)[positions])
  ahead = PREFETCHED_BYTES // (count * lazy_arrays.row_bytes(examples["x"]))
  ahead = min(max(ahead, 1), 2 * schedule.chunk)
  options = grain.ReadOptions(num_threads=min(os.cpu_count() or 1, _MOST_THREADS, ahead), prefetch_buffer_size=ahead)
  steps = grain.MapDataset.range(first * schedule.chunk, last * schedule.chunk).map(read)
  batches = iter(steps.to_iter_dataset(options))
  try:
    for _ in range(first, last):
      yield _stacked(batches, schedule.chunk)
  finally:
    batches.close()


def _order(schedule: batch_schedule.BatchSchedule) -> Callable[[int], batch_schedule.Batches]:
  """Returns `schedule.batches` with a thread-safe cache of two epochs: prefetching crosses from one to the next."""
  lock = threading.Lock()
  cached = functools.lru_cache(2)(schedule.batches)

  def batches(epoch):
    with lock:
      return cached(epoch)

  return batches


def _read(examples, positions, steps, order, step):
  """Returns the batch of a step of the run: (columns, weights [positions])."""
  epoch, row = divmod(step, steps)
  indices, weights = order(epoch)
  distinct, inverse = np.unique(
    indices[row, positions], return_inverse=True
  )  # reads each row once, in the order of the file
  columns = {name: column[distinct][inverse] for name, column in examples.items()}
  columns["x"] = columns["x"].reshape(len(columns["x"]), -1)
  return columns, weights[row, positions]


def _stacked(batches: Iterator[Any], count: int) -> Any:
  """Returns the next `count` batches stacked into one chunk.

  Batches are copied as they arrive, because stacking a list would hold them in memory twice.
  """
  arrays = None
  for position in range(count):
    batch = next(batches)
    arrays = arrays or jax.tree.map(lambda part: np.empty((count, *part.shape), part.dtype), batch)
    for array, part in zip(jax.tree.leaves(arrays), jax.tree.leaves(batch), strict=True):
      array[position] = part
  return arrays

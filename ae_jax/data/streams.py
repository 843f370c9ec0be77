"""Reads training examples in background threads (Grain) during training, in the order of a `BatchSchedule`."""

import functools
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int

from ae_jax.data import batch_schedule, lazy_arrays
from ae_jax.data import columns as column_arrays

PREFETCHED_BYTES = 2**28  # maximum size of the batches that are read ahead, unless a single batch is larger
_MOST_THREADS = 16

Positions = slice | Int[np.ndarray, "positions"]  # positions of rows in a padded batch


def chunks(
  examples: Mapping[str, lazy_arrays.MaybeLazy],
  schedule: batch_schedule.BatchSchedule,
  first: int,
  last: int,
  positions: Positions = slice(None),
) -> Generator[tuple[dict[str, np.ndarray], Float32[np.ndarray, "steps positions"]], None, None]:
  """Yields the chunks of a run with numbers in [first, last) as (columns, weights).

  A chunk contains the batches of the steps that one compiled call runs. Chunks are numbered from the start of the run.
  Chunk c contains the rows listed in `schedule.chunks(c // chunks_per_epoch)[c % chunks_per_epoch]`. Padding repeats
  row 0 with weight 0. The order depends only on the seed and on c, so no reader state has to be saved. Close the
  generator (`contextlib.closing`) to end its threads.

  Args:
    examples: Columns of the training set, {"x": [N, ...], ...}.
    schedule: Order of the examples.
    first: Number of the first chunk.
    last: Number of the last chunk, plus 1.
    positions: Rows of each padded batch that this process holds; other rows are not read.

  Yields:
    Columns {"x": [chunk, positions, elements], "label": [chunk, positions], ...} with unchanged dtypes, and weights
    [chunk, positions].

  Raises:
    UserError: A file is damaged. Other exceptions during reading are not converted.
  """
  import grain  # takes half a second, and data in memory do not need it

  read = functools.partial(_read, examples, positions, schedule.steps, _order(schedule))
  count = len(np.arange(schedule.padded_batch_size)[positions])
  row_bytes = sum(lazy_arrays.row_bytes(examples[name]) for name in column_arrays.SHAPED if name in examples)
  ahead = PREFETCHED_BYTES // (count * row_bytes)
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
  """Returns `schedule.batches` with a thread-safe cache of two epochs.

  Two epochs are needed at the same time, because the last batches of an epoch and the first of the next are prefetched
  together.
  """
  lock = threading.Lock()
  cached = functools.lru_cache(2)(schedule.batches)

  def batches(epoch):
    with lock:
      return cached(epoch)

  return batches


def _read(examples, positions, steps, order, step):
  """Returns the batch of a step as (columns, weights [positions]); steps are counted from the start of the run."""
  epoch, row = divmod(step, steps)
  indices, weights = order(epoch)
  # reads each row once, in the order of the file
  distinct, inverse = np.unique(indices[row, positions], return_inverse=True)
  columns = column_arrays.flat({name: column[distinct][inverse] for name, column in examples.items()})
  return columns, weights[row, positions]


def _stacked(batches: Iterator[Any], count: int) -> Any:
  """Returns the next `count` batches, stacked into one chunk.

  Each batch is copied when it arrives, because stacking a list of batches would keep them in memory twice.
  """
  arrays = None
  for position in range(count):
    batch = next(batches)
    arrays = arrays or jax.tree.map(lambda part: np.empty((count, *part.shape), part.dtype), batch)
    for array, part in zip(jax.tree.leaves(arrays), jax.tree.leaves(batch), strict=True):
      array[position] = part
  return arrays

"""Training examples that are read while the device trains: Grain's threads, in the order of `ae_jax.data.batch_schedule`."""

import functools
import os
import threading

import jax
import numpy as np

from ae_jax.data import lazy_arrays

PREFETCHED_BYTES = 2**28  # of batches that are read ahead, at most, unless a single one is larger
_MOST_THREADS = 16


def chunks(examples, schedule, first, last, columns=slice(None)):
  """Generates the chunks `first` to `last` - 1 of a run, counted from its beginning: (examples, weights).

  `examples` are columns {"x": ndarray or `lazy_arrays.LazyArray` [N, ...], ...}, `schedule` is their `epochs.BatchSchedule`. Each chunk has
  the columns {"x": [schedule.chunk, slots, elements], others: [schedule.chunk, slots]}, in their dtypes, and weights float32
  [schedule.chunk, slots]: chunk c holds what `schedule.chunks(c // chunks per epoch)[c % chunks per epoch]` points at, row 0
  where the weight is 0. `columns` are the
  slots of a batch that this process holds (a slice or integers); no row of the others is read. The order is a function
  of the seed and the chunk, so that there is nothing to save. Raises what reading raises: UserError for a damaged file.
  Close the generator (`contextlib.closing`) and its threads end.
  """
  import grain  # half a second of imports that a run in memory does without

  read = functools.partial(_read, examples, columns, schedule.steps, _order(schedule))
  slots = len(np.arange(schedule.padded_batch_size)[columns])
  ahead = PREFETCHED_BYTES // (slots * lazy_arrays.bytes_of_a_row(examples["x"]))
  ahead = min(max(ahead, 1), 2 * schedule.chunk)
  options = grain.ReadOptions(num_threads=min(os.cpu_count() or 1, _MOST_THREADS, ahead), prefetch_buffer_size=ahead)
  steps = grain.MapDataset.range(first * schedule.chunk, last * schedule.chunk).map(read)
  batches = iter(steps.to_iter_dataset(options))
  try:
    for _ in range(first, last):
      yield _together(batches, schedule.chunk)
  finally:
    batches.close()


def _order(schedule):
  """The function `schedule.batches`, computed once an epoch whichever thread asks; two epochs are kept, for the seam."""
  lock = threading.Lock()
  remembered = functools.lru_cache(2)(schedule.batches)

  def batches(epoch):
    with lock:
      return remembered(epoch)

  return batches


def _read(examples, columns, steps, order, step):
  """The batch of a step of the run: (examples [slots, elements], weights [slots])."""
  epoch, row = divmod(step, steps)
  indices, weights = order(epoch)
  numbers, places = np.unique(indices[row, columns], return_inverse=True)  # each once and in the order of the file
  found = {name: column[numbers][places] for name, column in examples.items()}
  found["x"] = found["x"].reshape(len(found["x"]), -1)
  return found, weights[row, columns]


def _together(batches, count):
  """The next `count` batches as one chunk; copied as they come, so that they are not all in memory twice."""
  arrays = None
  for place in range(count):
    batch = next(batches)
    arrays = arrays or jax.tree.map(lambda part: np.empty((count, *part.shape), part.dtype), batch)
    for array, part in zip(jax.tree.leaves(arrays), jax.tree.leaves(batch), strict=True):
      array[place] = part
  return arrays

"""The order of the training examples: the batch of each step is a function of (seed, step) alone."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int, Int32

LONGEST_CHUNK = 64  # steps of one compiled chunk: milliseconds of dispatch against seconds of training
CHUNK_BYTES = 2**28  # limit of the examples in one chunk, unless a single step has more

Batches = tuple[Int32[np.ndarray, "steps batch"], Float32[np.ndarray, "steps batch"]]  # row indices, weights


@dataclasses.dataclass(frozen=True)
class BatchSchedule:
  """Division of the examples of each epoch into steps.

  An epoch is a permutation of the examples, cut into `steps` batches. Batch sizes differ by at most one and never
  exceed `batch_size`, so each example occurs once per epoch and no batch is a remainder. `steps` is a multiple of
  `chunk`, so that one compiled chunk serves the whole run. Batches are padded to `padded_batch_size` rows.
  """

  examples: int
  batch_size: int
  devices: int  # padded_batch_size is a multiple of it
  seed: int
  row_bytes: int = 1  # size of one example; limits the chunks that a stream brings to the device

  @property
  def chunk(self) -> int:
    """Steps in a compiled chunk."""
    steps = -(-self.examples // self.batch_size)
    return -(-steps // self.chunks_per_epoch)

  @property
  def steps(self) -> int:
    """Steps in an epoch."""
    return self.chunks_per_epoch * self.chunk

  @property
  def padded_batch_size(self) -> int:
    """Rows of a padded batch: batch_size, rounded up to a multiple of the devices."""
    return _round_up(self.batch_size, self.devices)

  @property
  def chunks_per_epoch(self) -> int:
    """Compiled chunks in an epoch."""
    longest = max(1, min(LONGEST_CHUNK, CHUNK_BYTES // (self.batch_size * self.row_bytes)))
    if self.batch_size == 1:  # rounding up would give more steps than examples
      counts = range(-(-self.examples // longest), self.examples + 1)
      return next(count for count in counts if self.examples % count == 0)
    return -(-self.examples // (self.batch_size * longest))

  def batches(self, epoch: int) -> Batches:
    """Returns the row indices and weights of an epoch, [steps, padded_batch_size]; padding has weight 0."""
    order = np.random.default_rng((self.seed, epoch)).permutation(self.examples)
    return cut(order, self.steps, self.padded_batch_size)

  def chunks(self, epoch: int) -> list[Batches]:
    """Returns the batches of an epoch chunk by chunk: (indices, weights), each [chunk, padded_batch_size]."""
    indices, weights = self.batches(epoch)
    starts = range(0, self.steps, self.chunk)
    return [(indices[start : start + self.chunk], weights[start : start + self.chunk]) for start in starts]


def evaluation_batches(examples: int, batch_size: int, devices: int) -> Batches:
  """Returns row indices and weights [batches, padded_batch_size] for evaluation: all examples once, in order."""
  return cut(np.arange(examples), -(-examples // batch_size), _round_up(min(batch_size, examples), devices))


def cut(order: Int[np.ndarray, " examples"], count: int, padded_batch_size: int) -> Batches:
  """Cuts an order of examples into `count` batches of nearly equal size, padded to `padded_batch_size` rows."""
  indices = np.zeros((count, padded_batch_size), np.int32)
  weights = np.zeros((count, padded_batch_size), np.float32)
  for row, part in enumerate(np.array_split(order, count)):
    indices[row, : len(part)] = part
    weights[row, : len(part)] = 1.0
  return indices, weights


def _round_up(size, multiple):
  return -(-size // multiple) * multiple

"""The order of the data: which examples the batch of a step holds, as a function of (seed, step) and nothing else."""

import dataclasses

import numpy as np

LONGEST_CHUNK = 64  # steps of one compiled chunk: milliseconds of dispatch against seconds of training
CHUNK_BYTES = 2**28  # of examples in a chunk, at most, unless a single step has more


@dataclasses.dataclass(frozen=True)
class BatchSchedule:
  """How `examples` are cut into steps.

  An epoch is a permutation of the examples cut into `steps` batches whose sizes differ by at most one and never exceed
  `batch_size`; so each example comes once an epoch and no batch is a remainder. `steps` is a multiple of `chunk`, so
  that one compiled chunk serves the whole run. Batches are padded to `padded_batch_size` rows.
  """

  examples: int
  batch_size: int
  devices: int  # padded_batch_size are a multiple of it
  seed: int
  row_bytes: int = 1  # of an example, which a stream brings to the device a chunk at a time

  @property
  def chunk(self):
    """Steps in a compiled chunk."""
    steps = -(-self.examples // self.batch_size)
    return -(-steps // self.chunks_per_epoch)

  @property
  def steps(self):
    """Steps in an epoch."""
    return self.chunks_per_epoch * self.chunk

  @property
  def padded_batch_size(self):
    """Rows of a padded batch: batch_size, rounded up to a multiple of the devices."""
    return _round_up(self.batch_size, self.devices)

  @property
  def chunks_per_epoch(self):
    """Compiled chunks in an epoch."""
    longest = max(1, min(LONGEST_CHUNK, CHUNK_BYTES // (self.batch_size * self.row_bytes)))
    if self.batch_size == 1:  # steps rounded up would be more than there are examples
      counts = range(-(-self.examples // longest), self.examples + 1)
      return next(count for count in counts if self.examples % count == 0)
    return -(-self.examples // (self.batch_size * longest))

  def batches(self, epoch):
    """The batches of an epoch: row indices int32 and weights float32, both [steps, padded_batch_size]; padding has weight 0."""
    order = np.random.default_rng((self.seed, epoch)).permutation(self.examples)
    return cut(order, self.steps, self.padded_batch_size)

  def chunks(self, epoch):
    """The same a chunk at a time: a list of (indices, weights), each [chunk, padded_batch_size]."""
    indices, weights = self.batches(epoch)
    starts = range(0, self.steps, self.chunk)
    return [(indices[start : start + self.chunk], weights[start : start + self.chunk]) for start in starts]


def in_order(examples, batch_size, devices):
  """All examples once, in order, for evaluation: row indices and weights, both [batches, padded_batch_size]."""
  return cut(np.arange(examples), -(-examples // batch_size), _round_up(min(batch_size, examples), devices))


def cut(order, count, padded_batch_size):
  """Cuts an order [N] into `count` batches of nearly equal size: indices int32, weights float32 [count, padded_batch_size]."""
  indices = np.zeros((count, padded_batch_size), np.int32)
  weights = np.zeros((count, padded_batch_size), np.float32)
  for row, part in enumerate(np.array_split(order, count)):
    indices[row, : len(part)] = part
    weights[row, : len(part)] = 1.0
  return indices, weights


def _round_up(size, multiple):
  return -(-size // multiple) * multiple

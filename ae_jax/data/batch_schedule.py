"""Order of the training examples. The batch of a step depends only on the seed and the step."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int, Int32

LONGEST_CHUNK = 64  # maximum number of steps per compiled call (chunk); dispatching a call takes milliseconds
CHUNK_BYTES = 2**28  # maximum size of the examples of a chunk, unless a single step is larger

Batches = tuple[Int32[np.ndarray, "steps batch"], Float32[np.ndarray, "steps batch"]]  # row indices, weights


@dataclasses.dataclass(frozen=True)
class BatchSchedule:
  """Divides each epoch into batches (one per step) and chunks (the steps that one compiled call runs).

  An epoch is a random permutation of the examples, divided into `steps` batches. Each example occurs once per epoch.
  Batch sizes differ by at most one and never exceed `batch_size`, so there is no small last batch. `steps` is a
  multiple of `chunk`, so one compiled function serves the whole run. Batches are padded to `padded_batch_size` rows.
  """

  examples: int
  batch_size: int
  devices: int  # number of devices * number of microbatches per step; padded_batch_size is a multiple of this product
  seed: int
  row_bytes: int = 1  # size of one example; limits the number of steps per chunk (`CHUNK_BYTES`)

  @property
  def chunk(self) -> int:
    """Number of steps per compiled call."""
    steps = -(-self.examples // self.batch_size)
    return -(-steps // self.chunks_per_epoch)

  @property
  def steps(self) -> int:
    """Number of steps per epoch."""
    return self.chunks_per_epoch * self.chunk

  @property
  def padded_batch_size(self) -> int:
    """Number of rows of a padded batch: `batch_size`, rounded up to a multiple of `devices`."""
    return _round_up(self.batch_size, self.devices)

  @property
  def chunks_per_epoch(self) -> int:
    """Number of compiled calls (of several steps each) per epoch."""
    longest = max(1, min(LONGEST_CHUNK, CHUNK_BYTES // (self.batch_size * self.row_bytes)))
    if self.batch_size == 1:  # rounding up would give more steps than examples
      counts = range(-(-self.examples // longest), self.examples + 1)
      return next(count for count in counts if self.examples % count == 0)
    return -(-self.examples // (self.batch_size * longest))

  def batches(self, epoch: int) -> Batches:
    """Returns row indices and weights of an epoch, both [steps, padded_batch_size]; padding rows have weight 0."""
    order = np.random.default_rng((self.seed, epoch)).permutation(self.examples)
    return cut(order, self.steps, self.padded_batch_size)

  def chunks(self, epoch: int) -> list[Batches]:
    """Returns the batches of an epoch as a list of chunks (row indices, weights), both [chunk, padded_batch_size]."""
    indices, weights = self.batches(epoch)
    starts = range(0, self.steps, self.chunk)
    return [(indices[start : start + self.chunk], weights[start : start + self.chunk]) for start in starts]


def evaluation_batches(examples: int, batch_size: int, devices: int) -> Batches:
  """Returns row indices and weights, both [batches, padded_batch_size]; each example occurs once, in stored order."""
  return cut(np.arange(examples), -(-examples // batch_size), _round_up(min(batch_size, examples), devices))


def cut(order: Int[np.ndarray, " examples"], count: int, padded_batch_size: int) -> Batches:
  """Divides row indices into `count` batches of nearly equal size, padded to `padded_batch_size` rows.

  Returns row indices and weights, both [count, padded_batch_size]; padding rows have weight 0.
  """
  indices = np.zeros((count, padded_batch_size), np.int32)
  weights = np.zeros((count, padded_batch_size), np.float32)
  for row, part in enumerate(np.array_split(order, count)):
    indices[row, : len(part)] = part
    weights[row, : len(part)] = 1.0
  return indices, weights


def _round_up(size, multiple):
  return -(-size // multiple) * multiple

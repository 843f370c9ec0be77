"""What the studies of the evaluators are given: a trained model, and the data that it is studied on."""

import dataclasses
import functools

import jax
import numpy as np

from ae_jax import data, runs, steps
from ae_jax.data import ranges, rows

MOST_TRAINING = 10_000  # examples, by a fixed seed, that speak for the training set
_BATCH = 512  # examples that `each` puts through the model at once


@dataclasses.dataclass(frozen=True)
class Subject:
  """A trained model and its data; what several studies need is computed once.

  Examples are float32 [N, ...] in the run's range; what is random is a function of the run's seed.
  """

  run: runs.Run
  dataset: data.Dataset
  rulers: dict = dataclasses.field(default_factory=dict)  # those of `reconstruction`, where they are known

  @functools.cached_property
  def test(self):
    """All test examples."""
    return ranges.normalise(self.dataset.test, self.dataset.value_range)

  @property
  def test_labels(self):
    """Their labels, integers [N]; None where there are none."""
    return integers(self.dataset.test_labels)

  @functools.cached_property
  def test_codes(self):
    """Their codes [N, latent]."""
    return self.run.apply("encode", self.test)

  @property
  def has_skips(self):
    """Whether the decoder sees more of an example than its code."""
    return self.run.model.can("decode_beside") and self.run.config.model.skips != "none"

  @functools.cached_property
  def reconstructed(self):
    """Their reconstructions."""
    return self.run.apply("reconstruct", self.test)

  @functools.cached_property
  def squared_errors(self):
    """Their squared reconstruction errors, float64 [N]."""
    return np.square(self.reconstructed - self.test, dtype=np.float64).reshape(len(self.test), -1).sum(1)

  @functools.cached_property
  def _train_rows(self):
    """Which training examples speak for all."""
    size = len(self.dataset.train)
    return np.sort(np.random.default_rng(0).permutation(size)[:MOST_TRAINING])

  @functools.cached_property
  def train(self):
    """Training examples, at most 10,000."""
    return ranges.normalise(rows.gather(self.dataset.train, self._train_rows), self.dataset.value_range)

  @functools.cached_property
  def train_labels(self):
    """Their labels, integers [N]; None where there are none."""
    labels = self.dataset.train_labels
    return None if labels is None else integers(rows.gather(labels, self._train_rows))

  @property
  def train_factors(self):
    """What they were made of, int [N, factors]; None where that is not known."""
    factors = self.dataset.train_factors
    return None if factors is None else factors[self._train_rows]

  @functools.cached_property
  def train_codes(self):
    """Their codes [N, latent]."""
    return self.run.apply("encode", self.train)

  def generator(self):
    """A NumPy generator of what is random in a study."""
    return np.random.default_rng(self.run.config.seed)

  def each(self, function, *arrays):
    """A pure function (params, rows of each array, keys [B]) -> pytree of [B, ...], over all rows, on the device.

    Results are NumPy arrays [N, ...]. A row's key depends on its number alone, so that nothing depends on the batches.
    """
    key, call = jax.random.key(self.run.config.seed), jax.jit(function)
    found, size = [], min(_BATCH, 1 << (len(arrays[0]) - 1).bit_length())
    for start in range(0, len(arrays[0]), size):
      numbers = np.arange(start, start + size)
      batch = [array[np.minimum(numbers, len(array) - 1)] for array in arrays]
      result = call(self.run.params, *batch, steps.example_keys(key, numbers))
      found.append(jax.tree.map(lambda leaf, start=start: np.asarray(leaf)[: len(arrays[0]) - start], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def shown(count, examples):
  """Numbers of some of `examples` examples, at most `count`, at even distances: those that pictures show."""
  return np.linspace(0, examples - 1, min(count, examples)).astype(int)


def integers(labels):
  """Labels as integers [N], if that is what they are."""
  return labels if labels is not None and np.issubdtype(labels.dtype, np.integer) else None

"""What the analyses of the evaluators are given: a trained model, and the data that it is analyzed on."""

import dataclasses
import functools

import jax
import numpy as np

from ae_jax import api, data
from ae_jax.data import lazy_arrays, ranges
from ae_jax.ops import randomness

MOST_TRAINING = 10_000  # examples, by a fixed seed, that speak for the training set
_BATCH = 512  # examples that `each` puts through the model at once


@dataclasses.dataclass(frozen=True)
class EvalContext:
  """A trained model and its data; what several analyses need is computed once.

  Examples are float32 [N, ...] in the run's range; what is random is a function of the run's seed.
  """

  run: api.Run
  dataset: data.Dataset
  baselines: dict = dataclasses.field(default_factory=dict)  # those of `reconstruction`, where they are known

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
    """Their latent codes as vectors [N, numbers]."""
    return as_vectors(self.run.apply("encode", self.test, self.given("test")))

  @functools.cached_property
  def reconstructed(self):
    """Their reconstructions."""
    return self.run.apply("reconstruct", self.test, self.given("test"))

  def given(self, half, numbers=None):
    """Returns the columns, besides x, that the model needs of the "test" or the "train" examples.

    `numbers` chooses some of the examples of the half, as `test` and `train` have them; None: all.
    """
    columns = data.of_half(self.dataset, half, self.run.model)
    del columns["x"]
    chosen = np.arange(len(self.test)) if half == "test" else self._train_rows
    chosen = chosen if numbers is None else chosen[numbers]
    return {name: lazy_arrays.gather(column, chosen) for name, column in columns.items()}

  def attention(self, numbers):
    """Returns the attention weights of test examples with these numbers; see `api.Run.attention`."""
    return self.run.attention_of(self.test[numbers], self.given("test", numbers))

  def reconstruct(self, x, numbers):
    """Returns the reconstructions of examples, which are those of the test set with these numbers, or made of them."""
    return self.run.apply("reconstruct", x, self.given("test", numbers))

  def decode(self, vectors, given=None):
    """Returns the examples that latent codes, as vectors [N, numbers], decode to.

    `given` holds the other columns that the model needs; without it those of the first test examples.
    """
    if given is None:
      given = self.given("test", np.arange(len(vectors)) % len(self.test))
    return self.run.apply("decode", vectors.reshape(len(vectors), *self.run.model.code.shape), given)

  def prior_codes(self, count):
    """Returns `count` latent codes, as vectors [count, numbers], drawn from the model's prior by the run's seed."""
    draw = jax.jit(self.run.model.sample_prior, static_argnums=2)
    return as_vectors(np.asarray(draw(self.run.variables, jax.random.key(self.run.config.seed), count)))

  def possible_codes(self, vectors):
    """Returns the nearest codes that the encoder can output, for vectors [N, numbers]; float32."""
    code = self.run.model.code
    codes = np.clip(vectors, code.low, code.high).astype(np.float32)
    return as_vectors(self.run.apply("nearest", codes.reshape(len(codes), *code.shape), {}))

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
    return ranges.normalise(lazy_arrays.gather(self.dataset.train, self._train_rows), self.dataset.value_range)

  @functools.cached_property
  def train_labels(self):
    """Their labels, integers [N]; None where there are none."""
    labels = self.dataset.train_labels
    return None if labels is None else integers(lazy_arrays.gather(labels, self._train_rows))

  @property
  def train_factors(self):
    """What they were made of, int [N, factors]; None where that is not known."""
    factors = self.dataset.train_factors
    return None if factors is None else factors[self._train_rows]

  @functools.cached_property
  def train_codes(self):
    """Their latent codes as vectors [N, numbers]."""
    return as_vectors(self.run.apply("encode", self.train, self.given("train")))

  def generator(self):
    """A NumPy generator of what is random in a analyze."""
    return np.random.default_rng(self.run.config.seed)

  def each(self, function, *arrays):
    """Computes a pure function (variables, rows of each array, keys [B]) -> pytree of [B, ...] over all rows.

    Arrays may be trees of arrays. Results are NumPy arrays [N, ...]. A row's key depends on its number alone, so that
    nothing depends on the batches.
    """
    key, call = jax.random.key(self.run.config.seed), jax.jit(function)
    count, found = len(arrays[0]), []
    size = min(_BATCH, 1 << (count - 1).bit_length())
    for start in range(0, count, size):
      numbers = np.arange(start, start + size)
      batch = jax.tree.map(lambda array, numbers=numbers: array[np.minimum(numbers, count - 1)], arrays)
      result = call(self.run.variables, *batch, randomness.example_keys(key, numbers))
      found.append(jax.tree.map(lambda leaf, start=start: np.asarray(leaf)[: count - start], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def as_vectors(codes):
  """Returns codes [N, *code shape] as vectors [N, numbers]."""
  return codes.reshape(len(codes), -1)


def shown(count, examples):
  """Numbers of some of `examples` examples, at most `count`, at even distances: those that pictures show."""
  return np.linspace(0, examples - 1, min(count, examples)).astype(int)


def integers(labels):
  """Labels as integers [N], if that is what they are."""
  return labels if labels is not None and np.issubdtype(labels.dtype, np.integer) else None

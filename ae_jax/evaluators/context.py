"""Input of the analyses: a trained model, its data, and values that several analyses use."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, PyTree

from ae_jax import data
from ae_jax.data import lazy_arrays, ranges
from ae_jax.decisions import run_data, scores
from ae_jax.evaluators import pca
from ae_jax.models import inference
from ae_jax.ops import losses, randomness
from ae_jax.run_methods import latents

_BATCH = 512  # maximum number of examples per call in `EvalContext.map_examples`


@dataclasses.dataclass(frozen=True)
class EvalContext:
  """A trained model and its data. Values that several analyses need are computed once and cached.

  Examples are float32 [N, ...] in the data range of the run. Random numbers depend only on `config.seed` of the run.
  The sample of training examples has a fixed seed, so it is the same for all runs on the same data.
  """

  run: Any  # an `api.Run`
  dataset: data.Dataset
  # {name: value} of the `reconstruction` baselines; empty if they are not computed yet
  baselines: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def test(self) -> Float[np.ndarray, "examples ..."]:
    """All test examples."""
    return ranges.normalise(self.dataset.test, self.dataset.value_range)

  @property
  def tested(self) -> str:
    """Name of the test examples over which errors are averaged: those of the trained class, if there is one."""
    return "test examples" if self.dataset.anomalous is None else "normal test examples"

  @property
  def test_labels(self) -> Integer[np.ndarray, " examples"] | None:
    """Integer labels of the test examples; None if there are none."""
    return integer_labels(self.dataset.test_labels)

  @functools.cached_property
  def test_codes(self) -> Float[np.ndarray, "examples latents"]:
    """Latent codes of the test examples, as vectors."""
    return as_vectors(self.run.apply("encode", self.test, self.columns("test")))

  @functools.cached_property
  def reconstructions(self) -> Float[np.ndarray, "examples ..."]:
    """Reconstructions of the test examples."""
    return self.run.apply("reconstruct", self.test, self.columns("test"))

  def columns(self, split: str, numbers: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns the columns that the model needs besides the examples x, for example {"label": [N]}.

    Args:
      split: "test" or "train".
      numbers: Indices of the examples in `test` or `train`; None selects all.
    """
    columns = data.model_columns(self.dataset, split, self.run.model)
    rows = np.arange(len(self.test)) if split == "test" else self._train_rows
    rows = rows if numbers is None else rows[numbers]
    return {name: lazy_arrays.read_rows(column, rows) for name, column in columns.items()}

  def attention(self, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Returns the attention weights of the test examples with the indices `numbers`; see `api.Run.attention`."""
    return self.run.attention_of(self.test[numbers], self.columns("test", numbers))

  def reconstruct(self, x: np.ndarray, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the reconstructions of examples.

    Args:
      x: Test examples, or corrupted test examples.
      numbers: Indices of these test examples; the model also receives their columns.
    """
    return self.run.apply("reconstruct", x, self.columns("test", numbers))

  def decode(
    self, vectors: Float[np.ndarray, "examples latents"], columns: Mapping[str, np.ndarray] | None = None
  ) -> Float[np.ndarray, "examples ..."]:
    """Decodes latent codes and returns the resulting examples.

    Args:
      vectors: Latent codes.
      columns: Columns that the model needs besides the latent codes; by default the columns of the first test examples.
    """
    if columns is None:
      columns = self.columns("test", np.arange(len(vectors)) % len(self.test))
    return self.run.apply("decode", vectors.reshape(len(vectors), *self.run.model.code.shape), columns)

  def prior_codes(self, count: int) -> Float[np.ndarray, "count latents"]:
    """Returns `count` latent codes drawn from the model's prior with the run's seed."""
    draw = jax.jit(self.run.model.sample_prior, static_argnums=2)
    return as_vectors(np.asarray(draw(self.run.variables, jax.random.key(self.run.config.seed), count)))

  def nearest_codes(self, vectors: Float[np.ndarray, "examples latents"]) -> Float[np.ndarray, "examples latents"]:
    """Returns, for each vector, the nearest latent code that the encoder can output, float32."""
    return as_vectors(latents.nearest_codes(self.run, vectors.reshape(len(vectors), *self.run.model.code.shape)))

  @functools.cached_property
  def targets(self) -> Float[np.ndarray, "examples ..."]:
    """The targets of the test examples; without targets, `test` itself. Reconstructions are compared with them."""
    targets = self.dataset.test_targets
    return self.test if targets is self.dataset.test else ranges.normalise(targets, self.dataset.value_range)

  @property
  def mask(self) -> Bool[np.ndarray, "examples ..."] | None:
    """Mask of the observed elements of the test examples; None if all are observed."""
    return self.dataset.column("test", "mask")

  def mask_of(self, split: str, numbers: Sequence[int] | np.ndarray) -> Bool[np.ndarray, "examples ..."] | None:
    """Returns the mask of the examples at `numbers` in `test` or `train`, see `columns`; None if all are observed."""
    column, rows = self.dataset.column(split, "mask"), np.asarray(numbers)
    return (
      None if column is None else lazy_arrays.read_rows(column, rows if split == "test" else self._train_rows[rows])
    )

  @property
  def test_loss_columns(self) -> dict[str, np.ndarray]:
    """{"target": ..., "mask": ...} of the test examples; a column that the data do not have is missing."""
    columns = {} if self.targets is self.test else {"target": self.targets}
    return columns if self.mask is None else columns | {"mask": self.mask.astype(np.float32)}

  def squares(
    self, reconstructions: Float[np.ndarray, "..."], numbers: Sequence[int] | np.ndarray | slice = slice(None)
  ) -> Float[np.ndarray, "examples ..."]:
    """Returns the squared error of each element of reconstructions, float64; 0 for elements that were not observed.

    Args:
      reconstructions: Reconstructions of the test examples at `numbers`, or one example that is compared with each.
      numbers: Indices of test examples.
    """
    squares = np.square(reconstructions - self.targets[numbers], dtype=np.float64)
    return squares if self.mask is None else squares * self.mask[numbers]

  @functools.cached_property
  def squared_errors(self) -> Float[np.ndarray, " examples"]:
    """Squared reconstruction error of each test example, float64."""
    return self.squares(self.reconstructions).reshape(len(self.test), -1).sum(1)

  @property
  def test_inputs(self) -> scores.Inputs:
    """The test examples with their targets and masks, as inputs of scores."""
    return scores.Inputs(self.test, self.targets, self.mask, self.columns("test"))

  @functools.cached_property
  def reference(self) -> scores.Reference:
    """Reference statistics of the scores, from the training examples. They can contain NaN or infinite values."""
    return scores.make_reference(self.run, run_data.chosen_parts(self.run, self.dataset, "train"))

  @functools.cached_property
  def _train_rows(self) -> Int[np.ndarray, " examples"]:
    """Sorted indices of the training examples that the analyses use."""
    return run_data.training_rows(len(self.dataset.train))

  @functools.cached_property
  def train(self) -> Float[np.ndarray, "examples ..."]:
    """Training examples: all, or a random sample of 10,000 if there are more."""
    return ranges.normalise(lazy_arrays.read_rows(self.dataset.train, self._train_rows), self.dataset.value_range)

  @functools.cached_property
  def train_labels(self) -> Integer[np.ndarray, " examples"] | None:
    """Integer labels of the examples in `train`; None if there are none."""
    labels = self.dataset.train_labels
    return None if labels is None else integer_labels(lazy_arrays.read_rows(labels, self._train_rows))

  @property
  def train_factors(self) -> Integer[np.ndarray, "examples factors"] | None:
    """Generating factors of the examples in `train`; None if the data have none."""
    factors = self.dataset.train_factors
    return None if factors is None else factors[self._train_rows]

  @functools.cached_property
  def train_codes(self) -> Float[np.ndarray, "examples latents"]:
    """Latent codes of the examples in `train`, as vectors."""
    return as_vectors(self.run.apply("encode", self.train, self.columns("train")))

  @functools.cached_property
  def baseline_pca(self) -> pca.CentredPCA | pca.QuantisedPCA:
    """PCA of `train` with the budget of the latent code; see `pca.fit_baseline`."""
    return pca.fit_baseline(losses.flat(self.train), self.run.model.code)

  def generator(self) -> np.random.Generator:
    """Returns a NumPy generator seeded with the run's seed."""
    return np.random.default_rng(self.run.config.seed)

  def map_examples(self, function: Callable[..., PyTree], *arrays: PyTree) -> PyTree:
    """Applies a pure function to N examples, in batches.

    The random key of an example depends only on the seed of the run and the index of the example, so results do not
    depend on the batch size.

    Args:
      function: Function (variables, *batches of the arrays, keys [B]) -> pytree of arrays [B, ...].
      *arrays: Pytrees of arrays [N, ...]. The first pytree must be a single array.

    Returns:
      Pytree of NumPy arrays [N, ...].
    """
    key, call = jax.random.key(self.run.config.seed), jax.jit(function)
    count, results = len(arrays[0]), []
    size = min(inference.batch_size(self.dataset.shape, _BATCH), 1 << (count - 1).bit_length())
    for start in range(0, count, size):
      indices = np.arange(start, start + size)
      batch = jax.tree.map(lambda array, indices=indices: array[np.minimum(indices, count - 1)], arrays)
      result = call(self.run.variables, *batch, randomness.example_keys(key, indices))
      results.append(jax.tree.map(lambda leaf, start=start: np.asarray(leaf)[: count - start], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def as_vectors(codes: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples latents"]:
  """Returns latent codes [N, *code shape] as vectors."""
  return codes.reshape(len(codes), -1)


def spaced(count: int, examples: int) -> Int[np.ndarray, " indices"]:
  """Returns at most `count` evenly spaced indices, from 0 to `examples` - 1."""
  return np.linspace(0, examples - 1, min(count, examples)).astype(int)


def integer_labels(labels: Any) -> Any:
  """Returns the labels [N], an array or a `lazy_arrays.LazyArray`, if they are integers; None otherwise."""
  return labels if labels is not None and np.issubdtype(labels.dtype, np.integer) else None

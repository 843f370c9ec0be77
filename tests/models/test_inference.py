"""Inputs of a model besides the examples: a mask reaches the encoder, or it is refused."""

import jax
import numpy as np
import pytest
from made_exports import made

from ae_jax import errors
from ae_jax.models import inference

pytestmark = pytest.mark.quick_compile
X = np.random.default_rng(0).normal(size=(4, 12, 2)).astype(np.float32)
MASK = np.random.default_rng(1).random(X.shape) < 0.7


@pytest.fixture(scope="module")
def sequence():
  return made("sequence", (12, 2), {"latent": 2}.items(), "real", masked=True)


def test_a_method_that_reads_no_mask_refuses_it(sequence):
  z = sequence.encode(X, mask=MASK)
  assert not np.allclose(z, sequence.encode(X))
  with pytest.raises(errors.UserError, match="mask=: this method has no mask argument"):
    sequence.decode(z, mask=MASK)


def test_ends_of_an_interpolation_have_masks(sequence):
  path = sequence.interpolate(X[:2], X[2:], 3, mask=MASK[:2])
  np.testing.assert_allclose(path[:, 0], sequence.reconstruct(X[:2], mask=MASK[:2]), atol=1e-5)


def test_a_threshold_of_a_masked_model_reads_the_mask(sequence):
  found = sequence.set_threshold(X, contamination=0.5, mask=MASK)
  assert np.sort(sequence.score(X, MASK))[1] < found.value < np.sort(sequence.score(X, MASK))[2]


def test_memory_that_ends_in_a_batch_is_explained(sequence):
  def full(variables, array, columns):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  message = r"^a batch of 4 examples: the device is out of memory .* JAX_PLATFORMS=cpu for the memory of the host$"
  with pytest.raises(errors.UserError, match=message):
    inference.in_batches(full, sequence.variables, X, {}, 256)


@pytest.mark.parametrize(
  ("shape", "size"), [((28, 28, 1), 256), ((128, 128, 3), 64), ((512, 512, 3), 4), ((9000, 9000), 1)]
)
def test_batches_of_large_examples_are_small(shape, size):
  assert inference.batch_size(shape) == size

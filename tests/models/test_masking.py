"""A model with masked units equals the smaller model, whatever the values of the masked parameters."""

import jax
import numpy as np
import pytest

from ae_jax import models
from ae_jax.models import masking

SMALL, LARGE = 2, 5


def pair(bottleneck):
  """Returns (small model, its variables, wide model, masked wide model) of latent sizes SMALL and LARGE."""
  options = {"widths": (6,), "decoder_widths": (), "activation": "tanh", "bottleneck": bottleneck, "tied": False}
  small, wide = (models.build("dense", (3, 2, 1), latent=latent, **options) for latent in (SMALL, LARGE))
  generator = np.random.default_rng(0)
  draw = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32)
  variables = jax.tree.map(draw, small.abstract_variables())
  used = masking.pad(jax.tree.map(np.ones_like, variables), wide.abstract_variables(), SMALL)
  units = np.float32([1] * SMALL + [0] * (LARGE - SMALL))
  return small, variables, wide, masking.mask_model(wide, units, jax.tree.leaves(used))


@pytest.mark.parametrize("bottleneck", ["identity", "sigmoid", "gaussian"])
def test_masked_model_matches_smaller_model(bottleneck):
  small, variables, wide, masked = pair(bottleneck)
  padded = masking.pad(variables, wide.abstract_variables(), SMALL)
  used = jax.tree.unflatten(jax.tree.structure(variables), masked.mask)
  dirty = jax.tree.map(lambda leaf, mask: leaf + 9 * (1 - mask), padded, used)
  x = np.random.default_rng(1).normal(size=(4, 3, 2, 1)).astype(np.float32)
  z = np.asarray(small.encode(variables, x).z)
  z_masked = np.asarray(masked.encode(dirty, x).z)
  np.testing.assert_allclose(z_masked[:, :SMALL], z, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(z_masked[:, SMALL:], 0)
  noisy = z_masked + 3 * (1 - masked.latent_mask)[None]  # noise on masked units
  np.testing.assert_allclose(masked.decode(dirty, noisy), small.decode(variables, z), rtol=1e-5, atol=1e-5)
  if bottleneck == "gaussian":
    pairs = zip(masked.encode(dirty, x).posterior, small.encode(variables, x).posterior, strict=True)
    for wide_half, half in pairs:
      np.testing.assert_allclose(wide_half[:, :SMALL], half, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bottleneck", ["identity", "gaussian"])
def test_unpad_inverts_pad_and_padding_is_zero(bottleneck):
  small, variables, wide, _ = pair(bottleneck)
  padded = masking.pad(variables, wide.abstract_variables(), SMALL)
  jax.tree.map(np.testing.assert_array_equal, masking.unpad(padded, small.abstract_variables(), SMALL), variables)
  total = lambda tree: sum(float(np.abs(leaf).sum(dtype=np.float64)) for leaf in jax.tree.leaves(tree))
  assert total(padded) == pytest.approx(total(variables), rel=1e-6)

"""Properties of the latent code of every family: discrete latents, and latents that a sweep pads with unused units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax import models
from ae_jax.models import masking

pytestmark = pytest.mark.quick_compile

LABELS = (0, 1, 2)
DISCRETE = {
  "fsq5": ("dense", {"latent": 3, "widths": (6,), "bottleneck": "fsq5"}),
  "fsq7": ("dense", {"latent": 3, "widths": (6,), "bottleneck": "fsq7", "tied": True}),
  "vqvae": ("vqvae", {"latent": 3, "channels": (4,), "codebook_size": 9}),
}
PADDED = {name: options for name, (options, _) in FAMILIES.items()} | {"cvae": {"latent": 4, "widths": (16,)}}


def build(name, options, **others):
  shape, data = ((16, 1), ()) if name == "sequence" else ((8, 8, 1), ("digits",))
  return models.build(shape=shape, labels=LABELS, **{**config_of(name, *data).model, **options, **others})


def normal(shapes):
  """Returns standard normal values for all arrays of a tree."""
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_latents_equal_their_lookup_and_their_nearest_codes(name):
  model = build(*DISCRETE[name])
  variables = normal(model.abstract_variables())
  x = normal(jax.ShapeDtypeStruct((20, 8, 8, 1), jnp.float32))

  @jax.jit
  def encode_and_look_up(variables, x):
    encoding = model.encode(variables, x)
    return encoding, model.lookup(variables, encoding.indices), model.nearest_codes(variables, encoding.z)

  encoding, looked_up, nearest = encode_and_look_up(variables, x)
  assert encoding.indices.shape == (20, *model.code.index_shape)
  assert encoding.indices.dtype == jnp.int32
  assert 0 <= encoding.indices.min() < encoding.indices.max() < model.code.levels
  np.testing.assert_array_equal(looked_up, encoding.z)
  np.testing.assert_array_equal(nearest, encoding.z)


@pytest.mark.runs_optax  # Flax's RMSNorm promotes types
@pytest.mark.parametrize("name", PADDED)
def test_padded_model_matches_smaller_model(name):
  small, wide = (build(name, PADDED[name], latent=latent) for latent in (2, 5))
  if small.code.size_axis is None:
    return
  variables = normal(small.abstract_variables())
  mask = masking.pad(jax.tree.map(np.ones_like, variables), wide.abstract_variables(), 2)
  masked = masking.mask_model(wide, np.float32([1, 1, 0, 0, 0]), jax.tree.leaves(mask))
  padded = masking.pad(variables, wide.abstract_variables(), 2)
  x, given = normal(jax.ShapeDtypeStruct((4, *small.shape), jnp.float32)), {"label": np.int32([0, 2, 1, 1])}
  encoding, logits = jax.jit(masked.autoencode)(padded, x, given)
  small_encoding, small_logits = jax.jit(small.autoencode)(variables, x, given)
  np.testing.assert_allclose(encoding.z[:, :2], small_encoding.z, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(encoding.z[:, 2:], 0)
  np.testing.assert_allclose(logits, small_logits, rtol=1e-3, atol=1e-3)

"""The laws of codes that hold for every family: discrete codes, and codes that a sweep pads with unused units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax import models
from ae_jax.models import masking

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
  """Numbers of a usual size for all arrays of a tree."""
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_discrete_code_is_what_its_indices_look_up_and_the_nearest_to_itself(name):
  model = build(*DISCRETE[name])
  variables = normal(model.abstract_variables())
  x = normal(jax.ShapeDtypeStruct((20, 8, 8, 1), jnp.float32))

  @jax.jit
  def both(variables, x):
    found = model.encode(variables, x)
    return found, model.lookup(variables, found.indices), model.nearest_codes(variables, found.z)

  found, again, nearest = both(variables, x)
  assert found.indices.shape == (20, *model.code.index_shape)
  assert found.indices.dtype == jnp.int32
  assert 0 <= found.indices.min() < found.indices.max() < model.code.levels
  np.testing.assert_array_equal(again, found.z)
  np.testing.assert_array_equal(nearest, found.z)


@pytest.mark.runs_optax  # Flax's RMSNorm is not strict about types
@pytest.mark.parametrize("name", PADDED)
def test_a_code_that_can_be_padded_gives_what_the_smaller_model_gives(name):
  small, wide = (build(name, PADDED[name], latent=latent) for latent in (2, 5))
  if small.code.size_axis is None:
    return
  variables = normal(small.abstract_variables())
  used = masking.pad(jax.tree.map(np.ones_like, variables), wide.abstract_variables(), 2)
  narrow = masking.mask_model(wide, np.float32([1, 1, 0, 0, 0]), jax.tree.leaves(used))
  widened = masking.pad(variables, wide.abstract_variables(), 2)
  x, given = normal(jax.ShapeDtypeStruct((4, *small.shape), jnp.float32)), {"label": np.int32([0, 2, 1, 1])}
  found, wanted = jax.jit(narrow.autoencode)(widened, x, given), jax.jit(small.autoencode)(variables, x, given)
  np.testing.assert_allclose(found[0].z[:, :2], wanted[0].z, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(found[0].z[:, 2:], 0)
  np.testing.assert_allclose(found[1], wanted[1], rtol=1e-3, atol=1e-3)

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors, models


def build(shape=(28, 28, 1), **options):
  """The model of configs/dense.py, which is the lecture's, with other options."""
  return models.build(shape=shape, **{**config_of("dense", "mnist_5k").model, **options})


def test_the_lectures_model_has_its_parameters():
  assert build().parameter_count() == 419_120


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (47, 61, 3)])
@pytest.mark.parametrize("widths", [(), (5,), (9, 4, 7)])
@pytest.mark.parametrize("latent", [1, 6])
def test_any_image_any_depth_any_latent(shape, widths, latent):
  model = build(shape, widths=widths, latent=latent)
  params = jax.jit(model.init)(jax.random.key(0))
  codes = model.encode(params, jnp.ones((3, *shape)))
  assert codes.shape == (3, latent)
  assert model.decode(params, codes).shape == (3, *shape)
  sides = [np.prod(shape), *widths, latent, *widths[::-1], np.prod(shape)]
  assert model.parameter_count() == sum(int(a) * int(b) + int(b) for a, b in itertools.pairwise(sides))
  assert model.parameter_count() == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_it_computes_its_definition():
  model = build((3, 2, 1), widths=(5,), latent=2)
  params = model.init(jax.random.key(1))
  x = np.random.default_rng(0).normal(size=(4, 3, 2, 1)).astype(np.float32)

  def affine(layer, h):
    return h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

  codes = affine(params["encoder"]["code"], np.maximum(affine(params["encoder"]["Dense_0"], x.reshape(4, 6)), 0))
  logits = affine(params["decoder"]["logits"], np.maximum(affine(params["decoder"]["Dense_0"], codes), 0))
  np.testing.assert_allclose(model.encode(params, x), codes, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(model.decode(params, codes), logits.reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_a_model_is_a_value():
  assert build() == build()
  assert hash(build()) == hash(build())
  assert build() != build(latent=31)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"latent": 0}, "config.model.latent=0: must be an integer, 1 or more"),
    ({"latent": -3}, "config.model.latent=-3"),
    ({"latent": (3,)}, "config.model.latent=(3,)"),
    ({"latent": 2.0}, "config.model.latent=2.0"),
    ({"latent": True}, "config.model.latent=True"),
    ({"widths": 16}, "config.model.widths=16: must be a tuple"),
    ({"widths": (16, 0)}, "config.model.widths=(16, 0): must be a tuple of integers, each 1 or more"),
    ({"widths": (1.5,)}, "config.model.widths=(1.5,)"),
    ({"widths": ("a",)}, "config.model.widths=('a',)"),
    ({"activation": "rely"}, "config.model.activation='rely' is unknown; did you mean 'relu'"),
    ({"wdths": (3,)}, "config.model.wdths is no option of 'dense'; did you mean 'widths'"),
  ],
)
def test_what_cannot_be_built_is_refused(options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(**options)
  assert message in str(refusal.value)


def test_an_unknown_family_and_a_missing_option_are_named():
  with pytest.raises(errors.UserError, match=r"config\.model\.name='dens' is unknown; did you mean 'dense'"):
    models.build("dens", (8, 8, 1), latent=2)
  with pytest.raises(errors.UserError, match=r"config\.model\.widths is missing"):
    models.build("dense", (8, 8, 1), latent=2, activation="relu")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors, models


def build(shape=(28, 28, 1), **options):
  """The model of configs/cnn.py, which is the lecture's, with other options."""
  return models.build(shape=shape, **{**config_of("cnn", "mnist_5k").model, **options})


@pytest.mark.parametrize(
  ("kernels", "strides", "count"),
  [((3, 8), (2, 2), 62_481), ((3, 6), (2, 3), 62_481 - 16 * (64 - 36)), ((3, 4), (2, 3), 61_713)],
)
def test_the_lectures_model_has_its_parameters(kernels, strides, count):
  model = build(decoder_kernels=kernels, decoder_strides=strides)
  assert model.parameter_count() == count
  assert model.module.decoder.sizes == ((5, 5), (11, 11), (28, 28))


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (47, 61, 3)])
def test_any_image_is_reached_to_its_edge(shape):
  model = build(shape)
  params = jax.jit(model.init)(jax.random.key(0))
  codes = jax.jit(model.encode)(params, jnp.ones((2, *shape)))
  assert codes.shape == (2, 32)
  influence = jax.jit(jax.jacfwd(lambda z: model.decode(params, z)))(codes[:1])  # [1, H, W, C, 1, latent]
  assert influence.shape[:4] == (1, *shape)
  assert (jnp.abs(influence).sum((0, 3, 4, 5)) > 0).all(), "a pixel that the code cannot change"


@pytest.mark.parametrize(("channels", "kernels"), [((4,), (6,)), ((4, 6), (3, 8)), ((4, 6, 8), (3, 6, 8))])
def test_any_number_of_stages(channels, kernels):
  model = build(channels=channels, decoder_kernels=kernels, decoder_strides=(2,) * len(kernels), latent=3)
  params = jax.jit(model.init)(jax.random.key(0))
  x = jnp.zeros((2, 28, 28, 1))
  assert jax.jit(lambda x: model.decode(params, model.encode(params, x)))(x).shape == x.shape


def test_examples_do_not_see_each_other():
  model = build((9, 11, 3), latent=5)
  params = jax.jit(model.init)(jax.random.key(0))
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 9, 11, 3)), jnp.float32)
  both = jax.jit(lambda x: model.decode(params, model.encode(params, x)))
  one_by_one = jnp.concatenate([both(x[i : i + 1]) for i in range(4)])
  np.testing.assert_allclose(both(x), one_by_one, rtol=1e-4, atol=1e-5)
  assert jnp.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3


def test_the_affine_decoder_collapses_to_one_affine_map_and_the_default_does_not():
  z = jnp.asarray(np.random.default_rng(0).normal(size=(40, 4)), jnp.float32)
  ranks = {}
  for activation in ("identity", "relu"):
    model = build((12, 12, 1), latent=4, decoder_activation=activation)
    params = jax.jit(model.init)(jax.random.key(0))
    ranks[activation] = np.linalg.matrix_rank(jax.jit(model.decode)(params, z).reshape(40, -1), tol=1e-3)
  assert ranks["identity"] <= 4 + 1 < ranks["relu"]


@pytest.mark.parametrize(
  ("shape", "options", "message"),
  [
    ((28, 28, 1), {"latent": 0}, "config.model.latent=0"),
    ((28, 28, 1), {"decoder_kernels": (3,)}, "config.model.decoder_kernels=(3,): must be one number for each of the 2"),
    ((28, 28, 1), {"decoder_strides": (2, 0)}, "config.model.decoder_strides=(2, 0)"),
    ((28, 28, 1), {"channels": ()}, "config.model.channels=()"),
    ((4, 4, 1), {}, "an image of 4x4 is 1x1 after 1 and its 3x3 convolution does not fit"),
    ((2, 30, 1), {}, "an image of 2x30 is 2x30 after 0"),
    ((28, 28, 1), {"decoder_activation": "reul"}, "did you mean 'relu'"),
  ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(shape, **options)
  assert message in str(refusal.value)

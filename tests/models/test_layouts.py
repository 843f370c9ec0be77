"""Series [T, C] in the convolutional and the attention families, where they are images of width 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from jax import lax

from ae_jax import errors, models
from ae_jax.models import layouts, upsampling

pytestmark = pytest.mark.quick_compile

FAMILIES = ("attention", "cnn", "dense", "sequence", "unet")
SMALL = {"cnn": {"channels": (4, 6)}, "unet": {"channels": (4, 6)}}


def build(name, shape, **options):
  given = {**config_of(name, "npz").model, **SMALL.get(name, {}), "latent": 3}
  given |= {"linear_path": "none"} if "linear_path" in given else {}
  return models.build(shape=shape, **{**given, **options})


def shape_out(model):
  z = jax.ShapeDtypeStruct((2, *model.code.shape), jnp.float32)
  return jax.eval_shape(model.decode, model.abstract_variables(), z).shape


@pytest.mark.parametrize("shape", [(5, 4, 3), (7, 2)])
def test_from_maps_inverts_to_maps(shape):
  x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
  maps = layouts.to_maps(x)
  height, width, channels = layouts.image_shape(shape)
  assert maps.shape == (channels, height, width, 3)
  np.testing.assert_array_equal(layouts.from_maps(maps, shape), x)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(100, 3), (37, 1)])
def test_reconstructions_of_series_have_the_shape_of_the_series(name, shape):
  assert shape_out(build(name, shape)) == (2, *shape)


@pytest.mark.parametrize("decoder", [*upsampling.LAYERS, "tied"])
def test_every_decoder_of_cnn_takes_series_of_odd_length(decoder):
  assert shape_out(build("cnn", (29, 2), decoder=decoder, channels=(4, 5, 6))) == (2, 29, 2)


def test_convolutional_encoder_of_series_matches_one_dimensional_convolutions():
  model = build("cnn", (19, 2))
  variables = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(model.init)(jax.random.key(0)))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 19, 2)), jnp.float32)
  encoder = variables.params["encoder"]

  @jax.jit
  def expected(x):
    h = x
    for layer in ("Conv_0", "Conv_1"):
      kernel, bias = encoder[layer]["kernel"][:, 0], encoder[layer]["bias"]
      h = lax.conv_general_dilated(h, kernel, (1,), "VALID", dimension_numbers=("NTC", "TIO", "NTC"))
      h = lax.reduce_window(h + bias[None, None], -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID")
      h = jax.nn.relu(h)
    features = h.transpose(0, 2, 1).reshape(3, -1)
    return features @ encoder["code"]["kernel"] + encoder["code"]["bias"][None]

  np.testing.assert_allclose(jax.jit(model.encode)(variables, x).z, expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "unet", "attention"])
def test_gradient_reaches_every_parameter_and_every_step_is_reconstructed(name):
  model = build(name, (17, 2))
  generator = np.random.default_rng(0)
  draw = lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), jnp.float32)
  variables = jax.tree.map(draw, model.abstract_variables())
  x, probe = draw(np.empty((4, 17, 2))), draw(np.empty((4, 17, 2)))
  slopes = jax.jit(jax.grad(lambda variables: jnp.vdot(model.reconstruct(variables, x), probe)))(variables)
  assert all(jnp.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes))
  z = draw(np.empty((2, 3)))
  moved = jax.jit(model.decode)(variables, z)
  assert (jnp.abs(moved[0] - moved[1]).max(-1) > 0).all()


@pytest.mark.parametrize(
  ("name", "shape", "options", "message"),
  [
    ("cnn", (3, 1), {"kernel": 4}, "a series of 3 steps is too small for a convolution of 4 steps"),
    ("cnn", (6, 1), {}, "a series of 6 steps shrinks to 2 steps after 1 stage and is too small for a convolution"),
    ("cnn", (20, 1), {"decoder_kernels": (41, 3)}, "must be at most 40 for an example of 20"),
    ("unet", (3, 2), {}, "a series of 3 steps shrinks to 1 step after 1 stage and cannot be halved"),
    ("unet", (1, 2), {}, "a series of 1 step cannot be halved; use config.model.name='dense' for series of one step"),
    ("attention", (5, 2), {}, "config.model.patch=7: must be at most the number of steps of a series, 5"),
    ("vqvae", (50, 2), {}, "expects images, but these data are series; use one of attention, cnn,"),
    ("cnn", (4, 5, 6, 2), {}, "these data are volumes; use one of cvae, dense, or train on the slices of the volumes"),
    ("attention", (4, 5, 6, 2), {}, "x.reshape(-1, 5, 6, 2)"),
    ("sequence", (4, 5, 6, 2), {}, "expects series, but these data are volumes; use one of cvae, dense"),
  ],
)
def test_examples_of_an_unsuitable_size_or_kind_are_refused(name, shape, options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(name, shape, **options)
  assert message in str(refusal.value)
  assert "\n" not in str(refusal.value)

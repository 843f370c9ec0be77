import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from jax import lax

from ae_jax import errors, models
from ae_jax.models import unet

pytestmark = pytest.mark.quick_compile

SKIPS = sorted(unet.SKIPS)


def build(shape=(28, 28, 1), **options):
  """Returns the model of configs/unet.py with other options."""
  return models.build(shape=shape, **{**config_of("unet", "mnist_5k").model, **options})


def small_model(shape=(9, 14, 3), **options):
  """Returns a small model, its parameters, and images [4, *shape], by default odd, not square and in colour."""
  model = build(shape, **{"channels": (4, 6), "latent": 5, **options})
  x = np.random.default_rng(0).uniform(size=(4, *shape)).astype(np.float32)
  return model, jax.jit(model.init)(jax.random.key(0)), jnp.asarray(x)


def run(model, method):
  """Returns a compiled method of the module that returns the latents or the logits."""

  def call(variables, *args):
    output = model.apply(method, variables, *args)
    return {"encode": lambda: output.z, "__call__": lambda: output[1]}.get(method, lambda: output)()

  return jax.jit(call)


@pytest.mark.parametrize(("skips", "count"), [("additive", 111_521), ("none", 111_521), ("concatenated", 116_273)])
def test_parameter_count(skips, count):
  encoder = (9 * 1 * 16 + 16) + (9 * 16 * 32 + 32) + (7 * 7 * 32 * 32 + 32)
  joined = 2 if skips == "concatenated" else 1
  decoder = (32 * 7 * 7 * 32 + 7 * 7 * 32) + (9 * joined * 32 * 16 + 16) + (9 * joined * 16 + 1)
  assert build(skips=skips, channels=(16, 32), kernel=3).parameter_count() == count == encoder + decoder


@pytest.mark.parametrize("skips", SKIPS)
def test_model_matches_its_definition(skips):
  """Compares with an implementation by XLA's convolutions in the layout [B, H, W, C]."""
  model, variables, x = small_model(skips=skips)
  join = {"additive": jnp.add, "concatenated": lambda h, s: jnp.concatenate([h, s], -1), "none": lambda h, _: h}[skips]

  def conv(layer, h):
    y = lax.conv_general_dilated(h, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + layer["bias"][None, None, None]

  def halved(h):
    return lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

  def channels_first(h):
    return h.transpose(0, 3, 1, 2)

  @jax.jit
  def wanted(x):
    first = jax.nn.relu(conv(variables.params["down_0"], x))
    second = jax.nn.relu(conv(variables.params["down_1"], halved(first)))
    bottom = channels_first(halved(second))
    z = bottom.reshape(4, -1) @ variables.params["code"]["kernel"] + variables.params["code"]["bias"][None]
    h = (
      (z @ variables.params["uncode"]["kernel"] + variables.params["uncode"]["bias"][None])
      .reshape(bottom.shape)
      .transpose(0, 2, 3, 1)
    )
    for layer, skip in (("up_1", second), ("up_0", first)):
      size = (4, *skip.shape[1:3], h.shape[3])
      h = conv(variables.params[layer], join(jax.image.resize(jax.nn.relu(h), size, "nearest"), skip))
    return z, h

  z, logits = wanted(x)
  np.testing.assert_allclose(run(model, "encode")(variables, x), z, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(run(model, "__call__")(variables, x), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("skips", SKIPS)
def test_reconstruction_equals_decode_beside_with_the_same_image(skips):
  model, variables, x = small_model(skips=skips)
  z = run(model, "encode")(variables, x)
  own = run(model, "decode_beside")(variables, z, x)
  np.testing.assert_allclose(run(model, "__call__")(variables, x), own, rtol=1e-5, atol=1e-6)


def test_without_skips_reconstruction_is_decode_of_encode_and_decode_beside_ignores_the_image():
  model, variables, x = small_model(skips="none")
  z = run(model, "encode")(variables, x)
  decoded = run(model, "decode")(variables, z)
  np.testing.assert_allclose(run(model, "__call__")(variables, x), decoded, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(run(model, "decode_beside")(variables, z, x[::-1]), decoded)


@pytest.mark.parametrize("skips", ["additive", "concatenated"])
def test_logits_depend_on_the_skips_and_on_the_latents(skips):
  model, variables, x = small_model(skips=skips)
  z, beside = run(model, "encode")(variables, x), run(model, "decode_beside")
  own, other_code, other_skips = beside(variables, z, x), beside(variables, z[::-1], x), beside(variables, z, x[::-1])
  assert own.shape == other_code.shape == other_skips.shape == x.shape
  for other in (other_code, other_skips):
    assert (jnp.abs(own - other).max((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("skips", ["additive", "concatenated"])
def test_decode_uses_the_skips_of_a_black_image_while_the_biases_are_zero(skips):
  model, variables, x = small_model(skips=skips)
  z = run(model, "encode")(variables, x)
  beside_black = run(model, "decode_beside")(variables, z, jnp.zeros_like(x))
  np.testing.assert_allclose(run(model, "decode")(variables, z), beside_black, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("skips", "shape", "channels"),
  [*((skips, (9, 14, 3), (4, 6)) for skips in SKIPS), ("additive", (8, 8, 1), (3, 4, 5)), ("none", (5, 2, 1), (4,))],
)
def test_gradient_reaches_every_parameter_for_any_image(skips, shape, channels):
  model, variables, x = small_model(shape, skips=skips, channels=channels)
  probe = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)
  slopes = jax.jit(jax.grad(lambda variables: jnp.vdot(model.reconstruct(variables, x), probe)))(variables)
  assert all(jnp.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes))
  assert jax.eval_shape(model.encode, variables, x).z.shape == (4, 5)
  assert jax.eval_shape(model.decode, variables, jnp.zeros((3, 5))).shape == (3, *shape)


def test_examples_of_a_batch_are_independent():
  model, variables, x = small_model()
  one_by_one = jnp.concatenate([run(model, "__call__")(variables, x[i : i + 1]) for i in range(4)])
  np.testing.assert_allclose(run(model, "__call__")(variables, x), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("shape", "options", "message"),
  [
    ((28, 28, 1), {"latent": 0}, "config.model.latent=0"),
    ((28, 28, 1), {"kernel": 0}, "config.model.kernel=0"),
    ((28, 20, 1), {"kernel": 57}, "config.model.kernel=57: must be at most 56 for an example of 28x20"),
    ((28, 28, 1), {"channels": (4, 0)}, "config.model.channels=(4, 0)"),
    ((28, 28, 1), {"skips": "addative"}, "config.model.skips='addative' is unknown; did you mean 'additive'?"),
    ((28, 28, 1), {"activation": "reul"}, "did you mean 'relu'"),
    (
      (3, 28, 1),
      {},
      "an image of 3x28 shrinks to 1x14 after 1 stage and cannot be halved; use at most 1 stage",
    ),
    (
      (1, 28, 1),
      {},
      "an image of 1x28 cannot be halved; use config.model.name='dense' for images with a side of 1",
    ),
    ((4, 28, 28, 1), {}, "config.model.name='unet' expects images or series"),
  ],
)
def test_invalid_options_are_refused(shape, options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(shape, **options)
  assert message in str(refusal.value)
  assert "\n" not in str(refusal.value)

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors, models

pytestmark = pytest.mark.quick_compile


def build(shape=(28, 28, 1), **options):
  """Returns the model of configs/dense.py, the lecture's, with other options."""
  return models.build(shape=shape, **{**config_of("dense", "mnist_5k").model, **options})


def test_parameter_count_matches_the_lectures_model():
  assert build().parameter_count() == 419_120


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (47, 61, 3)])
@pytest.mark.parametrize("widths", [(), (5,), (9, 4, 7)])
@pytest.mark.parametrize("latent", [1, 6])
def test_shapes_and_parameter_counts_of_any_image_depth_and_latent_size(shape, widths, latent):
  model = build(shape, widths=widths, latent=latent)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  codes = jax.eval_shape(model.encode, variables, jnp.ones((3, *shape))).z
  assert codes.shape == (3, latent)
  assert jax.eval_shape(model.decode, variables, codes).shape == (3, *shape)
  sides = [np.prod(shape), *widths, latent, *widths[::-1], np.prod(shape)]
  assert model.parameter_count() == sum(int(a) * int(b) + int(b) for a, b in itertools.pairwise(sides))
  assert model.parameter_count() == sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_model_matches_its_definition():
  model = build((3, 2, 1), widths=(5,), latent=2)
  variables = model.init(jax.random.key(1))
  x = np.random.default_rng(0).normal(size=(4, 3, 2, 1)).astype(np.float32)

  def affine(layer, h):
    return h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

  codes = affine(
    variables.params["encoder"]["code"], np.maximum(affine(variables.params["encoder"]["hidden_0"], x.reshape(4, 6)), 0)
  )
  logits = affine(
    variables.params["decoder"]["logits"], np.maximum(affine(variables.params["decoder"]["hidden_0"], codes), 0)
  )
  np.testing.assert_allclose(model.encode(variables, x).z, codes, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(model.decode(variables, codes), logits.reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_models_compare_by_value():
  assert build() == build()
  assert hash(build()) == hash(build())
  assert build() != build(latent=31)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"latent": 0}, "config.model.latent=0: must be an integer from 1"),
    ({"latent": -3}, "config.model.latent=-3"),
    ({"latent": (3,)}, "config.model.latent=(3,)"),
    ({"latent": 2.0}, "config.model.latent=2.0"),
    ({"latent": True}, "config.model.latent=True"),
    ({"widths": 16}, "config.model.widths=16: must be a tuple"),
    ({"widths": (16, 0)}, "config.model.widths=(16, 0): must be a tuple of integers, each 1 or more"),
    ({"widths": (1.5,)}, "config.model.widths=(1.5,)"),
    ({"widths": ("a",)}, "config.model.widths=('a',)"),
    ({"widths": np.array([3])}, "config.model.widths=array([3]): must be a tuple"),
    ({"widths": (3,) * 101}, "with 1 to 100 entries"),
    ({"widths": [16]}, "config.model.widths=[16]: must be a tuple"),
    ({"tied": "no"}, "config.model.tied='no': must be True or False"),
    ({"name": ["dense"]}, "config.model.name=['dense'] is unknown"),
    ({"activation": ["relu"]}, "config.model.activation=['relu'] is unknown"),
    ({"latent": 2**31}, "config.model.latent=2147483648"),
    ({"decoder_widths": (0,)}, "config.model.decoder_widths=(0,)"),
    ({"decoder_widths": (8, 8), "tied": True}, "config.model.decoder_widths=(8, 8): must be config.model.widths="),
    ({"bottleneck": "gausian"}, "config.model.bottleneck='gausian' is unknown; did you mean 'gaussian'"),
    ({"bottleneck": "gaussian", "tied": True}, "config.model.bottleneck='gaussian': must be one of identity,"),
    ({"activation": "rely"}, "config.model.activation='rely' is unknown; did you mean 'relu'"),
    ({"wdths": (3,)}, "config.model.wdths is not an option of 'dense'; did you mean 'widths'"),
  ],
)
def test_invalid_options_are_refused(options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(**options)
  assert message in str(refusal.value)


def test_unknown_family_and_missing_option_are_named():
  with pytest.raises(errors.UserError, match=r"config\.model\.name='dens' is unknown; did you mean 'dense'"):
    models.build("dens", (8, 8, 1), latent=2)
  with pytest.raises(errors.UserError, match=r"config\.model\.widths is missing"):
    models.build("dense", (8, 8, 1), latent=2, activation="relu")


def test_tied_weights_share_the_kernels_but_not_the_biases():
  assert build(tied=True).parameter_count() == 210_224


def test_decoder_widths_default_to_the_mirror_image():
  assert build(widths=(9, 7), decoder_widths=(7, 9)) == build(widths=(9, 7))
  sides = [(6, 9), (9, 2), (2, 5), (5, 4), (4, 6)]
  other = build((3, 2, 1), latent=2, widths=(9,), decoder_widths=(5, 4))
  assert other.parameter_count() == sum(a * b + b for a, b in sides)


@pytest.mark.parametrize("bottleneck", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("tied", [False, True])
def test_bottleneck_is_the_activation_of_the_latents(bottleneck, tied):
  plain, other = (build((3, 2, 1), widths=(5,), bottleneck=name, tied=tied) for name in ("identity", bottleneck))
  variables = plain.init(jax.random.key(0))
  x = np.random.default_rng(0).normal(size=(4, 3, 2, 1)).astype(np.float32)
  function = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[bottleneck]
  np.testing.assert_array_equal(other.encode(variables, x).z, function(plain.encode(variables, x).z))
  np.testing.assert_array_equal(other.reconstruct(variables, x), other.decode(variables, other.encode(variables, x).z))


@pytest.mark.parametrize("levels", [3, 5, 7, 9])
@pytest.mark.parametrize("tied", [False, True])
def test_fsq_rounds_tanh_to_levels_and_has_its_gradient(levels, tied):
  tanh, other = (build((3, 2, 1), widths=(5,), bottleneck=name, tied=tied) for name in ("tanh", f"fsq{levels}"))
  variables = tanh.init(jax.random.key(0))
  x = 9 * np.random.default_rng(0).normal(size=(40, 3, 2, 1)).astype(np.float32)
  level_values = np.linspace(-1, 1, levels, dtype=np.float32)
  codes, bounded = other.encode(variables, x).z, tanh.encode(variables, x).z
  np.testing.assert_array_equal(codes, level_values[np.abs(np.asarray(bounded)[..., None] - level_values).argmin(-1)])
  assert len(np.unique(codes)) == levels
  np.testing.assert_array_equal(other.nearest_codes(variables, codes + 0.4 / levels), codes)
  slopes = [jax.grad(lambda variables, m=model: m.encode(variables, x).z.sum())(variables) for model in (tanh, other)]
  jax.tree.map(np.testing.assert_array_equal, *slopes)


def test_gaussian_bottleneck_has_a_variance_and_its_mean_as_latent_code():
  model = build(bottleneck="gaussian")
  assert model.parameter_count() == 419_120 + 32 * 257
  assert model.has_posterior
  assert not build().has_posterior
  variables, x = jax.jit(model.init)(jax.random.key(0)), np.ones((2, 28, 28, 1), np.float32)
  encoding = model.encode(variables, x)
  np.testing.assert_array_equal(encoding.posterior.mean, encoding.z)
  assert encoding.posterior.log_variance.shape == (2, 32)


def test_tied_model_equals_the_untied_model_with_transposed_kernels():
  options = {"shape": (3, 2, 1), "widths": (5, 4), "latent": 2, "activation": "tanh", "bottleneck": "sigmoid"}
  tied, untied = build(tied=True, **options), build(**options)
  generator = np.random.default_rng(0)
  draw = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32)
  variables = jax.tree.map(draw, tied.abstract_variables())
  up = [{"kernel": variables.params[f"kernel_{i}"], "bias": variables.params[f"bias_{i}"]} for i in range(3)]
  down = [
    {"kernel": variables.params[f"kernel_{i}"].T, "bias": variables.params[f"decoder_bias_{i}"]} for i in range(3)
  ]
  apart = {
    "encoder": {"hidden_0": up[0], "hidden_1": up[1], "code": up[2]},
    "decoder": {"hidden_0": down[2], "hidden_1": down[1], "logits": down[0]},
  }
  x = generator.normal(size=(4, 3, 2, 1)).astype(np.float32)
  np.testing.assert_allclose(
    tied.encode(variables, x).z, untied.encode(models.Variables(apart), x).z, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    tied.reconstruct(variables, x), untied.reconstruct(models.Variables(apart), x), rtol=1e-5, atol=1e-5
  )


def test_single_layers_compose_to_the_whole_model():
  model = build((3, 2, 1), widths=(5, 4), latent=2, activation="tanh")
  variables = model.init(jax.random.key(0))
  x = np.random.default_rng(0).normal(size=(4, 3, 2, 1)).astype(np.float32)
  np.testing.assert_array_equal(model.apply("below", variables, x, 0), x.reshape(4, 6))
  h = model.apply("below", variables, x, 2)
  assert h.shape == (4, 4)
  kernel = variables.params["decoder"]["hidden_0"]["kernel"]
  np.testing.assert_allclose(
    model.apply("layer_logits", variables, h, 2), model.encode(variables, x).z @ kernel, rtol=1e-5
  )
  for layer, opposite in (
    (1, "hidden_1"),
    (0, "logits"),
  ):  # with the activation of hidden layers, without one of the logits
    up = model.apply("below", variables, x, layer + 1)
    down = variables.params["decoder"][opposite]
    found = model.apply("layer_logits", variables, model.apply("below", variables, x, layer), layer)
    np.testing.assert_allclose(found, up @ down["kernel"] + down["bias"][None], rtol=1e-5, atol=1e-6)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors, models
from ae_jax.models import activations, convolutional, upsampling
from ae_jax.ops import convolutions, resizing

pytestmark = pytest.mark.quick_compile

DECODERS = [*upsampling.LAYERS, "tied"]


def build(shape=(28, 28, 1), **options):
  """Returns the model of configs/cnn.py, the lecture's, with other options."""
  return models.build(shape=shape, **{**config_of("cnn", "mnist_5k").model, **options})


@pytest.mark.parametrize(
  ("kernels", "strides", "count"),
  [((3, 8), (2, 2), 62_481), ((3, 6), (2, 3), 62_481 - 16 * (64 - 36)), ((3, 4), (2, 3), 61_713)],
)
def test_parameter_count_matches_the_lectures_model(kernels, strides, count):
  model = build(decoder_kernels=kernels, decoder_strides=strides)
  assert model.parameter_count() == count
  assert model.module.decoder.sizes == ((5, 5), (11, 11), (28, 28))


@pytest.mark.parametrize("decoder", ["transposed", "nearest", "tied"])
@pytest.mark.parametrize(("size", "channels"), [((64, 64), (16, 32, 64)), ((512, 384), (4, 8, 8, 8, 8))])
def test_more_stages_need_only_their_channels(decoder, size, channels):
  shape = (*size, 4)
  model = build(shape, channels=channels, decoder=decoder)
  stages = len(channels)
  explicit = {"decoder_kernels": (3,) * (stages - 1) + (8,), "decoder_strides": (2,) * stages}
  assert model == build(shape, channels=channels, decoder=decoder, **explicit)
  z = jax.ShapeDtypeStruct((1, 32), np.float32)
  assert jax.eval_shape(model.decode, model.abstract_variables(), z).shape == (1, *shape)


STAGES = (16, 32, 64, 128, 128, 128)


@pytest.mark.parametrize(
  ("size", "cnn", "unet"),
  [
    ((3, 5), 1, 1),
    ((7, 7), 1, 2),
    *(((side, side), 2, 2) for side in (8, 16, 28, 32, 34)),
    ((60, 75), 3, 3),
    ((64, 64), 3, 3),
    ((75, 101), 3, 4),
    ((128, 128), 4, 4),
    ((129, 201), 4, 4),
    ((224, 224), 5, 5),
    ((512, 512), 6, 6),
  ],
)
@pytest.mark.parametrize("decoder", ["transposed", "tied"])
def test_stages_follow_from_the_size(size, cnn, unet, decoder):
  for name, stages in {"cnn": cnn, "unet": unet}.items():
    own, shipped = (config_of(name, data).model.to_dict() for data in ("npz", "mnist_5k"))
    own |= {"decoder": decoder} if name == "cnn" else {}
    completed = models.completed(own, (*size, 3))
    assert completed["channels"] == STAGES[:stages]
    assert models.completed(shipped, (*size, 3)) == shipped
    model = models.build(shape=(*size, 3), **completed)
    z = jax.ShapeDtypeStruct((1, 32), np.float32)
    assert jax.eval_shape(model.decode, model.abstract_variables(), z).shape == (1, *size, 3)


@pytest.mark.parametrize(
  ("decoder", "count"),
  [
    ("nearest", 62_481),
    ("bilinear", 62_481),
    ("subpixel", 62_481 + 8 * (9 * 32 * 16 + 16 + 64 * 16 + 1)),  # nine times the decoder's two convolutions
    ("tied", 62_481 - 800 * 32 - 9 * 32 * 16 - 64 * 16),  # the same biases, and the encoder's weights only
  ],
)
def test_parameter_counts_of_the_other_decoders(decoder, count):
  assert build(decoder=decoder).parameter_count() == count


@pytest.mark.parametrize("decoder", ["nearest", "bilinear"])
def test_interpolating_decoders_have_the_parameters_of_the_transposed_one_unless_kernels_are_enlarged(decoder):
  sizes = [
    sorted(leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(build(decoder=name).init, jax.random.key(0))))
    for name in ("transposed", decoder)
  ]
  assert sizes[0] == sizes[1]
  options = {"decoder_kernels": (3, 3)}  # at stride 2 too small for 11 -> 28
  assert build(decoder=decoder, **options).parameter_count() == 62_481 - 16 * (64 - 9)
  assert build(**options).parameter_count() == 62_481


@pytest.mark.parametrize(
  ("shape", "decoder"),
  [
    *(((47, 61, 3), decoder) for decoder in DECODERS),
    *((shape, "transposed") for shape in ((28, 28, 1), (8, 8, 1), (32, 32, 3))),
  ],
)
def test_latents_influence_every_pixel_of_any_image(shape, decoder):
  model = build(shape, decoder=decoder, latent=4, channels=(8, 8))
  z, direction = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 4)), jnp.float32)

  @jax.jit
  def slope(z, direction):  # is zero for a random direction only where it is zero for all
    variables = model.init(jax.random.key(0))
    return jax.jvp(lambda z: model.decode(variables, z), (z,), (direction,))[1]

  influence = slope(z, direction)
  assert influence.shape == (1, *shape)
  assert (jnp.abs(influence).sum((0, 3)) > 0).all(), "the latents do not influence some pixel"


@pytest.mark.parametrize(("channels", "kernels"), [((4,), (6,)), ((4, 6), (3, 8)), ((4, 6, 8), (3, 6, 8))])
@pytest.mark.parametrize("decoder", DECODERS)
def test_shapes_for_any_number_of_stages(channels, kernels, decoder):
  strides = (2,) * len(kernels)
  model = build(channels=channels, decoder=decoder, decoder_kernels=kernels, decoder_strides=strides, latent=3)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  codes = jax.eval_shape(model.encode, variables, jnp.zeros((2, 28, 28, 1))).z
  assert codes.shape == (2, 3)
  assert jax.eval_shape(model.decode, variables, codes).shape == (2, 28, 28, 1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_examples_of_a_batch_are_independent(decoder):
  model = build((9, 11, 3), latent=5, decoder=decoder)
  variables = jax.jit(model.init)(jax.random.key(0))
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 9, 11, 3)), jnp.float32)
  both = jax.jit(lambda x: model.decode(variables, model.encode(variables, x).z))
  one_by_one = jnp.stack([both(jnp.zeros_like(x).at[i].set(x[i]))[i] for i in range(4)])  # the others are black
  np.testing.assert_allclose(both(x), one_by_one, rtol=1e-4, atol=1e-5)
  assert jnp.abs(one_by_one[0] - one_by_one[1]).max() > 1e-2 * jnp.abs(one_by_one).max()


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_the_identity_decoder_is_one_affine_map(decoder):
  z = jnp.asarray(np.random.default_rng(0).normal(size=(40, 4)), jnp.float32)
  ranks = {}
  for activation in ("identity", "relu"):
    model = build((12, 12, 1), latent=4, channels=(8, 8), decoder=decoder, decoder_activation=activation)
    variables = jax.jit(model.init)(jax.random.key(0))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)  # no bias is zero
    logits = jax.jit(model.decode)(variables, jnp.concatenate([z, jnp.zeros((1, 4))])).reshape(41, -1)
    ranks[activation] = [np.linalg.matrix_rank(m, tol=1e-3) for m in (logits, logits[:-1] - logits[-1:])]
  assert ranks["identity"] == [4 + 1, 4]
  assert min(ranks["relu"]) > 4 + 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradient_reaches_every_parameter(decoder):
  model = build((11, 14, 3), latent=5, channels=(4, 6), decoder=decoder)
  variables = jax.jit(model.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  x, probe = (jnp.asarray(rng.normal(size=(4, 11, 14, 3)), jnp.float32) for _ in range(2))
  slopes = jax.jit(jax.grad(lambda variables: jnp.vdot(model.reconstruct(variables, x), probe)))(variables)
  assert all(jnp.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes))


def test_tied_decoder_transposes_the_encoder_and_sums_both_gradients():
  """Compares with an untied model whose decoder uses XLA's transposes of the encoder's convolutions."""
  model = build((12, 15, 2), latent=3, channels=(4, 5), decoder="tied", bottleneck="tanh")
  params = jax.tree.map(lambda leaf: leaf + 0.05, jax.jit(model.init)(jax.random.key(0)).params)
  rng = np.random.default_rng(0)
  x, probe = (jnp.asarray(rng.normal(size=(4, 12, 15, 2)), jnp.float32) for _ in range(2))
  encoder = convolutional.ConvEncoder(3, (4, 5), (3, 3), jax.nn.relu, 0.0)

  def encode(w):
    stages = {f"Conv_{i}": {"kernel": w[f"kernel_{i}"], "bias": w[f"bias_{i}"]} for i in range(2)}
    code = {"kernel": w["code_kernel"], "bias": w["code_bias"]}
    return jnp.tanh(encoder.apply({"params": {**stages, "code": code}}, x))

  def decode(w, z):
    h = (z @ w["code_kernel"].T + w["decoder_code_bias"][None]).T.reshape(5, 1, 2, 4)
    # 12x15 -> 10x13 convolved, 5x6 pooled -> 3x4 convolved, 1x2 pooled
    for stage, convolved, size in ((1, (3, 4), (4, 5, 6)), (0, (10, 13), (2, 12, 15))):
      h = jax.image.resize(jax.nn.relu(h), (h.shape[0], *convolved, 4), "nearest")
      transpose = jax.linear_transpose(
        lambda image, kernel=w[f"kernel_{stage}"]: convolutions._conv_xla(image, kernel), jnp.zeros((*size, 4))
      )
      h = transpose(h)[0] + w[f"decoder_bias_{stage}"][:, None, None, None]
    return h.transpose(3, 1, 2, 0)

  def tied(w):
    return jnp.vdot(model.reconstruct(models.Variables(w), x), probe)

  def untied(up, down):
    return jnp.vdot(decode(down, encode(up)), probe)

  np.testing.assert_allclose(jax.jit(tied)(params), jax.jit(untied)(params, params), rtol=1e-4)
  both = jax.jit(jax.grad(untied, (0, 1)))(params, params)
  for name, slope in jax.jit(jax.grad(tied))(params).items():
    parts = [part[name] for part in both]
    scale = float(jnp.abs(slope).max())
    np.testing.assert_allclose(slope, sum(parts), rtol=1e-3, atol=1e-4 * scale, err_msg=name)
    if "kernel" in name:
      assert all(jnp.abs(part).max() > 1e-2 * scale for part in parts), name


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_monotone_activation_commutes_with_pooling(activation):
  """The encoder pools before the activation, the lecture's after it: the same function of the same parameters."""
  function = activations.ACTIVATIONS[activation]
  encoder = convolutional.ConvEncoder(3, (4, 5), (3, 3), function, 0.0)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 13, 12, 2)), jnp.float32)
  params = jax.tree.map(lambda leaf: leaf + 0.05, encoder.init(jax.random.key(0), x)["params"])
  h = x.transpose(3, 1, 2, 0)
  for stage in ("Conv_0", "Conv_1"):
    h = convolutions._conv_xla(h, params[stage]["kernel"]) + params[stage]["bias"][:, None, None, None]
    h = convolutional.pool(function(h))
  wanted = convolutional.flat(h) @ params["code"]["kernel"] + params["code"]["bias"][None]
  np.testing.assert_allclose(encoder.apply({"params": params}, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", upsampling.LAYERS)
def test_decoder_applies_the_activation_before_each_layer_but_the_first(name):
  sizes, kernels, layer = ((3, 2), (6, 4), (11, 8)), ((3, 3), (2, 3)), upsampling.LAYERS[name]
  decoder = convolutional.ConvDecoder((11, 8, 2), (5, 4), sizes, kernels, (2, 2), jnp.tanh, layer, 0.0)
  generator = np.random.default_rng(0)
  draw = lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32)
  z = draw(np.empty((3, 6)))
  params = jax.tree.map(draw, jax.eval_shape(decoder.init, jax.random.key(0), z)["params"])
  kind = next(name for name in params if name.endswith("_0") and name != "Dense_0").removesuffix("_0")

  @jax.jit
  def both(params, z):
    h = jnp.tanh(z @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]).T.reshape(5, 3, 2, 3)
    h = layer(4, kernels[0], 2, sizes[1]).apply({"params": params[f"{kind}_0"]}, h)
    h = layer(2, kernels[1], 2, sizes[2]).apply({"params": params[f"{kind}_1"]}, jnp.tanh(h))
    return decoder.apply({"params": params}, z), h.transpose(3, 1, 2, 0)

  np.testing.assert_allclose(*both(params, z), rtol=1e-4, atol=1e-5)


def test_subpixel_layer_starts_as_nearest_upsampling_after_the_convolution():
  layer = upsampling.SubpixelConv(3, (3, 3), (15, 10))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 2)), jnp.float32)
  params = layer.init(jax.random.key(0), x)["params"]
  enlarged = layer.apply({"params": params}, x)
  filters = params["kernel"][..., :: 3 * 2]  # one of each block
  wanted = resizing.resize(
    convolutions._conv_xla(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), filters), (15, 10), "nearest"
  )
  np.testing.assert_allclose(enlarged, wanted, rtol=1e-4, atol=1e-5)
  cropped = upsampling.SubpixelConv(3, (3, 3), (13, 9)).apply({"params": params}, x)
  np.testing.assert_array_equal(cropped, enlarged[:, 1:14, 1:])


def test_icnr_leaves_no_energy_at_the_frequency_of_the_blocks():
  layer = upsampling.SubpixelConv(3, (3, 3), (15, 15))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 2)), jnp.float32)
  icnr = layer.init(jax.random.key(0), x)["params"]
  other = {**icnr, "kernel": nn.initializers.lecun_normal()(jax.random.key(0), icnr["kernel"].shape)}

  def block_energy(params):  # fraction of the energy at a period of three pixels along either axis
    energy = jnp.square(jnp.abs(jnp.fft.fft2(layer.apply({"params": params}, x), axes=(1, 2))))
    return (energy[:, 5].sum() + energy[:, :, 5].sum()) / energy.sum()

  assert block_energy(icnr) < 1e-9
  assert block_energy(other) > 1e-2


def test_convolutions_are_shift_equivariant_and_pooling_only_by_its_window():
  """The image has a black border, so that shifting it equals rolling it."""
  image = np.zeros((1, 20, 20, 2), np.float32)
  image[:, 8:12, 8:12] = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
  layers = [convolutional.Conv(features, (3, 3), convolutions.conv) for features in (4, 5)]
  params = layers[0].init(jax.random.key(0), image), layers[1].init(jax.random.key(1), jnp.zeros((4, 18, 18, 2)))
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)

  @jax.jit
  def features(x):
    for layer, p in zip(layers, params, strict=True):
      x = jax.nn.relu(layer.apply(p, x))
    return x, convolutional.pool(x)

  def shifted(x, by):
    return np.roll(x, by, axis=(1, 2))

  maps, pooled = features(image)
  maps_1, pooled_1 = features(shifted(image, (1, 1)))
  maps_2, pooled_2 = features(shifted(image, (2, 2)))
  np.testing.assert_allclose(maps_1, shifted(maps, (1, 1)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(maps_2, shifted(maps, (2, 2)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(pooled_2, shifted(pooled, (1, 1)), rtol=1e-5, atol=1e-6)
  for by in ((0, 0), (0, 1), (1, 0), (1, 1)):
    assert np.abs(pooled_1 - shifted(pooled, by)).max() > 0.1


@pytest.mark.parametrize(
  ("shape", "options", "message"),
  [
    ((28, 28, 1), {"latent": 0}, "config.model.latent=0"),
    (
      (28, 28, 1),
      {"decoder_kernels": (3, 3, 3)},
      "decoder_kernels=(3, 3, 3): must be a tuple of at most 2 numbers, one per stage",
    ),
    ((28, 28, 1), {"decoder_strides": (2, 0)}, "config.model.decoder_strides=(2, 0)"),
    ((28, 28, 1), {"decoder_strides": (2, 10**9)}, "must be at most 56 for an example of 28x28"),
    ((28, 28, 1), {"decoder_kernels": (57, 3)}, "config.model.decoder_kernels=(57, 3): must be at most 56"),
    ((28, 28, 1), {"channels": ()}, "config.model.channels=()"),
    ((4, 4, 1), {}, "shrinks to 1x1 after 1 stage and is too small for a 3x3 convolution; use at most 1 stage or"),
    ((2, 4, 1), {}, "an image of 2x4 is too small for a 3x3 convolution; use a smaller config.model.kernel"),
    ((2, 30, 1), {}, "an image of 2x30 is too small"),
    ((28, 28, 1), {"decoder_activation": "reul"}, "did you mean 'relu'"),
    ((28, 28, 1), {"decoder": "nearset"}, "config.model.decoder='nearset' is unknown; did you mean 'nearest'?"),
    (
      (28, 28, 1),
      {"decoder": "tied", "bottleneck": "gaussian"},
      "config.model.bottleneck='gaussian': must be one of identity,",
    ),
    ((28, 28, 1), {"decoder": "tied", "bottleneck": "gausian"}, "config.model.bottleneck='gausian' is unknown"),
    ((28, 28, 1), {"decoder": "tied", "latent": 0}, "config.model.latent=0"),
    ((28, 28, 1), {"decoder": "nearest", "decoder_kernels": (3, 3, 3)}, "config.model.decoder_kernels=(3, 3, 3)"),
  ],
)
def test_invalid_options_are_refused(shape, options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(shape, **options)
  assert message in str(refusal.value)
  assert "\n" not in str(refusal.value)

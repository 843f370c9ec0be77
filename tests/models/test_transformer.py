import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors, models
from ae_jax.models import transformer

pytestmark = pytest.mark.quick_compile

random = np.random.default_rng(0)
SMALL = {
  "latent": 3,
  "patch": 4,
  "width": 8,
  "hidden": 12,
  "heads": 2,
  "depth": 1,
  "decoder_depth": 2,
  "queries": 2,
  "memory": 3,
}


@pytest.fixture(autouse=True)
def reseed():
  """Makes the draws of a test independent of the tests before it."""
  random.bit_generator.state = np.random.default_rng(0).bit_generator.state


def build(shape=(12, 8, 1), **options):
  """Returns a small model of configs/attention.py with other options."""
  return models.build(shape=shape, **{**config_of("attention", "mnist_5k").model, **SMALL, **options})


def parameters(model):
  """Returns normal values of deviation 0.5 for all parameters."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return jax.tree.map(lambda leaf: (0.5 * random.normal(size=leaf.shape)).astype(np.float32), shapes)


def images(*shape):
  return random.random(shape, np.float32)


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 10, 3)])
@pytest.mark.parametrize("patch", [1, 2])
def test_patchify_splits_squares_row_by_row_and_unpatchify_inverts_it(shape, patch):
  x = images(5, *shape)
  patches = transformer.patchify(x, patch)
  columns = shape[1] // patch
  for number in range(patches.shape[1]):
    top, left = patch * (number // columns), patch * (number % columns)
    square = x[:, top : top + patch, left : left + patch]
    np.testing.assert_array_equal(patches[:, number], square.reshape(5, -1))
  np.testing.assert_array_equal(transformer.unpatchify(patches, shape, patch), x)


@pytest.mark.parametrize("shape", [(7, 9, 1), (75, 101, 3), (4, 7, 2)])
@pytest.mark.parametrize("patch", [4, 7])
def test_sides_that_are_no_multiples_are_padded_with_zeros(shape, patch):
  x = images(2, *shape)
  padding = [(0, 0), (0, -shape[0] % patch), (0, -shape[1] % patch), (0, 0)]
  patches = transformer.patchify(x, patch)
  np.testing.assert_array_equal(patches, transformer.patchify(np.pad(x, padding), patch))
  np.testing.assert_array_equal(transformer.unpatchify(patches, shape, patch), x)
  model = build(shape, patch=patch)
  assert jax.eval_shape(model.reconstruct, model.abstract_variables(), x).shape == x.shape


def test_images_whose_sides_are_multiples_are_neither_padded_nor_cut():
  model = build((28, 28, 1), patch=7)
  program = str(jax.make_jaxpr(model.reconstruct)(model.abstract_variables(), images(2, 28, 28, 1)))
  assert " pad[" not in program
  assert " slice[" not in program


@pytest.mark.parametrize("shape", [(12, 8, 1), (4, 8, 3)])
@pytest.mark.parametrize(("bottleneck", "outputs"), [("tanh", 3), ("gaussian", 6)])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_shapes_and_parameter_counts_of_any_image(shape, bottleneck, outputs, qk_norm):
  model = build(shape, bottleneck=bottleneck, qk_norm=qk_norm)
  x = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  assert jax.eval_shape(model.encode, variables, x).z.shape == (5, 3)
  assert jax.eval_shape(model.reconstruct, variables, x).shape == x.shape
  patches, pixels, width, hidden = shape[0] * shape[1] // 16, 16 * shape[2], 8, 12
  attention = 4 * width**2 + width + (2 * 4 if qk_norm else 0)
  block = attention + 2 * width * hidden + hidden + width + 2 * width
  ends = (pixels + 1) * width + (2 * width + 1) * outputs + (3 + 1) * 3 * width + (width + 1) * pixels
  queries = patches * width + 2 * width + patches * width
  assert model.parameter_count() == ends + queries + 2 * attention + 3 * block + 2 * width


def norm(layer, h):
  return h / np.sqrt(np.square(h).mean(-1, keepdims=True) + 1e-6) * layer["scale"]


def affine(layer, h):
  return h @ layer["kernel"] + layer["bias"]


def attend(layer, x, memory, scaled):
  """Returns attention with 2 heads; queries and keys are normalised if the layer has norms."""
  x = np.broadcast_to(x, (len(memory), *x.shape[1:]))
  query, key, value = (
    (of @ layer[name]["kernel"]).reshape(*of.shape[:2], 2, -1)
    for name, of in (("query", x), ("key", memory), ("value", memory))
  )
  if "query_norm" in layer:
    query, key = norm(layer["query_norm"], query), norm(layer["key_norm"], key)
  scores = np.exp(np.einsum("bqhd,bkhd->bhqk", query, key) / (np.sqrt(query.shape[-1]) if scaled else 1))
  output = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), value)
  return affine(layer["out"], output.reshape(*output.shape[:2], -1))


def through_blocks(stacked, h, scaled):
  for number in range(len(stacked["RMSNorm_0"]["scale"])):
    block = jax.tree.map(lambda leaf, number=number: leaf[number], stacked)
    normed = norm(block["RMSNorm_0"], h)
    h = h + attend(block["attention"], normed, normed, scaled)
    h = h + affine(block["Dense_1"], np.tanh(affine(block["Dense_0"], norm(block["RMSNorm_1"], h))))
  return h


@pytest.mark.parametrize(("scaled", "qk_norm"), [(True, False), (False, True)])
def test_model_matches_its_definition(scaled, qk_norm):
  """Compares with an implementation in NumPy and float64."""
  model = build(scaled=scaled, qk_norm=qk_norm, activation="tanh", decoder_depth=1, bottleneck="identity")
  variables, x = jax.tree.map(lambda leaf: leaf / 2, parameters(model)), images(3, 12, 8, 1)
  encoder, decoder = (jax.tree.map(np.float64, variables.params[half]) for half in ("encoder", "decoder"))
  h = affine(encoder["embedding"], np.asarray(transformer.patchify(x, 4))) + encoder["positions"]
  h = norm(encoder["RMSNorm_0"], through_blocks(encoder["blocks"], h, scaled))
  pooled = attend(encoder["pool"], encoder["queries"][None], h, scaled)
  z = affine(encoder["code"], pooled.reshape(3, -1))
  memory = affine(decoder["memory"], z).reshape(3, 3, 8)
  h = decoder["positions"] + attend(decoder["unpool"], decoder["positions"][None], memory, scaled)
  patches = affine(decoder["logits"], norm(decoder["RMSNorm_0"], through_blocks(decoder["blocks"], h, scaled)))
  np.testing.assert_allclose(jax.jit(model.encode)(variables, x).z, z, rtol=1e-3, atol=1e-4)
  logits = jax.jit(model.decode)(variables, z.astype(np.float32))
  np.testing.assert_allclose(transformer.patchify(logits, 4), patches, rtol=1e-3, atol=1e-4)


def test_encoder_is_invariant_to_the_order_of_patches_with_positions():
  model, x, order = build(), images(5, 12, 8, 1), random.permutation(6)
  variables = parameters(model)
  moved = jax.tree.map(lambda leaf: leaf, variables)
  moved.params["encoder"]["positions"] = variables.params["encoder"]["positions"][order]
  shuffled = transformer.unpatchify(transformer.patchify(x, 4)[:, order], (12, 8, 1), 4)
  encode = jax.jit(lambda *args: model.encode(*args).z)
  np.testing.assert_allclose(encode(moved, shuffled), encode(variables, x), rtol=1e-4, atol=1e-5)
  assert np.abs(encode(variables, shuffled) - encode(variables, x)).max() > 1e-2


def test_permuting_the_decoders_positions_permutes_the_patches():
  model, z, order = build(), images(5, 3), random.permutation(6)
  variables = parameters(model)
  moved = jax.tree.map(lambda leaf: leaf, variables)
  moved.params["decoder"]["positions"] = variables.params["decoder"]["positions"][order]
  patches, shuffled = (transformer.patchify(jax.jit(model.decode)(params, z), 4) for params in (variables, moved))
  np.testing.assert_allclose(shuffled, patches[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bottleneck", ["identity", "gaussian"])
def test_attention_weights_are_returned_by_layer(bottleneck):
  model = build(bottleneck=bottleneck, depth=2)
  variables, x = parameters(model), images(5, 12, 8, 1)
  weights = jax.jit(model.attention)(variables, x)
  shapes = {name: layer.shape for name, layer in weights.items()}
  blocks = {f"encoder/blocks/attention/{number}": (5, 2, 6, 6) for number in range(2)}
  assert shapes == {**blocks, "encoder/pool": (5, 2, 2, 6)}
  for layer in weights.values():
    np.testing.assert_allclose(layer.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("depth", [2, 6])  # compiled without and with a loop
def test_stacked_blocks_equal_blocks_applied_in_sequence(depth):
  layers = transformer.Layers(8, 12, jax.nn.gelu, 2, True, False, 0.0)
  h = images(3, 5, 8)

  class Stack(nn.Module):
    @nn.compact
    def __call__(self, h):
      return transformer.blocks(layers, depth)(h, None)

  stacked = jax.jit(Stack().init)(jax.random.key(0), h)["params"]["blocks"]
  block = jax.jit(transformer.Block(layers).apply)
  wanted = h
  for number in range(depth):
    wanted = block({"params": jax.tree.map(lambda leaf, number=number: leaf[number], stacked)}, wanted)
  np.testing.assert_allclose(jax.jit(Stack().apply)({"params": {"blocks": stacked}}, h), wanted, rtol=1e-5, atol=1e-5)
  kernels = stacked["Dense_0"]["kernel"]
  assert all(jnp.abs(kernels[0] - other).max() > 0.1 for other in kernels[1:])  # blocks have different parameters


def test_program_size_does_not_grow_with_depth():
  programs = [
    jax.jit(model.reconstruct).lower(jax.eval_shape(model.init, jax.random.key(0)), images(2, 12, 8, 1)).as_text()
    for model in (build(depth=depth, decoder_depth=depth) for depth in (8, 16))
  ]
  assert len(programs[0].splitlines()) == len(programs[1].splitlines())


def test_gradient_reaches_every_parameter():
  model, x = build(qk_norm=True, decoder_depth=1), images(5, 12, 8, 1)
  gradient = jax.jit(jax.grad(lambda variables: (model.reconstruct(variables, x) ** 2).sum()))(parameters(model))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all()
    assert (leaf != 0).mean() > 0.9, jax.tree_util.keystr(path)
    assert np.abs(leaf).max() > 1e-4, jax.tree_util.keystr(path)


def test_initial_logits_have_unit_scale():
  model = build(width=32, heads=4, decoder_depth=1)
  logits = jax.jit(lambda key, x: model.reconstruct(model.init(key), x))(jax.random.key(0), images(9, 12, 8, 1))
  assert 0.1 < np.std(logits) < 3


def test_models_compare_by_value():
  assert build() == build()
  assert hash(build()) == hash(build())
  assert build() != build(qk_norm=True)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"patch": 13}, "config.model.patch=13: must be at most the longer side, 12"),
    ({"patch": 0}, "config.model.patch=0: must be an integer from 1"),
    ({"heads": 3}, "config.model.heads=3: must be a divisor of config.model.width=8"),
    ({"heads": 0}, "config.model.heads=0: must be an integer from 1"),
    ({"width": 0}, "config.model.width=0"),
    ({"depth": -1}, "config.model.depth=-1"),
    ({"decoder_depth": 1.5}, "config.model.decoder_depth=1.5"),
    ({"queries": 0}, "config.model.queries=0"),
    ({"memory": 0}, "config.model.memory=0"),
    ({"hidden": 0}, "config.model.hidden=0"),
    ({"latent": 0}, "config.model.latent=0"),
    ({"qk_norm": 1}, "config.model.qk_norm=1: must be True or False"),
    ({"scaled": "no"}, "config.model.scaled='no': must be True or False"),
    ({"activation": "gelo"}, "config.model.activation='gelo' is unknown; did you mean 'gelu'"),
    ({"bottleneck": "gausian"}, "config.model.bottleneck='gausian' is unknown; did you mean 'gaussian'"),
  ],
)
def test_invalid_options_are_refused(options, message):
  with pytest.raises(errors.UserError) as refusal:
    build(**options)
  assert message in str(refusal.value)

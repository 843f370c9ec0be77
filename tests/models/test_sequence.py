import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import errors, models
from ae_jax.models import sequence

pytestmark = pytest.mark.quick_compile

CELLS = {
  "convolutional": {"widths": (6, 8), "strides": (2, 3)},
  "recurrent": {"widths": (6, 8), "strides": (1, 2)},
}


def build(shape=(17, 1), cell="convolutional", masked=False, **options):
  given = {"latent": 3, "kernel": 3, "activation": "gelu", "attention_width": 4, "bottleneck": "identity"}
  return models.build("sequence", shape, masked=masked, **{**given, "cell": cell, **CELLS[cell], **options})


def series(batch, shape=(17, 1)):
  return jnp.asarray(np.random.default_rng(0).normal(size=(batch, *shape)), jnp.float32)


def parameters(model):
  """Returns normal parameters, without compiling the initialisation; no bias is 0."""
  generator = np.random.default_rng(1)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return jax.tree.map(lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), leaf.dtype), shapes)


def attention_arrays(batch=3, states=5, size=4, width=6):
  generator = np.random.default_rng(0)
  shapes = [(batch, states, size), (batch, size), (size, width), (size, width), (width,)]
  return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


concat_attention = jax.jit(sequence.concat_attention)


def test_concat_attention_matches_the_formula_of_the_paper():
  states, query, state_kernel, query_kernel, score = (a.astype(np.float64) for a in attention_arrays())
  joint = np.concatenate([state_kernel, query_kernel])
  wanted, wanted_weights = np.zeros((3, 4)), np.zeros((3, 5))
  for b in range(3):
    scores = [score @ np.tanh(np.concatenate([states[b, t], query[b]]) @ joint) for t in range(5)]
    for t in range(5):
      wanted_weights[b, t] = np.exp(scores[t]) / sum(map(np.exp, scores))
      wanted[b] += wanted_weights[b, t] * states[b, t]
  context, weights = concat_attention(*attention_arrays())
  np.testing.assert_allclose(weights, wanted_weights, rtol=1e-5)
  np.testing.assert_allclose(context, wanted, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_concat_attention_is_permutation_equivariant():
  states, *others = attention_arrays()
  order = np.array([3, 0, 4, 1, 2])
  context, weights = concat_attention(states, *others)
  moved_context, moved_weights = concat_attention(states[:, order], *others)
  np.testing.assert_allclose(moved_weights, weights[:, order], rtol=1e-5)
  np.testing.assert_allclose(moved_context, context, rtol=1e-4, atol=1e-6)


def test_context_is_a_convex_combination_of_the_states():
  states, query, state_kernel, query_kernel, score = attention_arrays()
  context, weights = concat_attention(states, query, state_kernel, query_kernel, 1e4 * score)
  assert np.isfinite(context).all()
  taken = states[np.arange(3), weights.argmax(1)]
  np.testing.assert_allclose(context, taken, atol=1e-5)
  context, weights = concat_attention(states, query, state_kernel, query_kernel, score)
  assert (weights > 0).all()
  assert ((states.min(1) <= context) & (context <= states.max(1))).all()


def test_gru_matches_flax():
  gru, flax_gru = sequence.GRU(5), nn.RNN(nn.GRUCell(5))
  x, initial = series(3, (9, 2)), jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
  params = gru.init(jax.random.key(0), x.T, initial)["params"]
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases that are not 0
  cell = {}
  for number, (gate, name) in enumerate([("r", "r"), ("u", "z"), ("n", "n")]):
    of_gate = slice(5 * number, 5 * number + 5)
    cell[f"i{name}"] = {"kernel": params["kernel"][:, of_gate], "bias": params["bias"][number]}
    cell[f"h{name}"] = {"kernel": params[f"recurrent_{gate}"]}
  cell["hn"]["bias"] = params["recurrent_bias"]
  with jax.numpy_rank_promotion("allow"):
    wanted = jax.jit(lambda x: flax_gru.apply({"params": {"cell": cell}}, x, initial_carry=initial.T))(x)
  states = jax.jit(lambda x: gru.apply({"params": params}, x.T, initial))(x)
  np.testing.assert_allclose(states.T, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 6, 7, 11])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_unfold_inverts_fold(length, stride):
  x = series(4, (length, 2)).T  # [C, T, B]
  folded = sequence.fold(x, stride)
  assert folded.shape == (2 * stride, -(-length // stride), 4)
  unfolded = sequence.unfold(folded, stride)
  np.testing.assert_array_equal(unfolded[:, :length], x)
  np.testing.assert_array_equal(unfolded[:, length:], 0)


def test_fold_and_convolution_equal_a_strided_convolution():
  """Kernel 3 after folding by 2 equals XLA's convolution of 6 taps at stride 2."""
  x = series(2, (8, 1))
  layer = sequence.Conv(5, 3)
  folded = sequence.fold(x.T, 2)
  params = layer.init(jax.random.key(0), folded)["params"]
  taps = params["kernel"].reshape(6, 1, 5)  # [3, 1, C * stride, features]
  wanted = jax.lax.conv_general_dilated(x, taps, (2,), [(2, 2)], dimension_numbers=("NTC", "TIO", "NTC"))
  np.testing.assert_allclose(layer.apply({"params": params}, folded).T, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(17, 1), (5, 3)])
def test_latents_depend_on_and_influence_every_sample(cell, shape):
  model = build(shape, cell)
  variables = parameters(model)

  @jax.jit
  def both_ways(x):
    z, back = jax.vjp(lambda x: model.encode(variables, x).z, x)
    logits, influence = jax.jvp(lambda z: model.decode(variables, z), (z,), (jnp.ones_like(z),))
    return z, logits, influence, back(jnp.ones_like(z))[0]

  z, logits, influence, seen = both_ways(series(4, shape))
  assert z.shape == (4, 3)
  assert logits.shape == (4, *shape)
  assert (jnp.abs(influence) > 0).any(0).all(), "the latents do not influence some sample"
  assert (jnp.abs(seen) > 0).any(0).all(), "the latents do not depend on some sample"


@pytest.mark.parametrize(("cell", "bottleneck"), [("recurrent", "tanh"), ("convolutional", "gaussian")])
def test_gradient_reaches_every_parameter(cell, bottleneck):
  model = build(cell=cell, bottleneck=bottleneck)
  variables, x = parameters(model), series(8)

  def loss(variables):
    return jnp.square(model.reconstruct(variables, x) - x).sum()

  for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables)):
    code = bottleneck == "gaussian" and "code" in str(path)  # half of it computes the variance, not the mean
    assert (jnp.abs(gradient) > 0).mean() > (0.4 if code else 0.9), path


@pytest.mark.parametrize("cell", CELLS)
def test_examples_of_a_batch_are_independent(cell):
  model, x = build(cell=cell), series(4)
  variables = parameters(model)
  one = jnp.zeros_like(x).at[2].set(1.0)
  change = jax.jit(lambda x: jax.jvp(lambda x: model.reconstruct(variables, x), (x,), (one,))[1])(x)
  np.testing.assert_array_equal(jnp.abs(change).max((1, 2)) > 0, [False, False, True, False])


@pytest.mark.parametrize(("cell", "states"), [("convolutional", 3), ("recurrent", 9)])
def test_latents_are_affine_in_the_context_and_weights_are_returned(cell, states):
  model, x = build(cell=cell), series(5)
  variables = parameters(model)
  assert set(variables.params) == {"encoder", "decoder"}

  @jax.jit
  def inside(x):
    states, _, _ = model.module.encoder.body.apply({"params": variables.params["encoder"]["body"]}, x)
    return states, model.attention(variables, x), model.encode(variables, x).z

  body_states, attention, z = inside(x)
  (weights,) = attention.values()
  assert weights.shape == (5, 1, 1, states)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  context = jnp.einsum("bt,btd->bd", weights[:, 0, 0], body_states)
  code = variables.params["encoder"]["code"]
  np.testing.assert_allclose(z, context @ code["kernel"] + code["bias"][None], rtol=1e-4, atol=1e-5)


def through_body(cell, params, x):
  """Returns states and query of the encoder's body, layer by layer."""
  h, layers = x.transpose(2, 1, 0), zip(*CELLS[cell].values(), strict=True)
  for number, (width, stride) in enumerate(layers):
    h = sequence.fold(h, stride)
    if cell == "recurrent":
      h = sequence.GRU(width).apply({"params": params[f"GRU_{number}"]}, h, jnp.zeros((width, len(x))))
    else:
      h = sequence.Conv(width, 3).apply({"params": params[f"Conv_{number}"]}, h)
      h = jnp.tanh(h + params["place"][..., None] if number == 1 else h)
  states = h.transpose(2, 1, 0)
  return states, states[:, -1] if cell == "recurrent" else states.mean(1)


def through_decoder(cell, params, z):
  """Returns logits of series of 17 times, layer by layer."""

  def affine(number):
    layer = params[f"Dense_{number}"]
    return (z @ layer["kernel"] + layer["bias"][None]).T

  (narrow, wide), (small, large), last = (
    CELLS[cell]["widths"],
    CELLS[cell]["strides"],
    -(-17 // CELLS[cell]["strides"][0]),
  )
  shortest = -(-last // large)
  h = jnp.stack([z.T] * shortest, 1) if cell == "recurrent" else affine(0).reshape(wide, shortest, len(z))
  for number, (width, features, stride, size) in enumerate([(wide, narrow, large, last), (narrow, 1, small, 17)]):
    if cell == "recurrent":
      gru = sequence.GRU(width)
      h = gru.apply({"params": params[f"GRU_{number}"]}, h, jnp.tanh(affine(number)))
    layer = sequence.Conv(features * stride, 1 if cell == "recurrent" else 3)
    h = layer.apply({"params": params[f"Conv_{number}"]}, h if cell == "recurrent" else jnp.tanh(h))
    h = sequence.unfold(h, stride)[:, :size]
  return h.transpose(2, 1, 0)


@pytest.mark.parametrize("cell", CELLS)
def test_encoder_and_decoder_are_their_layers_in_sequence(cell):
  model, x = build(cell=cell, activation="tanh"), series(3)
  variables = parameters(model)
  encoder = variables.params["encoder"]

  @jax.jit
  def both(x):
    states, query = through_body(cell, encoder["body"], x)
    kernels = encoder["state_kernel"], encoder["query_kernel"]
    context, _ = sequence.concat_attention(states, query, *kernels, encoder["score"])
    z = context @ encoder["code"]["kernel"] + encoder["code"]["bias"][None]
    return (model.encode(variables, x).z, model.decode(variables, z)), (
      z,
      through_decoder(cell, variables.params["decoder"], z),
    )

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both(x))


@pytest.mark.parametrize("padding", [1, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_of_series_changes_no_latent(cell, padding):
  """The latents of series of 11 steps are those of the same series, padded with anything, whose mask ends there."""
  short, padded = build((11, 2), cell), build((11 + padding, 2), cell, masked=True)
  assert (short.columns, padded.columns) == ((), ("mask",))
  x, generator = series(3, (11, 2)), np.random.default_rng(2)
  longer = np.concatenate([x, generator.normal(size=(3, padding, 2))], 1).astype(np.float32)
  mask = np.broadcast_to((np.arange(11 + padding) < 11)[None, :, None], longer.shape).astype(np.float32)
  variables = parameters(padded)
  of_short = jax.tree.map(lambda leaf: leaf, variables)
  if cell == "convolutional":  # only the embeddings of positions depend on the length
    states = short.abstract_variables().params["encoder"]["body"]["place"].shape[1]
    of_short.params["encoder"]["body"]["place"] = variables.params["encoder"]["body"]["place"][:, :states]
  encode = jax.jit(lambda variables, x, mask: padded.encode(variables, x, {"mask": mask}).z)
  z = encode(variables, longer, mask)
  np.testing.assert_allclose(z, jax.jit(short.encode)(of_short, x).z, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(z, encode(variables, longer * mask - 5 * (1 - mask), mask))
  assert np.abs(encode(variables, longer, np.ones_like(mask)) - z).max() > 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_a_full_mask_changes_nothing_and_an_empty_one_gives_finite_gradients(cell):
  plain, masked, x = build(cell=cell), build(cell=cell, masked=True), series(3)
  variables = parameters(plain)
  with_mask = lambda mask: lambda variables: masked.encode(variables, x, {"mask": mask}).z
  expected = jax.jit(plain.encode)(variables, x).z
  np.testing.assert_allclose(jax.jit(with_mask(jnp.ones_like(x)))(variables), expected, rtol=1e-5, atol=1e-6)
  slopes = jax.jit(jax.grad(lambda variables: with_mask(jnp.zeros_like(x))(variables).sum()))(variables)
  assert all(jnp.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"cell": "recurent"}, "config.model.cell='recurent' is unknown; did you mean 'recurrent'"),
    ({"widths": ()}, "config.model.widths=()"),
    ({"strides": (2,)}, "config.model.strides=(2,): must be one number for each of the 2 layers"),
    ({"strides": (2, 0)}, "config.model.strides=(2, 0)"),
    ({"kernel": 0}, "config.model.kernel=0"),
    ({"activation": "reul"}, "did you mean 'relu'"),
    ({"cell": "recurrent", "kernel": 0}, "config.model.kernel=0"),
    ({"cell": "recurrent", "activation": 3}, "config.model.activation=3 is unknown"),
    ({"kernel": 35}, "config.model.kernel=35: must be at most 34 for an example of 17"),
    ({"attention_width": 0}, "config.model.attention_width=0"),
    ({"latent": 0}, "config.model.latent=0"),
    ({"bottleneck": "gauss"}, "config.model.bottleneck='gauss' is unknown; did you mean 'gaussian'"),
    (
      {"shape": (8, 8, 1)},
      "config.model.name='sequence' expects series, but these data are images; use one of attention,",
    ),
  ],
)
def test_invalid_options_are_refused(options, message):
  options = {"shape": (17, 1), "cell": "convolutional", **CELLS["convolutional"], **options}
  with pytest.raises(errors.UserError) as refusal:
    models.build(
      "sequence",
      options.pop("shape"),
      **{"latent": 3, "kernel": 3, "activation": "relu", "attention_width": 4, "bottleneck": "identity", **options},
    )
  assert message in str(refusal.value)

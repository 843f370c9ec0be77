import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.models import attention

pytestmark = pytest.mark.quick_compile

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 11, 7, 5
random = np.random.default_rng(0)
attention_with_weights = jax.jit(attention.scaled_dot_product_attention, static_argnames="scale")
attend = jax.jit(attention.attend, static_argnames=("scale", "block"))


@pytest.fixture(autouse=True)
def reseed():
  """Makes the draws of a test independent of the tests before it."""
  random.bit_generator.state = np.random.default_rng(0).bit_generator.state


def normal(*shape):
  return random.normal(size=shape).astype(np.float32)


def query_key_value(queries=QUERIES, keys=KEYS):
  """Returns query, key and value in the layout of jax.nn.dot_product_attention, [B, N, heads, d]."""
  return (
    normal(BATCH, queries, HEADS, WIDTH),
    normal(BATCH, keys, HEADS, WIDTH),
    normal(BATCH, keys, HEADS, WIDTH),
  )


def padding_mask(lengths, keys):
  """Returns the mask [B, 1, 1, keys] of the first `length` keys of each example."""
  return (np.arange(keys) < np.array(lengths)[:, None])[:, None, None]


def masks(queries=QUERIES, keys=KEYS):
  """Returns masks of all supported shapes; each but "none" leaves some query without a key."""
  full = random.random((BATCH, HEADS, queries, keys)) < 0.4
  full[0, :, 4] = full[1, 1, -1] = False
  return {
    "none": None,
    "full": full,
    "per query": full[0, 0],
    "per head": full[:1],
    "padding": padding_mask([keys - 2, 0], keys),
  }


def loop(query, key, value, mask, scale):
  """Returns (output, weights) by the definition, one query at a time in float64."""
  output = np.zeros((*query.shape[:-1], value.shape[-1]))
  weights = np.zeros((*query.shape[:-1], key.shape[-2]))
  allowed = np.ones(weights.shape, bool) if mask is None else np.broadcast_to(mask, weights.shape)
  for *lead, row in np.ndindex(query.shape[:-1]):
    at = tuple(lead)
    visible = [j for j in range(key.shape[-2]) if allowed[(*at, row, j)]]
    exponentials = [np.exp(scale * np.dot(query[at][row].astype(float), key[at][j].astype(float))) for j in visible]
    for j, exponential in zip(visible, exponentials, strict=True):
      weights[(*at, row, j)] = exponential / sum(exponentials)
      output[at][row] += weights[(*at, row, j)] * value[at][j]
  return output, weights


@pytest.mark.parametrize(("lead", "scale"), [((), None), ((4,), 1.0), ((2, 3), None)])
def test_attention_matches_its_definition_for_any_leading_axes(lead, scale):
  query, key, value = normal(*lead, 6, 4), normal(*lead, 5, 4), normal(*lead, 5, 3)
  mask = random.random((*lead, 6, 5)) < 0.6 if lead else None
  output, weights = attention_with_weights(query, key, value, mask, scale=scale)
  expected = loop(query, key, value, mask, 0.5 if scale is None else scale)
  np.testing.assert_allclose(output, expected[0], rtol=2e-5, atol=1e-6)
  np.testing.assert_allclose(weights, expected[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", masks())
def test_attend_matches_attention_with_weights_and_jax_nn(kind):
  mask = masks()[kind]
  full = None if mask is None else np.broadcast_to(mask, (BATCH, HEADS, QUERIES, KEYS))

  @jax.jit
  def three(*arrays):
    output, weights = attention.scaled_dot_product_attention(*(a.swapaxes(1, 2) for a in arrays), mask, scale=0.7)
    library = jax.nn.dot_product_attention(*arrays, mask=full, scale=0.7)
    return output.swapaxes(1, 2), attention.attend(*arrays, mask, scale=0.7), library, weights

  output, without, library, weights = map(np.asarray, three(*query_key_value()))
  np.testing.assert_allclose(without, output, rtol=1e-5, atol=1e-6)
  seen = weights.any(-1).swapaxes(1, 2)
  assert seen.all() == (kind == "none")
  np.testing.assert_allclose(output[seen], library[seen], rtol=1e-5, atol=1e-6)


def test_attention_matches_the_lectures_library_example():
  query, titles = np.ones((1, 100), np.float32), np.array([[0.9], [0.15]], np.float32).repeat(100, 1)
  np.testing.assert_allclose(query @ titles.T, [[90, 15]], rtol=1e-6)
  output, weights = attention_with_weights(query, titles, np.array([[1.0], [0.0]], np.float32))
  np.testing.assert_allclose(100 * weights, [[99.945, 0.055]], atol=5e-4)
  np.testing.assert_allclose(output, [[0.99945]], atol=5e-6)


def test_weights_sum_to_1_and_attention_is_permutation_equivariant():
  query, key, value = (array.swapaxes(1, 2) for array in query_key_value())
  output, weights = attention_with_weights(query, key, value)
  assert (weights >= 0).all()
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  order, others = random.permutation(KEYS), random.permutation(QUERIES)
  shuffled, moved = attention_with_weights(query[:, :, others], key[:, :, order], value[:, :, order])
  np.testing.assert_allclose(shuffled, output[:, :, others], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(moved, weights[:, :, others][..., order], rtol=1e-5, atol=1e-6)


def test_query_aligned_with_one_key_returns_its_value():
  value = normal(8, 3)
  output, weights = attention_with_weights(
    1e3 * np.eye(8, dtype=np.float32)[[5, 2]], np.eye(8, dtype=np.float32), value
  )
  np.testing.assert_array_equal(weights, np.eye(8)[[5, 2]])
  np.testing.assert_array_equal(output, value[[5, 2]])


@pytest.mark.parametrize("width", [4, 64])
def test_scaling_keeps_the_variance_of_the_scores_at_one(width):
  query, key, value = normal(300, width), normal(300, width), normal(300, 1)

  def variance(scale, factor=1.0):
    logarithms = np.log(
      attention_with_weights(np.float32(factor) * query, key, value, scale=scale)[1]
    )  # the scores up to a constant
    return (logarithms - logarithms.mean(-1, keepdims=True)).var()

  assert variance(None) == pytest.approx(1, rel=0.15)
  assert variance(1.0) == pytest.approx(width, rel=0.15)
  np.testing.assert_allclose(
    attention_with_weights(query, key, value, scale=1.0)[1],
    attention_with_weights(np.float32(np.sqrt(width)) * query, key, value)[1],
    rtol=1e-4,
    atol=1e-7,
  )


@pytest.mark.parametrize("kind", ["full", "padding"])
def test_fully_masked_query_has_zero_output_and_finite_gradients(kind):
  mask = masks()[kind]
  masked = ~np.broadcast_to(mask, (BATCH, HEADS, QUERIES, KEYS)).any(-1).swapaxes(1, 2)
  assert masked.any()

  def three(*arrays):
    output, weights = attention.scaled_dot_product_attention(*(array.swapaxes(1, 2) for array in arrays), mask)
    whole, parts = (attention.attend(*arrays, mask, block=block) for block in (64, 4))
    return output.swapaxes(1, 2), whole, parts, weights.swapaxes(1, 2)

  @jax.jit
  def with_gradients(*arrays):
    results, back = jax.vjp(three, *arrays)
    return results, back(jax.tree.map(jnp.ones_like, results))

  results, gradients = with_gradients(*query_key_value())
  assert all((np.asarray(result)[masked] == 0).all() for result in results)
  assert all(np.isfinite(gradient).all() for gradient in gradients)
  assert (np.asarray(gradients[0])[masked] == 0).all()


@pytest.mark.parametrize("kind", ["none", "padding", "full"])
def test_block_size_changes_neither_value_nor_gradient(kind):
  arrays, mask, direction = query_key_value(), masks()[kind], normal(BATCH, QUERIES, HEADS, WIDTH)

  def value_and_gradients(block):
    output, back = jax.vjp(lambda *a: attention.attend(*a, mask, block=block), *arrays)
    return output, back(direction)

  whole, parts = jax.jit(lambda: (value_and_gradients(64), value_and_gradients(4)))()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, parts)


def parameters(module, *arrays):
  """Returns normal matrices and vectors of ones, the same for the same module."""
  generator = np.random.default_rng(1)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *arrays)
  draw = lambda shape: 0.3 * generator.normal(size=shape) if len(shape) == 2 else np.ones(shape)
  return jax.tree.map(lambda leaf: draw(leaf.shape).astype(np.float32), shapes)


def layer(x, memory=None, mask=None, *, params=None, **options):
  """Returns (output, params, weights) of a layer of width 12 with 3 heads; checks that both code paths agree."""
  module = attention.MultiHeadAttention(**{"width": 12, "heads": 3, **options})
  params = parameters(module, x, memory) if params is None else params

  @jax.jit
  def run(params, *arrays):
    output, collections = module.apply(params, *arrays, mutable=["attention"])
    return module.apply(params, *arrays), output, collections["attention"]["weights"][0]

  plain, output, weights = run(params, x, memory, mask)
  np.testing.assert_allclose(plain, output, rtol=1e-4, atol=1e-5 * np.abs(output).max())
  return output, params, weights


@pytest.mark.parametrize("cross", [False, True])
def test_layer_matches_flax_multi_head_attention(cross):
  x, memory = normal(2, 5, 12), normal(2, 4, 12) if cross else None
  mask = random.random((2, 1, 5, 4 if cross else 5)) < 0.8
  output, variables, weights = layer(x, memory, mask)
  params = variables["params"]
  flax_params = {
    name: {"kernel": params[name]["kernel"].reshape(12, 3, 4), "bias": np.zeros((3, 4), np.float32)}
    for name in ("query", "key", "value")
  }
  flax_params["out"] = {"kernel": params["out"]["kernel"].reshape(3, 4, 12), "bias": params["out"]["bias"]}
  seen = mask[:, 0].any(-1)
  expected = jax.jit(nn.MultiHeadDotProductAttention(3).apply)({"params": flax_params}, x, memory, mask=mask)
  np.testing.assert_allclose(np.asarray(output)[seen], expected[seen], rtol=1e-4, atol=1e-5)
  assert weights.shape == (2, 3, 5, mask.shape[-1])


def test_padding_mask_equals_truncation():
  x = normal(1, 6, 12)
  short, params, _ = layer(x[:, :4])
  padded, _, _ = layer(x, None, padding_mask([4], 6), params=params)
  np.testing.assert_allclose(padded[:, :4], short, rtol=1e-5, atol=1e-6)


def test_one_set_of_queries_is_shared_by_all_examples():
  queries, memory = normal(1, 3, 12), normal(4, 5, 12)
  output, params, _ = layer(queries, memory)
  for row in range(4):
    np.testing.assert_allclose(
      output[row], layer(queries, memory[row : row + 1], params=params)[0][0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_qk_norm_bounds_the_scores(scaled):
  def reach(weights):
    logarithms = np.log(np.maximum(weights, np.finfo(np.float32).tiny))
    return (logarithms.max(-1) - logarithms.min(-1)).max()

  x = normal(2, 30, 12)
  bound = 2 * (2 if scaled else 4)  # of a difference of two scores: 2 sqrt(d), or 2 d, of d = 4
  assert reach(layer(10 * x, scaled=scaled)[2]) > bound
  weights = layer(10 * x, scaled=scaled, qk_norm=True)[2]
  assert bound / 2 < reach(weights) <= bound * 1.0001
  np.testing.assert_allclose(weights, layer(x, scaled=scaled, qk_norm=True)[2], rtol=1e-3, atol=1e-5)


def test_unscaled_layer_multiplies_the_scores_by_sqrt_d():
  x = normal(2, 6, 12)
  _, params, weights = layer(x)
  params["params"]["query"]["kernel"] /= 2  # sqrt(d) = 2
  np.testing.assert_allclose(layer(x, params=params, scaled=False)[2], weights, rtol=1e-5, atol=1e-6)


def test_memory_is_linear_in_the_sequence_length():
  module = attention.MultiHeadAttention(width=8, heads=2)
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 1, 8)))

  def memory(length):
    x = jax.ShapeDtypeStruct((1, length, 8), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 1, 1, length), bool)
    loss = lambda params, x, mask: (module.apply(params, x, None, mask) ** 2).sum()
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x, mask).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  short, long = memory(2048), memory(4096)
  assert short < 2048**2 * 2 * 4  # the weights alone, in bytes
  assert long / short < 2.1


def test_init_computes_and_stores_no_attention_weights():
  module = attention.MultiHeadAttention(width=8, heads=2)
  init = jax.jit(lambda key: module.init(key, jnp.ones((1, 4096, 8)))).lower(jax.random.key(0)).compile()
  assert init.memory_analysis().temp_size_in_bytes < 4096**2
  assert set(jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 4, 8)))) == {"params"}


@pytest.mark.parametrize(("heads", "message"), [(5, "a divisor of config.model.width=12"), (0, "an integer from 1")])
def test_heads_that_do_not_divide_the_width_are_refused(heads, message):
  with pytest.raises(errors.UserError, match=rf"config\.model\.heads={heads}: must be {message}"):
    layer(normal(1, 2, 12), heads=heads)


def test_dense_layer_of_tokens_matches_flax_dense():
  rng = np.random.default_rng(0)
  x, probe = (jnp.asarray(rng.normal(size=(3, 5, features)), jnp.float32) for features in (4, 6))
  layers = attention.Dense(6), nn.Dense(6)
  params = layers[1].init(jax.random.key(0), x)
  results = [jax.jit(jax.value_and_grad(lambda p, f=f: jnp.vdot(f.apply(p, x), probe)))(params) for f in layers]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *results)
  jax.tree.map(np.testing.assert_array_equal, layers[0].init(jax.random.key(0), x), params)

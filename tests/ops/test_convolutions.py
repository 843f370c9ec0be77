import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from jax import lax
from jax.test_util import check_grads

from ae_jax.ops import convolutions

pytestmark = pytest.mark.quick_compile


def draw(*shape):
  return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def agree(ours, theirs, *arguments, rtol=1e-4):
  """Asserts that two functions have the same value, gradient and second derivative (of a quadratic in the value)."""
  probe = jnp.asarray(np.random.default_rng(0).normal(size=jax.eval_shape(ours, *arguments).shape), jnp.float32)

  def energy(f):
    return lambda *a: (jnp.square(f(*a)) * probe).sum()

  def gradient_norm(f):
    return lambda *a: sum(jnp.square(g).sum() for g in jax.grad(energy(f), tuple(range(len(a))))(*a))

  every = tuple(range(len(arguments)))

  def results(f):  # one program, since compiling takes most of the time
    derived = jax.jit(lambda *a: (f(*a), jax.grad(energy(f), every)(*a), jax.grad(gradient_norm(f), every)(*a)))
    return jax.tree.leaves(derived(*arguments))

  for a, b in zip(results(ours), results(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max()))


sides, kernels, channels = strategies.integers(1, 9), strategies.integers(1, 5), strategies.integers(1, 3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
  size=strategies.tuples(sides, sides),
  kernel=strategies.tuples(kernels, kernels),
  c=strategies.tuples(channels, channels),
)
def test_conv_matches_xla(size, kernel, c):
  size = tuple(max(side, k) for side, k in zip(size, kernel, strict=True))
  x, w = draw(c[0], *size, 2), draw(*kernel, *c)
  agree(convolutions.conv, convolutions._conv_xla, x, w)


@pytest.mark.parametrize(
  ("size", "kernel", "c"),
  [((5, 6), (3, 3), (2, 3)), ((4, 7), (2, 5), (3, 1)), ((3, 2), (4, 6), (2, 2)), ((5, 4), (8, 1), (3, 2))],
)
def test_conv_same_matches_xla(size, kernel, c):
  def xla(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("CHWN", "HWIO", "CHWN"))

  agree(convolutions.conv_same, xla, draw(c[0], *size, 2), draw(*kernel, *c))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
  size=strategies.tuples(sides, sides),
  kernel=strategies.tuples(kernels, kernels),
  c=strategies.tuples(channels, channels),
)
def test_conv_adjoint_satisfies_the_inner_product_identity(size, kernel, c):
  size = tuple(max(side, k) for side, k in zip(size, kernel, strict=True))
  x, w = draw(c[0], *size, 2), draw(*kernel, *c)
  y = draw(c[1], *(side - k + 1 for side, k in zip(size, kernel, strict=True)), 2)

  @jax.jit
  def inner_products(x, w, y):
    return jnp.vdot(convolutions.conv(x, w), y), jnp.vdot(x, convolutions.conv_adjoint(y, w))

  left, right = inner_products(x, w, y)
  np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
  size=strategies.tuples(sides, sides),
  kernel=strategies.tuples(kernels, kernels),
  c=strategies.tuples(channels, channels),
  stride=strategies.integers(1, 3),
  crop=strategies.tuples(strategies.integers(0, 4), strategies.integers(0, 4)),
)
def test_conv_transpose_matches_xla(size, kernel, c, stride, crop):
  full = convolutions.transposed_size(size, kernel, stride)
  crop = tuple(min(cut, side - 1, k - 1) for cut, side, k in zip(crop, full, kernel, strict=True))
  wanted = tuple(side - cut for side, cut in zip(full, crop, strict=True))
  x, w = draw(c[0], *size, 2), draw(*kernel, *c)
  crops = [((cut + 1) // 2, cut // 2) for cut in crop]
  agree(
    lambda x, w: convolutions.conv_transpose(x, w, stride, wanted),
    lambda x, w: convolutions._conv_transpose_xla(x, w, stride, crops),
    x,
    w,
  )


@pytest.mark.parametrize(
  ("size", "kernel", "stride", "padding", "output_padding", "reached"),
  [
    (5, 3, 2, 0, 0, 11),
    (5, 5, 2, 1, 0, 11),
    (5, 4, 2, 1, 1, 11),
    (11, 4, 3, 3, 0, 28),
    (11, 8, 2, 0, 0, 28),
    (11, 6, 3, 4, 0, 28),
    (5, 3, 2, 1, 0, 9),  # the lecture's own parameters give 9 and 31 instead of 11 and 28
    (11, 3, 3, 1, 0, 31),
  ],
)
def test_conv_transpose_matches_the_padding_of_pytorch(size, kernel, stride, padding, output_padding, reached):
  x, w = np.asarray(draw(1, size, size, 1)), np.asarray(draw(kernel, kernel, 1, 1))
  full = np.zeros((stride * (size - 1) + kernel + output_padding,) * 2)
  for i in range(size):
    for j in range(size):
      patch = full[stride * i : stride * i + kernel, stride * j : stride * j + kernel]
      patch += x[0, i, j, 0] * w[::-1, ::-1, 0, 0]
  exact = full[padding : len(full) - padding, padding : len(full) - padding]
  assert exact.shape == (reached, reached)
  y = convolutions.conv_transpose(x, w, stride, (reached, reached))
  np.testing.assert_allclose(y[0, :, :, 0], exact, rtol=1e-4, atol=1e-5)


def test_conv_transpose_refuses_a_size_out_of_reach():
  with pytest.raises(ValueError, match=r"size=.*: must be at most"):
    convolutions.conv_transpose(jnp.zeros((1, 5, 5, 1)), jnp.zeros((3, 3, 1, 1)), 2, (12, 11))


@pytest.mark.parametrize("window", [(2, 2), (1, 2), (3, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_matches_xla_with_and_without_ties(window, ties):
  x = draw(3, 7, 6, 2)
  if ties:
    x = jnp.round(x)

  def xla(x):
    shape = (1, *window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID")

  np.testing.assert_array_equal(convolutions.max_pool(x, window), xla(x))
  slopes = [
    jax.grad(lambda x, f=f: (f(x) * draw(*f(x).shape)).sum())(x)
    for f in (xla, lambda x: convolutions.max_pool(x, window))
  ]
  np.testing.assert_array_equal(*slopes)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
  size=strategies.tuples(sides, sides),
  kernel=strategies.tuples(kernels, kernels),
  c=strategies.tuples(strategies.sampled_from([1, 3, 4]), channels),  # the CPU uses another product from 4 channels on
  window=strategies.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1), (3, 2)]),
)
def test_conv_max_pool_matches_xla(size, kernel, c, window):
  size = tuple(max(side, k + w - 1) for side, k, w in zip(size, kernel, window, strict=True))
  agree(
    lambda x, w: convolutions.conv_max_pool(x, w, window),
    lambda x, w: convolutions.max_pool(convolutions._conv_xla(x, w), window),
    draw(c[0], *size, 2),
    draw(*kernel, *c),
  )


@pytest.mark.parametrize("channels", [2, 5])
def test_gradient_of_tied_maxima_goes_to_the_first(channels):
  x, w = jnp.ones((channels, 5, 6, 1)), jnp.ones((2, 2, channels, 1))
  slope = jax.grad(lambda x: convolutions.conv_max_pool(x, w, (2, 2)).sum())(x)[0, :, :, 0]
  seen = np.zeros((5, 6))
  seen[0:4, 0:4] = 1  # the first output of each window, at even rows and columns, has a 2x2 receptive field
  np.testing.assert_array_equal(slope, seen)


@pytest.mark.parametrize(
  "operation",
  [
    convolutions.conv,
    convolutions.conv_same,
    lambda x, w: convolutions.conv_transpose(x, w, 2, (12, 11)),
    lambda x, w: convolutions.conv_max_pool(x, w, (2, 2)),
    lambda x, w: convolutions.conv_max_pool(x[:1], w[:, :, :1], (2, 2)),
  ],
)
def test_cpu_gradient_adds_two_matrix_products_and_no_slow_operation(operation):
  """The gradients of input and kernel take one product each, and no scatter, gather or convolution."""
  x, w = draw(4, 6, 5, 3), draw(3, 3, 4, 5)
  slopes = jax.jit(jax.value_and_grad(lambda x, w: jnp.square(operation(x, w)).sum(), (0, 1)))
  program = slopes.trace(x, w).lower(lowering_platforms=("cpu",)).as_text()
  assert program.count("stablehlo.dot_general") == 3
  assert not any(f"stablehlo.{slow}" in program for slow in ("convolution", "scatter", "gather", "reduce_window"))


def test_forward_and_reverse_derivatives_match_finite_differences():
  x, w = draw(2, 4, 5, 2), draw(3, 2, 2, 3)
  for function in (
    convolutions.conv,
    lambda x, w: convolutions.conv_max_pool(x, w, (2, 2)),
    lambda x, w: convolutions.conv_transpose(x, w, 2, (8, 9)),
  ):
    check_grads(jax.jit(function), (x, w), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


def test_conv_supports_vmap_over_kernels():
  x, w = draw(3, 2, 5, 5, 2), draw(3, 3, 3, 2, 4)
  unbatched = jnp.stack([convolutions.conv(a, b) for a, b in zip(x, w, strict=True)])
  np.testing.assert_allclose(jax.vmap(convolutions.conv)(x, w), unbatched, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_only_cpu_uses_matrix_products(platform, convolves):
  def both(x, w):
    return convolutions.conv_transpose(convolutions.conv(x, w), w.swapaxes(2, 3), 2, (9, 9))

  slopes = jax.jit(jax.grad(lambda x, w: jnp.square(both(x, w)).sum(), (0, 1)))
  program = slopes.trace(draw(2, 6, 6, 3), draw(3, 3, 2, 4)).lower(lowering_platforms=(platform,)).as_text()
  assert ("stablehlo.convolution" in program) == convolves

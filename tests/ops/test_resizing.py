import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from test_convolutions import agree, draw

from ae_jax.ops import resizing

pytestmark = pytest.mark.quick_compile

METHODS = sorted(resizing.METHODS)
sides, kernels, channels = strategies.integers(1, 9), strategies.integers(1, 5), strategies.integers(1, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
  ("before", "after"), [((5, 5), (11, 11)), ((11, 13), (28, 27)), ((1, 4), (6, 4)), ((7, 6), (3, 5))]
)
def test_resize_matches_jax_image_resize(method, before, after):
  x = draw(2, *before, 3)
  wanted = jax.image.resize(x, (2, *after, 3), method, antialias=False)
  np.testing.assert_allclose(resizing.resize(x, after, method), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_resize_keeps_constants_and_nearest_repeats_pixels(method):
  x = draw(1, 4, 5, 2)
  np.testing.assert_allclose(resizing.resize(jnp.full_like(x, 0.7), (8, 15), method), 0.7, rtol=1e-6)
  if method == "nearest":
    np.testing.assert_array_equal(resizing.resize(x, (8, 15), method), x.repeat(2, axis=1).repeat(3, axis=2))


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
  before=strategies.tuples(sides, sides),
  after=strategies.tuples(sides, sides),
  kernel=strategies.tuples(kernels, kernels),
  c=strategies.tuples(channels, channels),
  method=strategies.sampled_from(METHODS),
)
def test_resize_conv_matches_resize_then_xlas_convolution(before, after, kernel, c, method):
  agree(
    lambda x, w: resizing.resize_conv(x, w, after, method),
    lambda x, w: resizing._resize_conv_xla(x, w, after, method),
    draw(c[0], *before, 2),
    draw(*kernel, *c),
  )


def test_resize_conv_supports_vmap_over_kernels():
  x, w = draw(3, 2, 5, 5, 2), draw(3, 3, 3, 2, 4)

  def enlarge(x, w):
    return resizing.resize_conv(x, w, (8, 11), "bilinear")

  unbatched = jnp.stack([enlarge(a, b) for a, b in zip(x, w, strict=True)])
  np.testing.assert_allclose(jax.vmap(enlarge)(x, w), unbatched, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("ratio", "size"), [((2, 3), (6, 12)), ((2, 3), (5, 10)), ((3, 1), (8, 4)), ((1, 1), (3, 4))])
def test_depth_to_space_moves_each_channel_to_its_pixel_of_the_block(ratio, size):
  x = np.asarray(draw(2 * ratio[0] * ratio[1], 3, 4, 2))
  full = np.zeros((2, 3 * ratio[0], 4 * ratio[1], 2), np.float32)
  for row in range(ratio[0]):
    for column in range(ratio[1]):
      phase = row * ratio[1] + column
      full[:, row :: ratio[0], column :: ratio[1]] = x[phase :: ratio[0] * ratio[1]]
  top, left = (-(-(full.shape[axis] - side) // 2) for axis, side in zip((1, 2), size, strict=True))
  wanted = full[:, top : top + size[0], left : left + size[1]]
  np.testing.assert_array_equal(resizing.depth_to_space(jnp.asarray(x), ratio, size), wanted)


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("cuda", True), ("tpu", True)])
@pytest.mark.parametrize("method", METHODS)
def test_resize_needs_no_gather_or_scatter(platform, convolves, method):
  def energy(x, w):
    return jnp.square(resizing.resize_conv(resizing.resize(x, (5, 8), method), w, (9, 11), method)).sum()

  program = jax.jit(jax.grad(energy, (0, 1))).trace(draw(2, 4, 6, 3), draw(3, 3, 2, 4))
  text = program.lower(lowering_platforms=(platform,)).as_text()
  assert ("stablehlo.convolution" in text) == convolves
  assert "gather" not in text
  assert "scatter" not in text

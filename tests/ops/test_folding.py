"""Tests of `ae_jax.ops.folding`: the definition of patches, and all transformations of the two primitives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.ops import folding

CASES = [((3, 3), 1), ((8, 8), 2), ((3, 5), 2), ((2, 2), 3), ((1, 4), 1)]


def drawn(*shape):
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def pair(kernel, stride):
  """Returns images [2, 3 strides + kh, 4 strides + kw, 3] and random patches of the same kernel."""
  height, width = (stride * (count - 1) + k for count, k in zip((4, 5), kernel, strict=True))
  return drawn(2, height, width, 3), drawn(*kernel, 2, 4, 5, 3)


@pytest.mark.parametrize(("kernel", "stride"), CASES)
def test_the_patches_are_the_pixels_under_the_kernel_and_fold_is_the_adjoint(kernel, stride):
  x, patches = pair(kernel, stride)
  unfolded = folding.unfold(x, kernel, stride)
  for u, v in itertools.product(*map(range, kernel)):
    np.testing.assert_array_equal(
      unfolded[u, v], x[:, u : u + 3 * stride + 1 : stride, v : v + 4 * stride + 1 : stride]
    )
  np.testing.assert_allclose(jnp.vdot(unfolded, patches), jnp.vdot(x, folding.fold(patches, stride)), rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), CASES[:3])
def test_derivatives_are_the_function_and_its_adjoint_in_both_modes(kernel, stride):
  x, patches = pair(kernel, stride)
  unfold, fold = (lambda x: folding.unfold(x, kernel, stride)), (lambda p: folding.fold(p, stride))
  np.testing.assert_array_equal(jax.vjp(unfold, x)[1](patches)[0], fold(patches))
  np.testing.assert_array_equal(jax.vjp(fold, patches)[1](x)[0], unfold(x))
  np.testing.assert_array_equal(jax.jvp(unfold, (x,), (2 * x,))[1], unfold(2 * x))
  np.testing.assert_array_equal(jax.jvp(fold, (patches,), (2 * patches,))[1], fold(2 * patches))


@pytest.mark.parametrize("axis", [0, 2, 4])
def test_a_vectorised_call_equals_one_call_for_each_member(axis):
  x, patches = pair((3, 3), 2)
  members = jnp.stack([x, 2 * x], min(axis, x.ndim))
  unfold = lambda x: folding.unfold(x, (3, 3), 2)
  vectorised = jax.vmap(unfold, min(axis, x.ndim))(members)
  np.testing.assert_array_equal(vectorised, jnp.stack([unfold(x), unfold(2 * x)]))
  gradients = jax.vmap(lambda p: jax.vjp(unfold, x)[1](p)[0], axis)(jnp.stack([patches, -patches], axis))
  np.testing.assert_array_equal(gradients[1], -gradients[0])

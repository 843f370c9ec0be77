"""Spectra of codes and of Jacobians, compared with known values and with SVDs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.evaluators import spectra


def gaussian(size, *deviations):
  return np.random.default_rng(0).normal(size=(size, len(deviations))).astype(np.float32) * np.float32(deviations)


@pytest.mark.parametrize("size", [5, 12, 200])
def test_the_eigenvalues_are_the_squared_singular_values_of_the_centred_codes(size):
  codes = gaussian(size, *range(1, 13)) + 7
  singular = np.linalg.svd(codes - codes.mean(0), compute_uv=False)
  found = spectra.covariance_eigenvalues(codes)
  assert found.shape == (min(size, 12),)
  np.testing.assert_allclose(found, singular**2 / size, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(spectra.covariance_eigenvalues(codes[::-1]), found, atol=1e-9)


@pytest.mark.parametrize("directions", [1, 3, 10])
def test_codes_with_equal_variance_in_k_directions_have_dimension_k(directions):
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
  codes = gaussian(5000, *[0.3] * directions, *[0.0] * (16 - directions)) @ rotation + 5
  eigenvalues = spectra.covariance_eigenvalues(codes)
  for measure in (spectra.participation_ratio, spectra.effective_rank):
    assert measure(np.full(directions, 0.7)) == pytest.approx(directions)
    assert directions * 0.99 < measure(eigenvalues) < directions * 1.001
    assert measure(64 * eigenvalues) == pytest.approx(measure(eigenvalues))


def test_unequal_eigenvalues_match_the_closed_forms():
  eigenvalues = np.array([4.0, 1.0])
  assert spectra.participation_ratio(eigenvalues) == pytest.approx(25 / 17)
  assert spectra.effective_rank(eigenvalues) == pytest.approx((2 / 3) ** (-2 / 3) * (1 / 3) ** (-1 / 3))


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_constant_codes_have_dimension_zero(noise):
  codes = np.float32([3.0, -0.7, 0.0]) * (1 + noise * gaussian(50, 1, 1, 1))
  for measure in (spectra.participation_ratio, spectra.effective_rank):
    assert measure(spectra.covariance_eigenvalues(codes)) == 0.0


@pytest.mark.parametrize("latent", [4, 40])  # fewer than the elements, and more
def test_the_gram_matrices_give_the_largest_singular_value_of_the_jacobian(latent):
  generator = np.random.default_rng(latent)
  down, up = (generator.normal(size=size).astype(np.float32) for size in ((30, latent), (latent, 30)))
  x = generator.normal(size=(5, 6, 5, 1)).astype(np.float32)
  z = generator.normal(size=(5, latent)).astype(np.float32)
  encode = lambda x: jnp.tanh(x.reshape(-1, 30) @ down)
  decode = lambda z: jax.nn.sigmoid(z @ up).reshape(-1, 6, 5, 1)
  for gram, function, points in ((spectra.encoder_gram, encode, x), (spectra.decoder_gram, decode, z)):
    jacobians = jax.jit(jax.vmap(jax.jacobian(lambda point, function=function: function(point[None])[0])))(points)
    expected = np.linalg.svd(np.asarray(jacobians).reshape(5, -1, points[0].size), compute_uv=False)[:, 0]
    found = spectra.largest_singular_values(np.asarray(jax.jit(gram, static_argnums=0)(function, points)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_jacobians_that_are_not_finite_have_a_nan_singular_value():
  gram = np.stack([np.eye(3), np.full((3, 3), np.nan), np.diag([1.0, 9.0, 4.0]), np.zeros((3, 3))])
  np.testing.assert_allclose(spectra.largest_singular_values(gram.astype(np.float32)), [1.0, np.nan, 3.0, 0.0])

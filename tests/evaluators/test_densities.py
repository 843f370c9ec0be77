"""Densities fitted to latent codes with known moments or clusters; paths between latent codes."""

import types

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from ae_jax.evaluators import densities


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def correlated(count, latent, seed=0):
  return (normal(count, latent, seed=seed) @ normal(latent, latent, seed=1) + 3.0).astype(np.float32)


def draw(codes, count=20_000):
  mixture = densities.fit(codes)
  drawn = mixture.draw(count, np.random.default_rng(5))
  assert drawn.shape == (count, codes.shape[1])
  assert drawn.dtype == np.float32
  assert np.isfinite(drawn).all()
  return mixture, drawn


@pytest.mark.parametrize("mixed", [2, 64])  # directions in the mixture; one gaussian covers the others
@pytest.mark.parametrize("count", [30, 400])  # enough codes for one gaussian, and for several
def test_samples_have_the_mean_and_covariance_of_the_codes(monkeypatch, mixed, count):
  monkeypatch.setattr(densities, "_MIXED", mixed)
  codes = correlated(count, 4)
  mixture, drawn = draw(codes)
  assert (mixture.components == 1) == (count == 30)
  expected = np.cov(codes, rowvar=False, bias=True)
  np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.03 * expected.max() ** 0.5)
  np.testing.assert_allclose(np.cov(drawn, rowvar=False), expected, atol=0.05 * expected.max())


def test_samples_reproduce_separated_clusters_and_their_proportions():
  """One gaussian with the same covariance would put most samples between the clusters."""
  centres, shares = np.array([(0, 0, 0), (9, 0, 0), (0, 9, 9)]), (0.5, 0.3, 0.2)
  codes = np.repeat(centres, [500, 300, 200], 0) + 0.5 * normal(1000, 3)
  _, drawn = draw(codes.astype(np.float32))
  distances = np.linalg.norm(drawn[:, None] - centres, axis=-1)
  assert (distances.min(1) < 2.5).mean() > 0.99
  np.testing.assert_allclose(np.bincount(distances.argmin(1)) / len(drawn), shares, atol=0.02)


def test_samples_have_the_mean_and_covariance_of_each_component():
  """The two components have correlations of opposite sign."""
  means, weights = np.array([[-20.0, 0.0], [20.0, 0.0]]), np.array([0.25, 0.75])
  covariances = np.array([[[4.0, 1.8], [1.8, 1.0]], [[1.0, -2.5], [-2.5, 9.0]]])
  gaussians = types.SimpleNamespace(weights_=weights, means_=means, covariances_=covariances)
  mixture = densities.Mixture(np.array([5.0, 7.0]), np.eye(2), np.array([2.0, 1.0]), gaussians)
  drawn = (mixture.draw(40_000, np.random.default_rng(0)) - mixture.mean) / 2.0
  for number, members in enumerate((drawn[:, 0] < 0, drawn[:, 0] > 0)):
    assert members.mean() == pytest.approx(weights[number], abs=0.01)
    np.testing.assert_allclose(drawn[members].mean(0), means[number], atol=0.1)
    np.testing.assert_allclose(np.cov(drawn[members], rowvar=False), covariances[number], atol=0.25)


def test_a_mixture_is_nearly_as_likely_as_a_converged_one():
  """The clusters overlap and differ in width, so k-means, from which EM starts, splits them badly."""
  widths = np.repeat([0.2, 1.0, 3.0], 300)[:, None]
  codes = (widths * normal(900, 2) + np.repeat([[0.0, 0.0], [1.0, 0.5], [0.0, -1.0]], 300, 0)).astype(np.float32)
  mixture = densities.fit(codes)
  along = (codes - mixture.mean) @ mixture.directions.T / mixture.deviations[0]
  converged = GaussianMixture(mixture.components, tol=1e-6, max_iter=1000, random_state=0).fit(along)
  assert mixture.gaussians.score(along) > converged.score(along) - 0.05


def test_fitting_is_equivariant_to_the_scale_of_the_codes():
  codes = correlated(300, 3)
  for scale in (1e-12, 1e12):
    scaled = densities.fit(codes * np.float32(scale)).draw(50, np.random.default_rng(0)) / np.float32(scale)
    np.testing.assert_allclose(scaled, densities.fit(codes).draw(50, np.random.default_rng(0)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
  "codes",
  [
    np.full((50, 3), 7.0),
    np.ones((1, 3)),
    np.zeros((4, 3)),
    np.repeat([[1e30, -1e30, 0.0]], 9, 0),
  ],
)
def test_constant_codes_give_constant_samples(codes):
  mixture, drawn = draw(codes.astype(np.float32), count=5)
  assert mixture.components == 0
  np.testing.assert_array_equal(drawn, np.repeat(codes[:1].astype(np.float32), 5, 0))


@pytest.mark.parametrize("count", [2, 3, 200])
def test_samples_of_codes_on_a_line_lie_on_it(count):
  along = np.arange(1, 6)
  codes = (2.0 + normal(count, 1) * along).astype(np.float32)
  _, drawn = draw(codes, 100)
  steps = (drawn - 2.0) / along
  np.testing.assert_allclose(steps, np.repeat(steps[:, :1], 5, 1), atol=1e-5)
  assert steps[:, 0].std() == pytest.approx(codes[:, 0].std(), rel=0.2)


def test_few_distinct_codes_can_be_fitted():
  points = normal(3, 4).astype(np.float32)
  mixture, drawn = draw(np.repeat(points, 200, 0), 300)
  assert mixture.components > 3  # as many as for other codes, though some coincide
  distances = np.linalg.norm(drawn[:, None] - points, axis=-1).min(1)
  assert np.median(distances) < 0.02


def test_fewer_examples_get_fewer_components():
  components = [densities.fit(correlated(count, 4)).components for count in (3, 39, 80, 320, 1000)]
  assert components == [1, 1, 2, 8, densities.COMPONENTS]


def test_principal_directions_agree_with_pca():
  codes = correlated(200, 5)
  directions, deviations = densities.principal_directions(codes)
  pca = PCA().fit(codes.astype(np.float64))
  np.testing.assert_allclose(deviations, pca.singular_values_ / 200**0.5, rtol=1e-6)
  np.testing.assert_allclose(np.abs(np.sum(directions * pca.components_, 1)), 1.0, rtol=1e-6)
  assert (directions[np.arange(5), np.abs(directions).argmax(1)] > 0).all()


def test_constant_directions_are_omitted():
  codes = np.concatenate([correlated(50, 2), np.full((50, 3), 100.0, np.float32)], 1)
  directions, deviations = densities.principal_directions(codes)
  assert len(deviations) == 2
  np.testing.assert_allclose(directions[:, 2:], 0.0, atol=1e-7)


SHARES = np.linspace(0.0, 1.0, 7)


@pytest.mark.parametrize("path", [densities.line, lambda *ends: densities.arc(*ends, 0.5)])
def test_paths_connect_their_ends_and_are_reversible(path):
  start, end = normal(2, 6)
  codes = path(start, end, SHARES)
  np.testing.assert_allclose(codes[[0, -1]], [start, end], atol=1e-12)
  np.testing.assert_allclose(path(end, start, SHARES), codes[::-1], atol=1e-12)


def test_a_straight_path_has_equal_steps():
  codes = densities.line(*normal(2, 6), SHARES)
  np.testing.assert_allclose(np.diff(codes, axis=0), np.diff(codes, axis=0)[[0] * 6], atol=1e-12)


def test_an_arc_keeps_its_distance_from_the_centre_and_has_equal_angles():
  centre, ends = normal(6), normal(2, 6, seed=1)
  start, end = centre + 3.0 * ends / np.linalg.norm(ends, axis=1, keepdims=True)
  spokes = densities.arc(start, end, SHARES, centre) - centre
  np.testing.assert_allclose(np.linalg.norm(spokes, axis=1), 3.0)
  cosines = (spokes[1:] * spokes[:-1]).sum(1) / 9.0
  np.testing.assert_allclose(np.arccos(cosines), np.arccos(spokes[0] @ spokes[-1] / 9.0) / 6)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0, -1.0, -2.0])
def test_an_undefined_arc_is_the_straight_line(factor):
  start = normal(4)
  for ends in ((start, factor * start), (factor * start, start)):
    np.testing.assert_allclose(densities.arc(*ends, SHARES, 0.0), densities.line(*ends, SHARES), atol=1e-6)

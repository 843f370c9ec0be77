"""PCA baselines: their errors below and above the rank of the data, and quantised scores."""

import numpy as np
import pytest
from sklearn import decomposition

from ae_jax import data, models
from ae_jax.evaluators import pca


def dataset_of(train, test, value_range="unit"):
  return data.Dataset("made", value_range, train, test, None, None)


def errors_at(dataset, latent):
  """Returns the squared errors of the test examples, with `latent` components."""
  return pca.squared_errors(dataset, lambda train: pca.fit(train, latent))


def test_low_rank_data_have_an_error_only_below_their_rank():
  generator = np.random.default_rng(0)
  plane = (generator.uniform(size=(60, 3)) @ generator.uniform(size=(3, 20)) / 3).astype(np.float32)
  images = plane.reshape(60, 5, 4, 1)
  dataset = dataset_of(images[:40], images[40:])
  two, three = (errors_at(dataset, latent) for latent in (2, 3))
  assert three.max() < 1e-9 < two.mean()


@pytest.mark.parametrize("latent", [1, 12, 100])
def test_more_components_than_the_data_have_are_accepted(latent):
  images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 1), np.uint8)
  errors = errors_at(dataset_of(images[:4], images[4:]), latent)
  assert np.isfinite(errors).all()


def test_components_beyond_the_rank_of_the_training_examples_do_not_count():
  """Two images span one direction around their mean; a second component would be arbitrary."""
  images = np.random.default_rng(0).uniform(size=(5, 3, 3, 1)).astype(np.float32)
  dataset = dataset_of(images[:2], images[2:])
  one, many = (errors_at(dataset, latent) for latent in (1, 9))
  np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("bits", [1.0, 3.5, 11.6, 24.0, 500.0])
def test_quantised_pca_agrees_with_rounding_the_components(bits):
  generator = np.random.default_rng(0)
  mix = generator.normal(size=(12, 12)) * np.geomspace(2, 0.05, 12)[:, None]
  train, test = (
    (generator.normal(size=(count, 12)) @ mix).reshape(-1, 3, 4, 1).astype(np.float32) for count in (300, 40)
  )
  results = pca.squared_errors(dataset_of(train, test, "real"), lambda x: pca.fit_quantised(x, bits))
  fitted = decomposition.PCA(min(12, int(bits))).fit(train.reshape(300, 12))
  errors = []
  for each in range(1, min(8, int(bits)) + 1):
    kept, of_each = int(bits // each), []
    codes = fitted.transform(train.reshape(300, 12))
    low, width = codes.min(0), np.ptp(codes, axis=0) / 2**each
    for split in (train, test):
      flat = split.reshape(len(split), 12)
      codes = fitted.transform(flat)
      rounded = low + (np.clip(np.floor((codes - low) / width), 0, 2**each - 1) + 0.5) * width
      rounded[:, kept:] = 0
      of_each.append(np.square(flat - fitted.inverse_transform(rounded)).sum(1))
    errors.append(of_each)
  expected = min(errors, key=lambda pair: pair[0].mean())[1]
  np.testing.assert_allclose(results, expected, rtol=1e-3, atol=1e-4)


def test_baseline_of_a_discrete_code_has_as_many_bits_and_that_of_a_real_code_as_many_components():
  train = np.random.default_rng(0).normal(size=(60, 5, 4, 1)).astype(np.float32)
  dataset = dataset_of(train[:40], train[40:], "real")
  real, discrete = models.CodeSpec((3,)), models.CodeSpec((3,), levels=5)
  np.testing.assert_allclose(pca.baseline_squared_errors(dataset, real), errors_at(dataset, 3), rtol=1e-5)
  quantised = pca.fit_baseline(train[:40].reshape(40, 20), discrete)
  codes = quantised.transform(train.reshape(60, 20))
  used = sum(np.log2(len(np.unique(component))) for component in codes.T)
  assert used <= discrete.bits < 7
  expected = np.square(pca.reconstruct(quantised, train[40:]) - train[40:]).sum((1, 2, 3))
  np.testing.assert_allclose(pca.baseline_squared_errors(dataset, discrete), expected, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_a_mean_far_from_zero_does_not_change_the_components(offset):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2000, 5)) @ rng.normal(size=(5, 40)) + 0.1 * rng.normal(size=(2000, 40))
  shifted = (x + offset).astype(np.float32)
  exact = decomposition.PCA(5, svd_solver="full").fit(shifted.astype(np.float64))
  expected = np.square(shifted - exact.inverse_transform(exact.transform(shifted))).sum(1).mean()
  fitted = pca.fit(shifted, 5)
  found = np.square((shifted - fitted.inverse_transform(fitted.transform(shifted))).astype(np.float64)).sum(1).mean()
  np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize(("examples", "components"), [(2, 1), (12, 10), (12, 40)])
def test_few_large_examples_have_the_exact_components(monkeypatch, examples, components):
  monkeypatch.setattr(pca, "_BLOCK", 1000 * examples)  # two blocks of elements
  x = np.random.default_rng(0).normal(3.0, 1.0, (examples + 3, 1500)).astype(np.float32)
  x[:, :3] *= np.float32(30.0)
  train = x[:examples]
  fitted = pca.fit(train, components)
  exact = decomposition.PCA(min(components, examples - 1), svd_solver="full").fit(train.astype(np.float64))
  np.testing.assert_allclose(fitted.transform(x), exact.transform(x), rtol=1e-4, atol=1e-3)  # the signs agree, too
  np.testing.assert_allclose(
    fitted.inverse_transform(fitted.transform(x)), exact.inverse_transform(exact.transform(x)), rtol=1e-4, atol=1e-3
  )
  np.testing.assert_allclose(fitted.variances, exact.explained_variance_, rtol=1e-5)
  assert fitted.noise_variance == pytest.approx(exact.noise_variance_, rel=1e-4, abs=1e-6)
  assert fitted.components.dtype == np.float32


def test_few_large_examples_do_not_need_the_solver_of_all_components(monkeypatch):
  monkeypatch.setattr(decomposition, "PCA", None)
  assert pca.fit(np.random.default_rng(0).normal(size=(6, 1500)).astype(np.float32), 5).components.shape == (5, 1500)


def test_repeated_large_examples_have_finite_components():
  train = np.repeat(np.random.default_rng(0).uniform(size=(3, 1500)).astype(np.float32), 4, 0)
  fitted = pca.fit(train, 32)
  np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(train)), train, atol=1e-5)
  assert np.isfinite(fitted.components).all()
  constant = pca.fit(np.ones((12, 1500), np.float32), 32)
  np.testing.assert_array_equal(constant.inverse_transform(constant.transform(train[:1])), np.ones((1, 1500)))

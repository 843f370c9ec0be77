import os
import pathlib

import numpy as np
import pytest

from ae_jax import data
from ae_jax.evaluators import reconstruction

MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist" / "3.0.1"


def dataset_of(train, test, value_range="unit"):
  return data.Dataset("made", value_range, train, test, None, None)


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
@pytest.mark.parametrize(("latent", "error"), [(2, 43.645), (32, 13.193), (128, 3.297)])
def test_the_rulers_on_mnist_are_the_published_ones(latent, error):
  rulers = dict(reconstruction.rulers(data.load("mnist", "", "unit"), latent))
  assert abs(rulers["test/pca_squared_error"] - error) < 6e-4
  assert abs(rulers["test/nats_floor"] - 45.534) < 6e-4


def test_data_of_low_rank_has_no_pca_error_at_that_rank_and_some_below():
  generator = np.random.default_rng(0)
  plane = (generator.uniform(size=(60, 3)) @ generator.uniform(size=(3, 20)) / 3).astype(np.float32)
  images = plane.reshape(60, 5, 4, 1)
  dataset = dataset_of(images[:40], images[40:])
  two, three = (reconstruction.pca_squared_errors(dataset, latent) for latent in (2, 3))
  assert three.max() < 1e-9 < two.mean()


@pytest.mark.parametrize("latent", [1, 12, 100])
def test_pca_takes_any_size_even_larger_than_the_data(latent):
  images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 1), np.uint8)
  errors = reconstruction.pca_squared_errors(dataset_of(images[:4], images[4:]), latent)
  assert np.isfinite(errors).all()


def test_the_directions_that_the_data_does_not_have_do_not_count():
  """Two images span one direction around their mean; a second component would point anywhere."""
  images = np.random.default_rng(0).uniform(size=(5, 3, 3, 1)).astype(np.float32)
  dataset = dataset_of(images[:2], images[2:])
  one, many = (reconstruction.pca_squared_errors(dataset, latent) for latent in (1, 9))
  np.testing.assert_array_equal(one, many)


def test_means_are_over_examples_and_pixels():
  images = np.zeros((4, 2, 3, 1), np.float32)
  values = {"squared_error": np.float32([1.5, 0.9, 0, 0]), "nats": np.float32([2, 2, 0, 0])}
  metrics = dict(reconstruction.metrics(values, dataset_of(images, images)))
  wanted = {"test/squared_error": 0.6, "test/mse": 0.1, "test/psnr": 10.0, "test/nats": 1.0}
  assert metrics == pytest.approx(wanted)


@pytest.mark.parametrize(("value_range", "decibels"), [("unit", 20.0), ("symmetric", 20.0 + 20 * np.log10(2))])
def test_psnr_is_relative_to_the_width_of_the_range(value_range, decibels):
  images = np.zeros((1, 1, 1, 1), np.uint8)
  assert reconstruction.psnr(0.01, dataset_of(images, images, value_range).peak) == pytest.approx(decibels)
  assert reconstruction.psnr(0.0, 1.0) == np.inf


def test_of_one_class_only_its_test_examples_count():
  images = np.random.default_rng(0).uniform(size=(8, 3, 3, 1)).astype(np.float32)
  labels = np.array([0, 1, 0, 1])
  dataset = data.Dataset("made", "unit", images[:4], images[4:], np.zeros(4, int), labels, 0)
  same = data.Dataset("made", "unit", images[:4], images[4:][labels == 0], None, None)
  values = {"squared_error": np.arange(4.0), "nats": np.arange(4.0)}
  assert dict(reconstruction.metrics(values, dataset))["test/squared_error"] == 1.0  # of 0 and 2
  assert dict(reconstruction.rulers(dataset, 2)) == pytest.approx(dict(reconstruction.rulers(same, 2)))


@pytest.mark.parametrize(
  ("mse", "wanted"), [(0.0, np.inf), (np.inf, -np.inf), (np.nan, np.nan), (0.01, 20.0), (3e38, -384.8)]
)
def test_psnr_is_a_number_whatever_came_of_the_training(mse, wanted):
  np.testing.assert_allclose(reconstruction.psnr(mse, 1.0), wanted, atol=0.1)

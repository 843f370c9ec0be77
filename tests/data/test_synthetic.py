"""Images generated from factors: the images show their factors, and the factors are independent."""

import itertools

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import synthetic

SIZES = [len(values) for values in synthetic.FACTORS.values()]


def load(**options):
  return data.load("factors", "", "unit", **options)


@pytest.fixture(scope="module")
def loaded():
  return load()


def grid(**fixed):
  """Returns factor indices and images [N, SIDE, SIDE] for all shapes, scales and orientations, at x = y = 0.

  Keyword arguments fix the index of a factor.
  """
  ranges = [
    [fixed[name]] if name in fixed else range(size if name in ("shape", "scale", "orientation") else 1)
    for name, size in zip(synthetic.FACTORS, SIZES, strict=True)
  ]
  indices = np.array(list(itertools.product(*ranges)))
  return indices, synthetic.images(indices)[..., 0] / 255


def centroids(images):
  """Returns columns and rows of the centroids [N, 2]."""
  pixels = np.arange(synthetic.SIDE)
  moments = np.stack([(images.sum(axis) * pixels).sum(1) for axis in (1, 2)], 1)
  return moments / images.sum((1, 2))[:, None]


def axes(images):
  """Returns the anticlockwise angle of the principal axis of each shape, in degrees modulo 180."""
  angles = []
  for image, (x, y) in zip(images, centroids(images), strict=True):
    rows, columns = np.indices(image.shape)
    right, up = columns - x, y - rows
    angles.append(np.arctan2(2 * (image * right * up).sum(), (image * (right**2 - up**2)).sum()) / 2)
  return np.rad2deg(angles) % 180


@pytest.mark.parametrize("name", synthetic.SHAPES)
def test_shape_has_area_1_and_centroid_at_the_origin(name):
  u, v = np.meshgrid(*[np.linspace(-1.2, 1.2, 801)] * 2)
  inside = synthetic.SHAPES[name](u, v)
  assert inside.sum() * 0.003**2 == pytest.approx(1, abs=5e-3)
  np.testing.assert_allclose([u[inside].mean(), v[inside].mean()], 0, atol=1e-3)
  assert np.hypot(u, v)[inside].max() * np.sqrt(synthetic.AREA) < 17 / 2  # fits its window


def test_x_and_y_are_the_centroid():
  for x, y in ((0, 0), (15, 3), (8, 15)):
    _, images = grid(x=x, y=y)
    expected = np.broadcast_to([synthetic.FACTORS["x"][x], synthetic.FACTORS["y"][y]], (len(images), 2))
    np.testing.assert_allclose(centroids(images), expected, atol=0.06)
  (_, first), (_, moved) = grid(x=2, y=5), grid(x=9, y=3)
  np.testing.assert_allclose(centroids(moved) - centroids(first), np.broadcast_to([7, -2], (len(first), 2)), atol=1e-9)
  np.testing.assert_array_equal(np.roll(first, (-2, 7), (1, 2)), moved)


def test_area_depends_on_the_scale_only():
  indices, images = grid()
  scales = np.array(synthetic.FACTORS["scale"])[indices[:, 1]]
  np.testing.assert_allclose(images.sum((1, 2)), synthetic.AREA * scales**2, rtol=0.04)


def test_orientation_is_the_anticlockwise_angle_of_the_shape():
  for shape in range(SIZES[0]):
    indices, images = grid(shape=shape, scale=5)
    turned = axes(images) - axes(images[:1])
    error = (turned - np.array(synthetic.FACTORS["orientation"])[indices[:, 2]] + 90) % 180 - 90
    np.testing.assert_allclose(error, 0, atol=2)
    upright, lying = (image[:17, :17] for image in images[[0, -1]])
    np.testing.assert_allclose(np.rot90(upright), lying, atol=0.02)  # anticlockwise
  _, (heart, *_) = grid(shape=2, scale=5)
  widths = heart.sum(1)
  assert widths[:8].max() > 2 * widths[12] > 0  # the heart stands on its tip


def test_images_of_different_factor_values_differ():
  _, images = grid()
  flat = images.reshape(len(images), -1)
  squares = np.square(flat).sum(1)
  distances = squares[:, None] + squares - 2 * flat @ flat.T
  assert distances[~np.eye(len(flat), dtype=bool)].min() > 0.4


def test_set_has_the_documented_sizes_and_factors(loaded):
  assert loaded.train.shape == (10_000, 32, 32, 1)
  assert loaded.test.shape == (2_000, 32, 32, 1)
  assert loaded.train.dtype == np.uint8
  assert (loaded.train.min(), loaded.train.max()) == (0, 255)
  for split in ("train", "test"):
    factors = getattr(loaded, f"{split}_factors")
    np.testing.assert_array_equal(getattr(loaded, f"{split}_labels"), factors[:, 0])
    np.testing.assert_array_equal(getattr(loaded, split)[::500], synthetic.images(factors[::500]))
  assert list(loaded.factor_values) == ["shape", "scale", "orientation", "x", "y"]
  factors = np.concatenate([loaded.train_factors, loaded.test_factors])
  assert len(np.unique(factors, axis=0)) == 12_000  # no test example occurs in training
  assert factors.max(0).tolist() == [size - 1 for size in SIZES]


def test_set_is_reproducible(loaded):
  assert load().fingerprint() == loaded.fingerprint()
  assert loaded.fingerprint().startswith("6db2428956316183")  # resumed runs check this fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_factors_are_uniform_and_independent(loaded, split):
  from scipy import stats

  factors = getattr(loaded, f"{split}_factors")
  for factor, size in zip(factors.T, SIZES, strict=True):
    assert stats.chisquare(np.bincount(factor, minlength=size)).pvalue > 1e-3
  for (i, a), (j, b) in itertools.combinations(enumerate(SIZES), 2):
    table = np.bincount(factors[:, i] * b + factors[:, j], minlength=a * b).reshape(a, b)
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_one_class_selects_the_factors_of_the_kept_examples(loaded, placement):
  ellipses = load(one_class=1, placement=placement)
  kept = loaded.train_labels == 1
  np.testing.assert_array_equal(ellipses.train, loaded.train[kept])
  np.testing.assert_array_equal(ellipses.train_labels, loaded.train_labels[kept])
  np.testing.assert_array_equal(ellipses.train_factors, loaded.train_factors[kept])
  np.testing.assert_array_equal(ellipses.test_factors, loaded.test_factors)


def test_other_sources_have_no_factors():
  beats = data.load("heartbeats", "", "real")
  assert (beats.train_factors, beats.test_factors, beats.factor_values) == (None, None, {})


def test_factors_refuses_a_path():
  with pytest.raises(errors.UserError, match="factors is built in and reads no file"):
    data.load("factors", "some.npz", "unit")

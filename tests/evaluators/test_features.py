"""Distances between sets of points, compared with closed forms, SciPy and scikit-learn."""

import types

import numpy as np
import pytest
from scipy import linalg, special
from scipy.spatial import distance
from sklearn.decomposition import PCA

from ae_jax.evaluators import features


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def with_moments(mean, covariance, count=50):
  """Returns points [count, D] with exactly this mean and covariance."""
  points = normal(count, len(mean))
  points -= points.mean(0)
  whitened = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / count)).T
  return mean + whitened @ np.linalg.cholesky(covariance).T


def covariance(size, seed):
  factor = normal(size, size + 1, seed=seed)
  return factor @ factor.T


@pytest.mark.parametrize("size", [1, 4])
def test_frechet_distance_is_the_closed_form(size):
  means, (a, b) = normal(2, size), (covariance(size, seed) for seed in (1, 2))
  expected = np.square(means[0] - means[1]).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
  actual = features.frechet_distance(with_moments(means[0], a), with_moments(means[1], b))
  assert actual == pytest.approx(expected)


def test_frechet_distance_of_aligned_gaussians_compares_deviations():
  a, b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 0.25])
  actual = features.frechet_distance(with_moments(np.zeros(3), a), with_moments(np.full(3, 2.0), b))
  assert actual == pytest.approx(12 + 1 + 0 + 2.5**2)


@pytest.mark.parametrize("points", [normal(30, 4), normal(5, 9), np.ones((6, 3)), normal(9, 1) * np.ones(5)])
def test_a_permuted_set_has_distance_zero_and_full_precision_and_recall(points):
  other = points[np.random.default_rng(1).permutation(len(points))]
  assert features.frechet_distance(points, other) == pytest.approx(0.0, abs=1e-6)
  assert features.precision_recall(points, other) == (1.0, 1.0)


def test_frechet_distance_to_a_point_is_the_variance():
  points = normal(40, 3)
  point = np.repeat(points.mean(0, keepdims=True), 7, 0)
  assert features.frechet_distance(points, point) == pytest.approx(points.var(0).sum())


@pytest.mark.parametrize("singular", [False, True])
def test_square_root_agrees_with_scipy(singular):
  matrix = covariance(5, 0)
  if singular:
    matrix[2] = matrix[:, 2] = 0.0
  actual = features.square_root(matrix)
  np.testing.assert_allclose(actual @ actual, matrix, atol=1e-9)
  if not singular:  # SciPy warns about singular matrices
    np.testing.assert_allclose(actual, linalg.sqrtm(matrix), atol=1e-9)


def share_in_manifold(points, members, neighbours):
  """Returns the fraction of points in the manifold of members, from the matrix of all distances."""
  radii = np.sort(distance.cdist(members, members), axis=1)[:, neighbours]
  return float((distance.cdist(points, members) <= radii).any(1).mean())


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("block", [7, 512])
def test_precision_and_recall_do_not_depend_on_blocks_or_order(monkeypatch, neighbours, block):
  monkeypatch.setattr(features, "_BLOCK", block)
  real, generated = normal(60, 3), 0.8 * normal(50, 3, seed=1) + 0.5
  expected = share_in_manifold(generated, real, neighbours), share_in_manifold(real, generated, neighbours)
  assert min(expected) > 0
  assert max(expected) < 1
  for order in (slice(None), slice(None, None, -1)):
    assert features.precision_recall(real[order], generated[order], neighbours) == pytest.approx(expected)


def test_distant_sets_have_no_precision_and_no_recall():
  assert features.precision_recall(normal(30, 3), normal(20, 3) + 100.0) == (0.0, 0.0)


def test_covering_one_of_two_clusters_halves_the_recall():
  near, far = normal(40, 3), normal(40, 3, seed=1) + 100.0
  assert features.precision_recall(np.concatenate([near, far]), near) == (1.0, 0.5)
  assert features.precision_recall(near, np.concatenate([near, far])) == (0.5, 1.0)


@pytest.mark.parametrize("block", [4, 512])
def test_nearest_agrees_with_all_distances(monkeypatch, block):
  monkeypatch.setattr(features, "_BLOCK", block)
  examples, others = (normal(n, 4, 3, 1, seed=n).astype(np.float32) + 50.0 for n in (11, 90))
  positions, actual = features.nearest(examples, others)
  expected = distance.cdist(*(x.reshape(len(x), -1).astype(np.float64) for x in (examples, others)))
  np.testing.assert_array_equal(positions, expected.argmin(1))
  np.testing.assert_allclose(actual, expected.min(1), rtol=1e-6)


@pytest.mark.parametrize("part", [1, 8, 2**18])
def test_nearest_does_not_depend_on_the_parts_of_the_exact_distances(monkeypatch, part):
  examples, others = normal(9, 4, 1), normal(30, 4, 1, seed=1)
  expected = features.nearest(examples, others)
  monkeypatch.setattr(features, "_PART", part)
  for actual, wanted in zip(features.nearest(examples, others), expected, strict=True):
    np.testing.assert_array_equal(actual, wanted)


def test_nearest_is_exact_where_float32_products_cannot_tell():
  """Two distant clusters: in float32 the error of squared distances within a cluster exceeds these distances."""
  far, generator = np.repeat([-900.0, 900.0], 4)[:, None], np.random.default_rng(0)
  others = (far + 0.01 * generator.normal(size=(8, 12))).astype(np.float32)
  examples = np.concatenate([others + np.float32(0.001), others[::-1] - np.float32(0.001)])
  expected = distance.cdist(*(x.astype(np.float64) for x in (examples, others)))
  positions, actual = features.nearest(examples, others)
  np.testing.assert_array_equal(positions, expected.argmin(1))
  np.testing.assert_allclose(actual, expected.min(1))


def test_a_copy_has_distance_zero_from_its_original():
  others = normal(20, 4, 3, 1).astype(np.float32)
  positions, actual = features.nearest(others[[7, 7, 2]], others)
  assert positions.tolist() == [7, 7, 2]
  assert actual.tolist() == [0.0, 0.0, 0.0]
  assert features.nearest(others[:3], others[:1])[0].tolist() == [0, 0, 0]


def clusters(count, seed):
  """Returns images of three classes that differ in the position of a bright pixel, and their labels."""
  generator = np.random.default_rng(seed)
  labels = generator.integers(0, 3, count)
  images = generator.uniform(size=(count, 3, 4, 1)) * 0.5
  images[np.arange(count), labels] += 0.5
  return images.astype(np.float32), labels


def test_the_classifier_learns_and_is_reproducible_in_any_range():
  train, labels = clusters(300, 0)
  test, expected = clusters(200, 1)
  to_features, to_classes = features.classifier_features(train, labels)
  assert (to_classes(test) == expected).mean() > 0.95
  actual = to_features(test)
  assert actual.shape == (200, features.WIDTH)
  assert actual.dtype == np.float64
  np.testing.assert_array_equal(features.classifier_features(train, labels)[0](test), actual)
  rescaled = features.classifier_features(2 * train - 1, labels)[0](2 * test - 1)
  np.testing.assert_allclose(rescaled, actual, atol=1e-2 * actual.max())


def test_features_are_the_input_of_the_last_layer(monkeypatch):
  """The last layer of scikit-learn's classifier maps the features to its predictions."""
  from sklearn.neural_network import MLPClassifier

  networks = []
  fit = MLPClassifier.fit
  monkeypatch.setattr(MLPClassifier, "fit", lambda self, *data: networks.append(self) or fit(self, *data))
  train, labels = clusters(120, 0)
  to_features, to_classes = features.classifier_features(train, labels)
  scores = to_features(train) @ networks[0].coefs_[-1] + networks[0].intercepts_[-1]
  np.testing.assert_array_equal(scores.argmax(1), to_classes(train))
  scaled = (train.reshape(120, -1) - train.mean()) / train.std()
  np.testing.assert_allclose(special.softmax(scores, 1), networks[0].predict_proba(scaled), atol=1e-5)


def test_the_classifier_trains_on_training_labels_and_is_scored_on_test_labels():
  """The test labels of class 0 are wrong; the training labels are right."""
  train, labels = clusters(300, 0)
  test, expected = clusters(200, 1)
  context = types.SimpleNamespace(
    train=train, train_labels=labels, test=test, test_labels=np.where(expected == 0, 1, expected)
  )
  results = dict(features.feature_function(context))
  assert results["classifier_accuracy"] == pytest.approx((expected > 0).mean(), abs=0.05)
  context.test_labels = None
  assert "classifier_accuracy" not in dict(features.feature_function(context))


@pytest.mark.parametrize(("given", "reason"), [(None, "no labels to"), (np.arange(30) / 2, "no integer labels with a")])
def test_features_without_classes_are_components_and_the_remark_says_why(given, reason):
  dataset = types.SimpleNamespace(train_labels=given)
  context = types.SimpleNamespace(train=normal(30, 4), train_labels=None, test_labels=None, dataset=dataset)
  results = dict(features.feature_function(context))
  assert results.keys() == {"features"}
  text = "the Fréchet distance use 4 leading principal components (there are only 4 elements in an example) of the"
  assert text in results["features"]
  assert f"because there are {reason}" in results["features"]


@pytest.mark.parametrize(
  ("shape", "text"),
  [
    ((100, 80), "64 leading principal components"),
    ((20, 80), "20 leading principal components (there are only 20 training examples)"),
    ((80, 20), "20 leading principal components (there are only 20 elements in an example)"),
  ],
)
def test_number_of_components_is_stated_with_the_reason(shape, text):
  assert features._components(np.zeros(shape)) == text


def test_large_examples_are_subsampled(monkeypatch):
  monkeypatch.setattr(features, "_MOST_NUMBERS", 12 * 30)
  train, labels = clusters(300, 0)
  chosen = np.linspace(0, 299, 30).astype(int)
  actual = features.classifier_features(train, labels)[0](train)
  np.testing.assert_array_equal(features.classifier_features(train[chosen], labels[chosen])[0](train), actual)
  monkeypatch.undo()
  assert np.abs(features.classifier_features(train, labels)[0](train) - actual).max() > 0.1


@pytest.mark.parametrize(
  ("labels", "expected"),
  [
    (None, False),
    (np.zeros(9, int), False),
    (np.arange(9), False),
    (np.arange(9) % 2, True),
    (np.zeros(1, int), False),
  ],
)
def test_a_classifier_needs_several_repeated_classes(labels, expected):
  assert features.has_classes(labels) == expected


@pytest.mark.parametrize("count", [5, 40])
def test_components_agree_with_pca(count):
  examples = normal(count, 4, 3, 1).astype(np.float32)
  flat = examples.reshape(count, -1)
  actual = features.component_features(examples)(examples)
  expected = PCA(min(count, 12)).fit_transform(flat.astype(np.float64))
  np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-3)


def test_components_of_equal_images_do_not_vary():
  assert features.component_features(np.ones((6, 2, 2, 1), np.float32))(np.ones((3, 2, 2, 1), np.float32)).var() == 0.0

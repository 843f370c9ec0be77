"""Distances between sets of points that are known, or that SciPy and scikit-learn know."""

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
  """Points [count, D] that have exactly this mean and covariance."""
  points = normal(count, len(mean))
  points -= points.mean(0)
  whitened = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / count)).T
  return mean + whitened @ np.linalg.cholesky(covariance).T


def covariance(size, seed):
  factor = normal(size, size + 1, seed=seed)
  return factor @ factor.T


@pytest.mark.parametrize("size", [1, 4])
def test_the_frechet_distance_is_the_closed_form(size):
  means, (a, b) = normal(2, size), (covariance(size, seed) for seed in (1, 2))
  wanted = np.square(means[0] - means[1]).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
  found = features.frechet_distance(with_moments(means[0], a), with_moments(means[1], b))
  assert found == pytest.approx(wanted)


def test_of_gaussians_with_axes_in_common_deviations_are_compared():
  a, b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 0.25])
  found = features.frechet_distance(with_moments(np.zeros(3), a), with_moments(np.full(3, 2.0), b))
  assert found == pytest.approx(12 + 1 + 0 + 2.5**2)


@pytest.mark.parametrize("points", [normal(30, 4), normal(5, 9), np.ones((6, 3)), normal(9, 1) * np.ones(5)])
def test_a_set_is_no_distance_from_itself_in_any_order(points):
  other = points[np.random.default_rng(1).permutation(len(points))]
  assert features.frechet_distance(points, other) == pytest.approx(0.0, abs=1e-6)
  assert features.precision_recall(points, other) == (1.0, 1.0)


def test_of_a_point_the_frechet_distance_is_the_variance():
  points = normal(40, 3)
  point = np.repeat(points.mean(0, keepdims=True), 7, 0)
  assert features.frechet_distance(points, point) == pytest.approx(points.var(0).sum())


@pytest.mark.parametrize("singular", [False, True])
def test_the_square_root_is_that_of_scipy(singular):
  matrix = covariance(5, 0)
  if singular:
    matrix[2] = matrix[:, 2] = 0.0
  found = features.square_root(matrix)
  np.testing.assert_allclose(found @ found, matrix, atol=1e-9)
  if not singular:  # SciPy's is for any matrix, and warns of these
    np.testing.assert_allclose(found, linalg.sqrtm(matrix), atol=1e-9)


def in_manifold(points, of, neighbours):
  """The same from all distances, one by one."""
  radii = np.sort(distance.cdist(of, of), axis=1)[:, neighbours]
  return float((distance.cdist(points, of) <= radii).any(1).mean())


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("block", [7, 512])
def test_precision_and_recall_are_those_of_all_distances_in_any_blocks_and_order(monkeypatch, neighbours, block):
  monkeypatch.setattr(features, "_BLOCK", block)
  real, made = normal(60, 3), 0.8 * normal(50, 3, seed=1) + 0.5
  wanted = in_manifold(made, real, neighbours), in_manifold(real, made, neighbours)
  assert min(wanted) > 0
  assert max(wanted) < 1
  for order in (slice(None), slice(None, None, -1)):
    assert features.precision_recall(real[order], made[order], neighbours) == pytest.approx(wanted)


def test_sets_far_apart_have_neither_precision_nor_recall():
  assert features.precision_recall(normal(30, 3), normal(20, 3) + 100.0) == (0.0, 0.0)


def test_what_covers_half_of_the_real_ones_is_precise_and_has_half_the_recall():
  near, far = normal(40, 3), normal(40, 3, seed=1) + 100.0
  assert features.precision_recall(np.concatenate([near, far]), near) == (1.0, 0.5)
  assert features.precision_recall(near, np.concatenate([near, far])) == (0.5, 1.0)


@pytest.mark.parametrize("block", [4, 512])
def test_the_nearest_is_the_nearest_of_all_distances(monkeypatch, block):
  monkeypatch.setattr(features, "_BLOCK", block)
  examples, others = (normal(n, 4, 3, 1, seed=n).astype(np.float32) + 50.0 for n in (11, 90))
  which, found = features.nearest(examples, others)
  wanted = distance.cdist(*(x.reshape(len(x), -1).astype(np.float64) for x in (examples, others)))
  np.testing.assert_array_equal(which, wanted.argmin(1))
  np.testing.assert_allclose(found, wanted.min(1), rtol=1e-6)


def test_the_nearest_of_some_that_are_equally_near_to_rounding_is_found():
  """Two heaps far from each other: in float32 the squares of a heap's distances have an error larger than they are."""
  far, generator = np.repeat([-900.0, 900.0], 4)[:, None], np.random.default_rng(0)
  others = (far + 0.01 * generator.normal(size=(8, 12))).astype(np.float32)
  examples = np.concatenate([others + np.float32(0.001), others[::-1] - np.float32(0.001)])
  wanted = distance.cdist(*(x.astype(np.float64) for x in (examples, others)))
  which, found = features.nearest(examples, others)
  np.testing.assert_array_equal(which, wanted.argmin(1))
  np.testing.assert_allclose(found, wanted.min(1))


def test_a_copy_is_at_no_distance_from_what_it_was_copied_from():
  others = normal(20, 4, 3, 1).astype(np.float32)
  which, found = features.nearest(others[[7, 7, 2]], others)
  assert which.tolist() == [7, 7, 2]
  assert found.tolist() == [0.0, 0.0, 0.0]
  assert features.nearest(others[:3], others[:1])[0].tolist() == [0, 0, 0]


def clusters(count, seed):
  """Images of three classes that are told by where they are bright."""
  generator = np.random.default_rng(seed)
  labels = generator.integers(0, 3, count)
  images = generator.uniform(size=(count, 3, 4, 1)) * 0.5
  images[np.arange(count), labels] += 0.5
  return images.astype(np.float32), labels


def test_the_classifier_learns_and_is_the_same_again_in_any_range():
  train, labels = clusters(300, 0)
  test, wanted = clusters(200, 1)
  to_features, to_classes = features.of_classifier(train, labels)
  assert (to_classes(test) == wanted).mean() > 0.95
  found = to_features(test)
  assert found.shape == (200, features.WIDTH)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(features.of_classifier(train, labels)[0](test), found)
  again = features.of_classifier(2 * train - 1, labels)[0](2 * test - 1)
  np.testing.assert_allclose(again, found, atol=1e-2 * found.max())


def test_its_features_are_those_that_its_answers_are_made_of(monkeypatch):
  """With no more than its last layer, scikit-learn finds the same answers from them."""
  from sklearn.neural_network import MLPClassifier

  networks = []
  fit = MLPClassifier.fit
  monkeypatch.setattr(MLPClassifier, "fit", lambda self, *data: networks.append(self) or fit(self, *data))
  train, labels = clusters(120, 0)
  to_features, to_classes = features.of_classifier(train, labels)
  scores = to_features(train) @ networks[0].coefs_[-1] + networks[0].intercepts_[-1]
  np.testing.assert_array_equal(scores.argmax(1), to_classes(train))
  scaled = (train.reshape(120, -1) - train.mean()) / train.std()
  np.testing.assert_allclose(special.softmax(scores, 1), networks[0].predict_proba(scaled), atol=1e-5)


def test_the_classifier_is_trained_on_training_labels_and_its_accuracy_is_that_of_test_examples():
  """Two of three labels of each half are those that the images show: not the same two in training and test."""
  train, labels = clusters(300, 0)
  test, wanted = clusters(200, 1)
  made = types.SimpleNamespace(
    train=train, train_labels=labels, test=test, test_labels=np.where(wanted == 0, 1, wanted)
  )
  found = dict(features.of(made))
  assert found["classifier_accuracy"] == pytest.approx((wanted > 0).mean(), abs=0.05)
  made.test_labels = None
  assert "classifier_accuracy" not in dict(features.of(made))


def test_large_examples_are_learnt_from_in_part(monkeypatch):
  monkeypatch.setattr(features, "_MOST_NUMBERS", 12 * 30)
  train, labels = clusters(300, 0)
  some = np.linspace(0, 299, 30).astype(int)
  found = features.of_classifier(train, labels)[0](train)
  np.testing.assert_array_equal(features.of_classifier(train[some], labels[some])[0](train), found)
  monkeypatch.undo()
  assert np.abs(features.of_classifier(train, labels)[0](train) - found).max() > 0.1


@pytest.mark.parametrize(
  ("labels", "can"),
  [
    (None, False),
    (np.zeros(9, int), False),
    (np.arange(9), False),
    (np.arange(9) % 2, True),
    (np.zeros(1, int), False),
  ],
)
def test_what_a_classifier_can_learn_from(labels, can):
  assert features.labelled(labels) == can


@pytest.mark.parametrize("count", [5, 40])
def test_components_are_those_of_pca(count):
  examples = normal(count, 4, 3, 1).astype(np.float32)
  flat = examples.reshape(count, -1)
  found = features.of_components(examples)(examples)
  wanted = PCA(min(count, 12)).fit_transform(flat.astype(np.float64))
  np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-3)


def test_equal_images_have_components_that_do_not_vary():
  assert features.of_components(np.ones((6, 2, 2, 1), np.float32))(np.ones((3, 2, 2, 1), np.float32)).var() == 0.0

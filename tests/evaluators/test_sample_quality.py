"""How like the data the draws are: copies, other draws of the same distribution, and sets whose distance is known."""

import types

import numpy as np
import pytest
from made_contexts import analyze, images, subject_of

from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import features, generation


def blobs(count, seed):
  return np.random.default_rng(seed).normal(size=(count, 5, 1, 1)).astype(np.float32)


def memorised(draws, train=None):
  made = types.SimpleNamespace(
    train=blobs(2000, 0) if train is None else train,
    test=blobs(800, 1),
    reconstructed=0.8 * blobs(800, 1),
    dataset=types.SimpleNamespace(anomalous=None),
  )
  return analyze({"drawn": draws(made)}, lambda draws: generation.memorisation(made, draws))


def test_copies_of_training_examples_are_at_no_distance():
  found = memorised(lambda made: made.train[5:700])
  assert found["memorisation_ratio/drawn"] == 0.0
  np.testing.assert_array_equal(*found["nearest"].rows.values())


def test_other_draws_of_the_same_distribution_are_as_far_as_test_examples():
  found = memorised(lambda made: blobs(800, 2))
  assert found["memorisation_ratio/drawn"] == pytest.approx(1.0, abs=0.06)
  assert found["memorisation_ratio/test_reconstructions"] < 0.9  # nearer to the middle, where there are more


def test_copies_with_noise_are_in_between_and_outliers_far_off():
  noisy = memorised(lambda made: made.train[:800] + 0.1 * blobs(800, 3))["memorisation_ratio/drawn"]
  assert 0.05 < noisy < 0.6
  assert memorised(lambda made: 3.0 * blobs(800, 3))["memorisation_ratio/drawn"] > 2.0


def column(*numbers):
  return np.array(numbers, np.float32)[:, None]


def distant(test, reconstructed, drawn, anomalous=None):
  """What is found where all training examples are 0."""
  made = types.SimpleNamespace(train=column(*[0.0] * 5), test=test, reconstructed=reconstructed)
  made.dataset = types.SimpleNamespace(anomalous=anomalous)
  return analyze({"drawn": drawn}, lambda draws: generation.memorisation(made, draws))


def test_distances_are_means_of_distances_and_not_of_their_squares():
  found = distant(column(1, -3, 8), column(2, 2, -20), column(*range(1, 100)))
  assert found["nearest_training_distance"] == pytest.approx(4.0)
  assert found["memorisation_ratio/test_reconstructions"] == pytest.approx(2.0)
  assert found["memorisation_ratio/drawn"] == pytest.approx(12.5)


def test_of_many_the_distances_are_those_of_some_at_even_distances_and_of_their_own_reconstructions(monkeypatch):
  monkeypatch.setattr(generation, "_NEAREST", 3)
  test = column(1000, 1000, 1, 2, 3, 4, 5, 6, 7)
  found = distant(test, 10 * test, column(4, 4, 4, 100, 100), anomalous=test[:, 0] == 1000)
  assert found["nearest_training_distance"] == pytest.approx(4.0)
  assert found["memorisation_ratio/test_reconstructions"] == pytest.approx(10.0)
  assert found["memorisation_ratio/drawn"] == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [True, False])
def test_draws_that_are_the_test_examples_are_just_like_them(labels):
  made = subject_of(images(60), images(30, seed=1), labels=labels)
  draws = {"same": made.test[::-1], "other": made.test + 100.0}
  found = analyze(made, lambda made: generation.sample_quality(made, draws))
  assert found["frechet_distance/same"] == pytest.approx(0.0, abs=1e-9)
  assert (found["precision/same"], found["recall/same"]) == (1.0, 1.0)
  assert found["frechet_distance/other"] > 100 * found["frechet_distance/training_examples"]
  assert (found["precision/other"], found["recall/other"]) == (0.0, 0.0)
  assert ("classifier_accuracy" in found) == labels
  assert ("no labels" in found["features"]) != labels


def test_the_distance_of_a_single_picture_is_about_one(monkeypatch):
  """Features have a total variance of 1, which is what a point in their middle lacks."""
  made = subject_of(images(400), images(400, seed=1), labels=False)
  monkeypatch.setattr(features, "of_components", lambda train: lambda x: x.reshape(len(x), -1).astype(np.float64))
  point = np.repeat(made.test.mean(0, keepdims=True), 400, 0)
  found = analyze(made, lambda made: generation.sample_quality(made, {"point": point}))
  assert found["frechet_distance/point"] == pytest.approx(1.0, abs=0.05)


@pytest.fixture
def likened(monkeypatch):
  """A function to what is found of the likeness of draws, where the features are the numbers of an example."""
  monkeypatch.setattr(features, "of_components", lambda train: lambda x: x.astype(np.float64))

  def find(train, test, draws, reconstruct=lambda x: x):
    made = types.SimpleNamespace(train=train, test=test, train_labels=None, test_labels=None)
    made.run = types.SimpleNamespace(apply=lambda method, x, given: reconstruct(x))
    made.given = lambda half, numbers: {}
    made.dataset = types.SimpleNamespace(anomalous=None)
    return analyze(draws, lambda draws: generation.sample_quality(made, draws))

  return find


def test_frechet_distances_to_test_examples_are_the_closed_form_in_variances_of_the_training_examples(likened):
  """Sets C apart in their means and a and b times as wide are |C|^2 + (a - b)^2 tr(covariance) apart."""
  train = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.5]])
  test = 2.0 * train + 3.0
  found = likened(train, test, {"shifted": test + np.array([1.0, 2.0, 2.0])}, reconstruct=lambda x: 0.5 * x)
  total = train.var(0).sum()
  apart = lambda share: np.square(test.mean(0) - share * train.mean(0)).sum() / total + (2.0 - share) ** 2
  assert found["frechet_distance/shifted"] == pytest.approx(9.0 / total)
  assert found["frechet_distance/training_examples"] == pytest.approx(apart(1.0))
  assert found["frechet_distance/training_reconstructions"] == pytest.approx(apart(0.5))


def test_precision_is_of_the_draws_and_recall_of_the_test_examples(likened):
  near, far = np.arange(20.0)[:, None], 1000.0 + np.arange(20.0)[:, None]
  test = np.concatenate([near, far])
  draws = {"half of them": np.tile(near, (2, 1)), "and others": np.concatenate([test[::2], 1e5 + near])}
  found = likened(test, test, draws)
  assert (found["precision/half of them"], found["recall/half of them"]) == (1.0, 0.5)
  assert (found["precision/and others"], found["recall/and others"]) == (0.5, 1.0)


@pytest.mark.parametrize(("limit", "names"), [(3000, {"even", "long"}), (10, {"long"})])
def test_sets_are_compared_of_one_size_at_even_distances(monkeypatch, likened, limit, names):
  monkeypatch.setattr(generation, "DRAWS", limit)
  ramp = np.arange(40.0)[:, None]
  even = ramp[contexts.shown(10, 40)]
  draws = {"even": even, "long": np.concatenate([even, 1000.0 + ramp])}
  found = likened(ramp, ramp, {name: draws[name] for name in names})
  assert found["compared_examples"] == 10
  for name in names | {"training_examples", "training_reconstructions"}:
    assert found[f"frechet_distance/{name}"] == pytest.approx(0.0, abs=1e-9)
    assert (found[f"precision/{name}"], found[f"recall/{name}"]) == (1.0, 1.0)

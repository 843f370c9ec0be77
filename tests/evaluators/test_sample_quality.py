"""Memorisation and quality of samples: copies, samples of the same distribution, and sets at a known distance."""

import numpy as np
import pytest
from made_contexts import analyze, context_of, fake, fake_run, images

from ae_jax import data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import features, generation


def blobs(count, seed):
  return np.random.default_rng(seed).normal(size=(count, 5, 1, 1)).astype(np.float32)


def dataset_of(anomalous=None):
  absent = {"train_labels": None, "test_labels": None, "columns": {}, "schema": None}
  return fake(data.Dataset, anomalous=anomalous, **absent)


def memorisation_of(samples_of):
  """Returns the results for the samples that `samples_of` makes from a context of gaussian examples."""
  train, test = blobs(2000, 0), blobs(800, 1)
  context = fake(contexts.EvalContext, train=train, test=test, reconstructions=0.8 * test, dataset=dataset_of())
  return analyze({"drawn": samples_of(context)}, lambda samples: generation.memorisation(context, samples))


def test_copies_of_training_examples_have_distance_zero():
  results = memorisation_of(lambda context: context.train[5:700])
  assert results["memorisation_ratio/drawn"] == 0.0
  np.testing.assert_array_equal(*results["nearest"].rows.values())


def test_samples_of_the_same_distribution_are_as_far_as_test_examples():
  results = memorisation_of(lambda context: blobs(800, 2))
  assert results["memorisation_ratio/drawn"] == pytest.approx(1.0, abs=0.06)
  assert results["memorisation_ratio/test_reconstructions"] < 0.9  # closer to the mean, where the density is higher


def test_noisy_copies_have_a_small_ratio_and_outliers_a_large_one():
  noisy = memorisation_of(lambda context: context.train[:800] + 0.1 * blobs(800, 3))["memorisation_ratio/drawn"]
  assert 0.05 < noisy < 0.6
  assert memorisation_of(lambda context: 3.0 * blobs(800, 3))["memorisation_ratio/drawn"] > 2.0


def column(*numbers):
  return np.array(numbers, np.float32)[:, None]


def distances_from_zero(test, reconstructed, drawn, anomalous=None):
  """Returns the results if all training examples are 0."""
  arrays = {"train": column(*[0.0] * 5), "test": test, "reconstructions": reconstructed}
  context = fake(contexts.EvalContext, dataset=dataset_of(anomalous), **arrays)
  return analyze({"drawn": drawn}, lambda samples: generation.memorisation(context, samples))


def test_distances_are_averaged_and_not_their_squares():
  results = distances_from_zero(column(1, -3, 8), column(2, 2, -20), column(*range(1, 100)))
  assert results["nearest_training_distance"] == pytest.approx(4.0)
  assert results["memorisation_ratio/test_reconstructions"] == pytest.approx(2.0)
  assert results["memorisation_ratio/drawn"] == pytest.approx(12.5)


def test_distances_are_of_evenly_spaced_normal_examples_and_of_their_reconstructions(monkeypatch):
  monkeypatch.setattr(generation, "_MAX_NEAREST", 3)
  test = column(1000, 1000, 1, 2, 3, 4, 5, 6, 7)
  results = distances_from_zero(test, 10 * test, column(4, 4, 4, 100, 100), anomalous=test[:, 0] == 1000)
  assert results["nearest_training_distance"] == pytest.approx(4.0)
  assert results["memorisation_ratio/test_reconstructions"] == pytest.approx(10.0)
  assert results["memorisation_ratio/drawn"] == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [True, False])
def test_samples_equal_to_the_test_examples_have_distance_zero_and_full_precision_and_recall(labels):
  context = context_of(images(60), images(30, seed=1), labels=labels)
  samples = {"same": context.test[::-1], "other": context.test + 100.0}
  results = analyze(context, lambda context: generation.sample_quality(context, samples))
  assert results["frechet_distance/same"] == pytest.approx(0.0, abs=1e-9)
  assert (results["precision/same"], results["recall/same"]) == (1.0, 1.0)
  assert results["frechet_distance/other"] > 100 * results["frechet_distance/training_examples"]
  assert (results["precision/other"], results["recall/other"]) == (0.0, 0.0)
  assert ("classifier_accuracy" in results) == labels
  assert ("principal components" in results["features"]) != labels


def test_the_frechet_distance_of_one_repeated_image_is_about_one(monkeypatch):
  """Features have a total variance of 1, and a point at their mean has none."""
  context = context_of(images(400), images(400, seed=1), labels=False)
  monkeypatch.setattr(features, "component_features", lambda train: lambda x: x.reshape(len(x), -1).astype(np.float64))
  point = np.repeat(context.test.mean(0, keepdims=True), 400, 0)
  results = analyze(context, lambda context: generation.sample_quality(context, {"point": point}))
  assert results["frechet_distance/point"] == pytest.approx(1.0, abs=0.05)


@pytest.fixture
def quality_of(monkeypatch):
  """Returns a function to the quality of samples, with the elements of an example as its features."""
  monkeypatch.setattr(features, "component_features", lambda train: lambda x: x.astype(np.float64))

  def find(train, test, samples, reconstruct=lambda x: x):
    run = fake_run(None, lambda method, x, given: reconstruct(x))
    arrays = {"train": train, "test": test, "train_labels": None}
    columns = lambda split, indices: {}
    context = fake(contexts.EvalContext, run=run, dataset=dataset_of(), columns=columns, **arrays)
    return analyze(samples, lambda samples: generation.sample_quality(context, samples))

  return find


@pytest.mark.parametrize("shift", [0.0, 0.05, 2.0])
def test_draws_from_a_prior_that_the_codes_do_not_follow_are_named(quality_of, shift):
  train, test, mixture = (generator_draws(seed) for seed in range(3))
  results = quality_of(train, test, {"mixture": mixture, "prior": generator_draws(3) + np.float32(shift)})
  assert ("prior_gap" in results) == (shift == 2.0)
  if shift == 2.0:
    assert "Raise config.objective.beta" in results["prior_gap"]


def generator_draws(seed):
  return np.random.default_rng(seed).normal(size=(1000, 4)).astype(np.float32)


def test_frechet_distances_match_the_closed_form_in_units_of_the_training_variance(quality_of):
  """Means at a distance C, and scales a and b, give |C|^2 + (a - b)^2 tr(covariance)."""
  train = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.5]])
  test = 2.0 * train + 3.0
  results = quality_of(train, test, {"shifted": test + np.array([1.0, 2.0, 2.0])}, reconstruct=lambda x: 0.5 * x)
  total = train.var(0).sum()
  expected = lambda scale: np.square(test.mean(0) - scale * train.mean(0)).sum() / total + (2.0 - scale) ** 2
  assert results["frechet_distance/shifted"] == pytest.approx(9.0 / total)
  assert results["frechet_distance/training_examples"] == pytest.approx(expected(1.0))
  assert results["frechet_distance/training_reconstructions"] == pytest.approx(expected(0.5))


def test_precision_counts_samples_and_recall_counts_test_examples(quality_of):
  near, far = np.arange(20.0)[:, None], 1000.0 + np.arange(20.0)[:, None]
  test = np.concatenate([near, far])
  samples = {"half of them": np.tile(near, (2, 1)), "and others": np.concatenate([test[::2], 1e5 + near])}
  results = quality_of(test, test, samples)
  assert (results["precision/half of them"], results["recall/half of them"]) == (1.0, 0.5)
  assert (results["precision/and others"], results["recall/and others"]) == (0.5, 1.0)


@pytest.mark.parametrize(("limit", "names"), [(3000, {"even", "long"}), (10, {"long"})])
def test_all_compared_sets_have_one_size_and_evenly_spaced_examples(monkeypatch, quality_of, limit, names):
  monkeypatch.setattr(generation, "DRAWS", limit)
  ramp = np.arange(40.0)[:, None]
  even = ramp[contexts.spaced(10, 40)]
  samples = {"even": even, "long": np.concatenate([even, 1000.0 + ramp])}
  results = quality_of(ramp, ramp, {name: samples[name] for name in names})
  assert results["compared_examples"] == 10
  for name in names | {"training_examples", "training_reconstructions"}:
    assert results[f"frechet_distance/{name}"] == pytest.approx(0.0, abs=1e-9)
    assert (results[f"precision/{name}"], results[f"recall/{name}"]) == (1.0, 1.0)

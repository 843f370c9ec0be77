"""Samples, interpolations and explorers of models with known weights or codes, and of very small data sets."""

import dataclasses
import functools

import numpy as np
import pytest
from conftest import config_of
from made_contexts import analyze, context_of, fake, fake_model, fake_run, images
from scipy import stats

from ae_jax import data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import densities, generation, likelihood

pytestmark = pytest.mark.quick_compile


def remarks(results):
  return {name for name, value in results.items() if isinstance(value, str)}


@functools.cache
def plain():
  """Returns the results for an autoencoder without a posterior."""
  return analyze(context_of(images(90), images(30, seed=1)))


def test_an_autoencoder_without_a_posterior_has_all_results_but_those_of_the_prior():
  results = plain()
  kinds = {name for name, value in results.items() if not isinstance(value, int | float | str)}
  assert kinds == {"samples", "interpolations", "explorer", "nearest"}
  assert "mixture" in results["samples"].title
  assert results["samples"].examples.shape == (64, 4, 4, 1)
  assert results["compared_examples"] == 30
  assert remarks(results) == {"memorisation", "features"}
  for measure in ("frechet_distance", "precision", "recall"):
    for of in ("mixture", "training_reconstructions", "training_examples"):
      assert np.isfinite(results[f"{measure}/{of}"])


def test_results_are_reproducible():
  again = analyze(context_of(images(90), images(30, seed=1)))
  numbers = {name: value for name, value in again.items() if isinstance(value, int | float)}
  assert numbers == {name: plain()[name] for name in numbers}
  np.testing.assert_array_equal(again["samples"].examples, plain()["samples"].examples)


def test_a_variational_autoencoder_is_sampled_from_its_prior_and_from_the_mixture(monkeypatch):
  monkeypatch.setattr(likelihood, "analyze", lambda context: [("nll", 1.0)])
  context = context_of(images(60), images(30, seed=1), "vae")
  results = analyze(context)
  assert "prior" in results["samples"].title
  assert "mixture" in results["samples_mixture"].title
  assert {"frechet_distance/prior", "frechet_distance/mixture", "memorisation_ratio/prior", "nll"} <= set(results)
  draws = context.prior_codes(generation.DRAWS)
  assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
  np.testing.assert_allclose(results["samples"].examples, context.run.decode(draws[:64]), atol=1e-6)
  context.run.config.objective = config_of("dense", "digits").objective
  results = analyze(context)
  assert "prior" in remarks(results)
  assert "mixture" in results["samples"].title
  assert "nll" not in results


def test_interpolations_connect_examples_of_different_classes():
  context = context_of(images(30), images(12, seed=1))
  rows = analyze(context, generation.interpolations)["interpolations"].rows
  assert len(rows) == 8
  index_of = lambda image: int(np.abs(context.test - image).reshape(12, -1).sum(1).argmin())
  for row in rows.values():
    start, end = index_of(row[0]), index_of(row[-1])
    assert start % 3 != end % 3
    np.testing.assert_allclose(row[[1, -2]], context.reconstructions[[start, end]], atol=1e-5)


def linear(decoder, codes, variational=False, nearest=lambda z: z):
  """Returns a context with these test codes, whose decoder is a matrix."""
  model = fake_model(codes.shape[1], has_posterior=variational)
  decode = lambda z: (z @ decoder).reshape(len(z), 2, -1, 1)
  apply = lambda method, z, given: {"decode": decode, "nearest": nearest}[method](z)
  config = config_of("vae" if variational else "dense", "digits")
  dataset = data.Dataset("made", "real", codes, codes, None, None)
  run = fake_run(model, apply, config=config)
  columns = lambda split, indices=None: {}
  return fake(contexts.EvalContext, run=run, dataset=dataset, test_codes=codes, test=decode(codes), columns=columns)


def codes_of(count, *deviations):
  return np.random.default_rng(0).normal(size=(count, len(deviations))).astype(np.float32) * np.float32(deviations)


def circle(count, centre):
  angles = 2 * np.pi * np.arange(count) / count
  return (np.stack([np.cos(angles), np.sin(angles)], 1) + centre).astype(np.float32)


@pytest.mark.parametrize("variational", [False, True])
def test_a_line_has_equal_steps_and_an_arc_equal_angles_around_the_prior_mean_or_the_mean_code(variational):
  centre = np.array([3.0, -2.0])
  context = linear(np.eye(2, dtype=np.float32), circle(11, 0 * centre if variational else centre), variational)
  vars(context)["train_codes"] = circle(7, centre)
  rows = analyze(context, generation.interpolations)["interpolations"].rows
  assert len(rows) == 8
  for name, row in rows.items():
    codes = row[1:-1].reshape(-1, 2) - (0 if variational else centre)
    np.testing.assert_allclose(row[[0, -1]], row[[1, -2]], atol=1e-6)
    steps, lengths = np.diff(codes, axis=0), np.linalg.norm(codes, axis=1)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), np.linalg.norm(steps[0]), atol=1e-5)
    if name.endswith("line"):
      np.testing.assert_allclose(steps, steps[:1].repeat(len(steps), 0), atol=1e-5)
      assert lengths.min() < 0.99
    else:
      np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_pairs_without_labels_share_no_example_and_depend_on_the_seed():
  context = linear(np.eye(2, dtype=np.float32), codes_of(12, 1.0, 1.0))
  pairs = generation._pairs(context)
  assert len(np.unique(pairs)) == 2 * len(pairs) == 8
  assert pairs == generation._pairs(context)
  context.run.config.seed += 1
  assert pairs != generation._pairs(context)


def test_interpolations_and_explorer_use_only_codes_that_the_encoder_can_output():
  context = linear(np.eye(2, dtype=np.float32), np.round(codes_of(20, 2.0, 3.0)), nearest=np.round)
  vars(context)["train_codes"] = context.test_codes
  decoded = [analyze(context, generation.explorer)["explorer"].examples]
  decoded += analyze(context, generation.interpolations)["interpolations"].rows.values()
  for examples in decoded:
    np.testing.assert_array_equal(examples, np.round(examples))


@pytest.mark.parametrize("variational", [False, True])
def test_the_explorer_follows_the_directions_of_largest_variance(variational):
  codes, decoder = codes_of(500, 0.1, 5.0, 1.0, 3.0), np.eye(4, dtype=np.float32)
  explorer = analyze(linear(decoder, codes, variational), generation.explorer)["explorer"]
  if variational:
    assert explorer.names == ("z[1]", "z[3]", "z[2]", "z[0]")
  else:
    assert explorer.names == ("direction 1", "direction 2", "direction 3", "direction 4")
  assert explorer.examples.shape == (2, 11, 11, 2, 2, 1)
  decoded = explorer.examples.reshape(2, 11, 11, 4) - codes.mean(0)
  units, position = ((1, 3), (2, 0)), explorer.positions
  for pair, (down, across) in enumerate(units):
    along_down, along_across = (codes[:, unit].std() * position for unit in (down, across))
    np.testing.assert_allclose(decoded[pair, :, 5, down], along_down, rtol=0.02, atol=1e-5)
    np.testing.assert_allclose(decoded[pair, 5, :, across], along_across, rtol=0.02, atol=1e-5)
    jointly = decoded[pair, :, 5:6] + decoded[pair, 5:6] - decoded[pair, 5, 5]
    np.testing.assert_allclose(decoded[pair], jointly, atol=1e-4)


@pytest.mark.parametrize(
  ("deviations", "names"),
  [
    ((2.0, 1.0), (1, 2)),
    ((3.0, 2.0, 1.0), (1, 2, 3, 1)),
    (range(1, 9), (1, 2, 3, 4, 5, 6)),
  ],
)
def test_the_explorer_has_at_most_three_pairs_of_directions(deviations, names):
  codes = codes_of(300, *deviations)
  decoder = np.ones((len(deviations), 4), np.float32)
  explorer = analyze(linear(decoder, codes), generation.explorer)["explorer"]
  assert explorer.names == tuple(f"direction {number}" for number in names)


@pytest.mark.parametrize(("numbers", "count"), [(3 * 11**2 * 2, 11), (3 * 11**2 * 2 - 1, 5)])
def test_large_examples_are_explored_in_fewer_steps_at_the_stated_positions(monkeypatch, numbers, count):
  monkeypatch.setattr(generation, "_MAX_ELEMENTS", numbers)
  codes = codes_of(300, 2.0, 1.0)
  explorer = analyze(linear(np.eye(2, dtype=np.float32), codes), generation.explorer)["explorer"]
  np.testing.assert_allclose(explorer.positions, np.linspace(-2.5, 2.5, count))
  assert explorer.examples.shape == (1, count, count, 2, 1, 1)
  moved = explorer.examples[0].reshape(count, count, 2) - codes.mean(0)
  for side, deviation in enumerate(densities.principal_directions(codes)[1]):
    lengths = np.linalg.norm(moved.take(count // 2, 1 - side), axis=1)
    np.testing.assert_allclose(lengths, deviation * np.abs(explorer.positions), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("grids", "pairs"), [(3, 3), (2, 2), (1.9, 1), (0.1, 1)])
def test_the_explorer_has_fewer_grids_of_large_examples(monkeypatch, grids, pairs):
  monkeypatch.setattr(generation, "_MAX_ELEMENTS", int(grids * 5**2 * 4))
  decoder = np.ones((6, 4), np.float32)
  explorer = analyze(linear(decoder, codes_of(300, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)), generation.explorer)["explorer"]
  assert explorer.examples.shape[:3] == (pairs, 5, 5)
  assert explorer.names == tuple(f"direction {number + 1}" for number in range(2 * pairs))


def test_constant_units_of_a_variational_code_are_not_explored():
  codes = codes_of(300, 0.0, 1.0, 0.0, 2.0)
  explorer = analyze(linear(np.eye(4, dtype=np.float32), codes, True), generation.explorer)["explorer"]
  assert explorer.names == ("z[3]", "z[1]")


def test_the_explorer_ignores_the_codes_of_anomalies():
  codes = codes_of(300, 2.0, 0.0)
  labels = np.arange(300) % 3
  codes[labels != 0] = 100.0 + codes_of(200, 1.0, 9.0)
  context = linear(np.eye(2, dtype=np.float32), codes)
  vars(context)["dataset"] = dataclasses.replace(context.dataset, test_labels=labels, one_class=0)
  row = analyze(context, generation.explorer)["traversal"].rows["direction 1"].reshape(-1, 2)
  normal = codes[labels == 0, 0]
  np.testing.assert_allclose(row[:, 0], normal.mean() + generation.POSITIONS * normal.std(), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(row[:, 1], 0.0, atol=1e-6)


def test_one_direction_gives_a_traversal_and_no_direction_a_remark():
  codes, decoder = codes_of(300, 2.0), np.ones((1, 4), np.float32)
  row = analyze(linear(decoder, codes), generation.explorer)["traversal"].rows["direction 1"]
  np.testing.assert_allclose(row[:, 0, 0, 0] - codes.mean(), generation.POSITIONS * codes.std(), rtol=1e-5, atol=1e-6)
  assert remarks(analyze(linear(decoder, 0 * codes + 3), generation.explorer)) == {"explorer"}


@pytest.mark.parametrize(("bottleneck", "low", "high"), [("relu", 0, np.inf), ("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_drawn_codes_are_within_the_bounds_of_the_bottleneck(bottleneck, low, high):
  context = context_of(images(60), images(30, seed=1), bottleneck=bottleneck)
  vars(context)["train_codes"] = np.random.default_rng(0).choice([low, 1], (60, 4)).astype(np.float32)
  ((name, _, codes),) = generation._densities(context)
  assert name == "mixture"
  assert codes.min() == low
  assert codes.max() <= high


def test_drawn_codes_have_the_levels_of_a_quantised_bottleneck():
  context = context_of(images(60), images(30, seed=1), bottleneck="fsq5")
  ((_, _, codes),) = generation._densities(context)
  assert set(np.unique(codes)) <= {-1, -0.5, 0, 0.5, 1}
  assert len(np.unique(codes)) > 1


@pytest.mark.parametrize(("numbers", "count"), [(2**25, 100), (80 * 16 + 15, 80), (16, 16)])
def test_the_number_of_draws_is_limited_and_smaller_for_large_examples(monkeypatch, numbers, count):
  monkeypatch.setattr(generation, "DRAWS", 100)
  monkeypatch.setattr(generation, "_MAX_ELEMENTS", numbers)
  drawn = generation._densities(context_of(images(60), images(30, seed=1), "vae"))
  assert {name: codes.shape for name, _, codes in drawn} == {"prior": (count, 4), "mixture": (count, 4)}


@pytest.mark.parametrize(("numbers", "pairs", "steps"), [(2**25, 4, 9), (16, 2, 5)])
def test_there_are_fewer_interpolations_of_large_examples(monkeypatch, numbers, pairs, steps):
  monkeypatch.setattr(generation, "_MAX_ELEMENTS", numbers)
  ((_, figure),) = generation.interpolations(context_of(images(60), images(30, seed=1)))
  assert [len(row) for row in figure.rows.values()] == [steps + 2] * 2 * pairs  # a line and an arc for each pair


def test_draws_of_each_density_depend_on_the_seed():
  context = context_of(images(60), images(30, seed=1), "vae")
  first = list(generation._densities(context))
  context.run.config.seed += 1
  for (name, _, codes), (_, _, others) in zip(first, generation._densities(context), strict=True):
    assert (codes != others).any(1).all(), name


def test_the_mixture_is_fitted_to_training_codes():
  context = context_of(images(60), images(30, seed=1))
  codes = codes_of(500, 1.0, 2.0, 1.0, 1.0)
  vars(context).update(train_codes=codes + 50, test_codes=codes)
  ((_, _, draws),) = generation._densities(context)
  np.testing.assert_allclose(draws.mean(0), 50.0, atol=0.5)


def test_decoded_examples_that_are_not_finite_get_a_remark_and_no_measures():
  context = context_of(images(60), images(30, seed=1), labels=False)
  context.run.params["decoder"]["logits"]["bias"] = np.full(16, np.nan, np.float32)
  results = analyze(context)
  assert {"memorisation_mixture", "memorisation_test_reconstructions"} <= remarks(results)
  for measure in ("memorisation_ratio", "frechet_distance", "precision", "recall"):
    measured = {name for name in results if name.startswith(f"{measure}/")}
    assert measured == ({f"{measure}/training_examples"} if measure != "memorisation_ratio" else set())
  assert np.isfinite([value for value in results.values() if isinstance(value, int | float)]).all()


SMALL = {
  "one test example": ((40, 1), {}, {"interpolations", "explorer", "sample_quality", "memorisation"}),
  "one training example": ((1, 5), {}, {"sample_quality", "memorisation"}),
  "one of each": ((1, 1), {}, {"interpolations", "explorer", "sample_quality", "memorisation"}),
  "no labels": ((30, 9), {"labels": False}, {"features", "memorisation"}),
  "one latent": ((30, 9), {"latent": 1}, {"features", "memorisation"}),
}


@pytest.mark.parametrize("case", SMALL)
def test_very_small_data_sets_have_samples_and_the_expected_remarks(case):
  counts, options, expected = SMALL[case]
  results = analyze(context_of(images(counts[0]), images(counts[1], seed=1), **options))
  assert remarks(results) == expected
  assert len(results["samples"].examples) == 64
  assert ("traversal" in results) == (case == "one latent")


def test_constant_images_have_defined_results():
  results = analyze(context_of(np.ones((30, 4, 4, 1), np.float32), np.ones((9, 4, 4, 1), np.float32)))
  assert "explorer" in remarks(results)
  assert results["nearest_training_distance"] == 0.0
  assert np.isnan(results["memorisation_ratio/mixture"])
  assert results["precision/training_examples"] == results["recall/training_examples"] == 1.0


def test_anomalies_do_not_count():
  context = context_of(images(30), images(30, seed=1), one_class=0)
  assert analyze(context)["compared_examples"] == 10
  rows = analyze(context, generation.interpolations)["interpolations"].rows
  for row in rows.values():
    for end in row[[0, -1]]:
      assert int(np.abs(context.test - end).reshape(30, -1).sum(1).argmin()) % 3 == 0
  none_normal = context_of(images(30), images(30, seed=1), one_class=7)
  assert remarks(analyze(none_normal)) == set(analyze(none_normal)) == {"remark"}


def test_series_have_samples_and_an_explorer():
  train, test = (images(count, count, (20, 1)) for count in (30, 12))
  context = context_of(train, test, "sequence", value_range="real", widths=(4,), strides=(2,))
  results = analyze(context)
  assert results["samples"].examples.shape == (64, 20, 1)
  assert results["explorer"].examples.shape[3:] == (20, 1)
  assert np.isfinite(results["frechet_distance/mixture"])


@pytest.mark.parametrize("skips", ["additive", "none"])
def test_missing_skip_connections_have_a_remark(skips):
  context = context_of(images(9), images(1, seed=1), "unet", channels=(3,), skips=skips)
  assert ("skips" in remarks(analyze(context))) == (skips == "additive")


def test_latent_codes_that_are_too_large_have_only_a_remark():
  context = dataclasses.replace(context_of(images(9), images(5, seed=1)))
  vars(context)["train_codes"] = np.zeros((9, 5000), np.float32)
  assert set(analyze(context)) == {"remark"}

"""What models make up whose weights or codes are made so that it is known; nothing is too small to be analyzed."""

import dataclasses
import functools
import types

import numpy as np
import pytest
from conftest import config_of
from made_contexts import analyze, fake_model, images, subject_of
from scipy import stats

from ae_jax import data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import densities, generation, likelihood


def remarks(found):
  return {name for name, value in found.items() if isinstance(value, str)}


@functools.cache
def plain():
  """What is found of an ordinary autoencoder."""
  return analyze(subject_of(images(90), images(30, seed=1)))


def test_a_plain_autoencoder_has_all_but_a_prior():
  found = plain()
  kinds = {name for name, value in found.items() if not isinstance(value, int | float | str)}
  assert kinds == {"samples", "interpolations", "explorer", "nearest"}
  assert "mixture" in found["samples"].title
  assert found["samples"].examples.shape == (64, 4, 4, 1)
  assert found["compared_examples"] == 30
  assert remarks(found) == {"memorisation", "features"}
  for measure in ("frechet_distance", "precision", "recall"):
    for of in ("mixture", "training_reconstructions", "training_examples"):
      assert np.isfinite(found[f"{measure}/{of}"])


def test_it_is_the_same_again():
  again = analyze(subject_of(images(90), images(30, seed=1)))
  numbers = {name: value for name, value in again.items() if isinstance(value, int | float)}
  assert numbers == {name: plain()[name] for name in numbers}
  np.testing.assert_array_equal(again["samples"].examples, plain()["samples"].examples)


def test_a_variational_one_is_drawn_from_by_its_prior_too(monkeypatch):
  monkeypatch.setattr(likelihood, "analyze", lambda context: [("nll", 1.0)])
  made = subject_of(images(60), images(30, seed=1), "vae")
  found = analyze(made)
  assert "prior" in found["samples"].title
  assert "mixture" in found["samples_mixture"].title
  assert {"frechet_distance/prior", "frechet_distance/mixture", "memorisation_ratio/prior", "nll"} <= set(found)
  draws = made.prior_codes(generation.DRAWS)
  assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
  np.testing.assert_allclose(found["samples"].examples, made.run.decode(draws[:64]), atol=1e-6)
  made.run.config.objective = config_of("dense", "digits").objective
  found = analyze(made)
  assert "prior" in remarks(found)
  assert "mixture" in found["samples"].title
  assert "nll" not in found


def test_rows_lead_from_one_example_to_another_of_another_class():
  made = subject_of(images(30), images(12, seed=1))
  rows = analyze(made, generation.interpolations)["interpolations"].rows
  assert len(rows) == 8
  which = lambda image: int(np.abs(made.test - image).reshape(12, -1).sum(1).argmin())
  for row in rows.values():
    start, end = which(row[0]), which(row[-1])
    assert start % 3 != end % 3
    np.testing.assert_allclose(row[[1, -2]], made.reconstructed[[start, end]], atol=1e-5)


def linear(decoder, codes, variational=False, nearest=lambda z: z):
  """A context whose decoder is a matrix, with these test codes."""
  model = fake_model(codes.shape[1], has_posterior=variational)
  decode = lambda z: (z @ decoder).reshape(len(z), 2, -1, 1)
  apply = lambda method, z, given: {"decode": decode, "nearest": nearest}[method](z)
  config = config_of("vae" if variational else "dense", "digits")
  dataset = data.Dataset("made", "real", codes, codes, None, None)
  made = types.SimpleNamespace(
    run=types.SimpleNamespace(model=model, apply=apply, config=config),
    dataset=dataset,
    generator=lambda: np.random.default_rng(config.seed),
    test_codes=codes,
    test_labels=dataset.test_labels,
    test=decode(codes),
    given=lambda half, numbers=None: {},
  )
  for method in ("decode", "possible_codes"):
    setattr(made, method, functools.partial(getattr(contexts.EvalContext, method), made))
  return made


def codes_of(count, *deviations):
  return np.random.default_rng(0).normal(size=(count, len(deviations))).astype(np.float32) * np.float32(deviations)


def circle(count, centre):
  angles = 2 * np.pi * np.arange(count) / count
  return (np.stack([np.cos(angles), np.sin(angles)], 1) + centre).astype(np.float32)


@pytest.mark.parametrize("variational", [False, True])
def test_a_line_goes_by_equal_steps_and_an_arc_by_equal_angles_around_the_prior_or_else_the_mean_code(variational):
  centre = np.array([3.0, -2.0])
  made = linear(np.eye(2, dtype=np.float32), circle(11, 0 * centre if variational else centre), variational)
  made.test_codes, made.train_codes = made.dataset.test, circle(7, centre)
  rows = analyze(made, generation.interpolations)["interpolations"].rows
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


def test_without_labels_pairs_share_no_example_and_the_seed_says_which_they_are():
  made = linear(np.eye(2, dtype=np.float32), codes_of(12, 1.0, 1.0))
  pairs = generation._pairs(made)
  assert len(np.unique(pairs)) == 2 * len(pairs) == 8
  assert pairs == generation._pairs(made)
  made.run.config.seed += 1
  assert pairs != generation._pairs(made)


def test_on_a_way_and_around_the_mean_there_are_none_but_codes_that_the_bottleneck_can_give():
  made = linear(np.eye(2, dtype=np.float32), np.round(codes_of(20, 2.0, 3.0)), nearest=np.round)
  made.train_codes = made.test_codes
  decoded = [analyze(made, generation.explorer)["explorer"].examples]
  decoded += analyze(made, generation.interpolations)["interpolations"].rows.values()
  for examples in decoded:
    np.testing.assert_array_equal(examples, np.round(examples))


@pytest.mark.parametrize("variational", [False, True])
def test_the_explorer_goes_along_the_directions_that_vary_most(variational):
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
def test_directions_come_in_pairs_at_most_three(deviations, names):
  codes = codes_of(300, *deviations)
  decoder = np.ones((len(deviations), 4), np.float32)
  explorer = analyze(linear(decoder, codes), generation.explorer)["explorer"]
  assert explorer.names == tuple(f"direction {number}" for number in names)


@pytest.mark.parametrize(("numbers", "count"), [(3 * 11**2 * 2, 11), (3 * 11**2 * 2 - 1, 5)])
def test_large_examples_are_explored_in_fewer_steps_that_lie_where_it_says(monkeypatch, numbers, count):
  monkeypatch.setattr(generation, "_MOST_NUMBERS", numbers)
  codes = codes_of(300, 2.0, 1.0)
  explorer = analyze(linear(np.eye(2, dtype=np.float32), codes), generation.explorer)["explorer"]
  np.testing.assert_allclose(explorer.positions, np.linspace(-2.5, 2.5, count))
  assert explorer.examples.shape == (1, count, count, 2, 1, 1)
  moved = explorer.examples[0].reshape(count, count, 2) - codes.mean(0)
  for side, deviation in enumerate(densities.principal_directions(codes)[1]):
    lengths = np.linalg.norm(moved.take(count // 2, 1 - side), axis=1)
    np.testing.assert_allclose(lengths, deviation * np.abs(explorer.positions), rtol=1e-4, atol=1e-5)


def test_units_of_a_variational_code_that_do_not_vary_are_not_explored():
  codes = codes_of(300, 0.0, 1.0, 0.0, 2.0)
  explorer = analyze(linear(np.eye(4, dtype=np.float32), codes, True), generation.explorer)["explorer"]
  assert explorer.names == ("z[3]", "z[1]")


def test_of_one_class_the_explorer_stays_among_its_codes():
  codes = codes_of(300, 2.0, 0.0)
  labels = np.arange(300) % 3
  codes[labels != 0] = 100.0 + codes_of(200, 1.0, 9.0)
  made = linear(np.eye(2, dtype=np.float32), codes)
  made.dataset = dataclasses.replace(made.dataset, test_labels=labels, one_class=0)
  row = analyze(made, generation.explorer)["traversal"].rows["direction 1"].reshape(-1, 2)
  own = codes[labels == 0, 0]
  np.testing.assert_allclose(row[:, 0], own.mean() + generation.POSITIONS * own.std(), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(row[:, 1], 0.0, atol=1e-6)


def test_a_single_direction_is_a_row_and_none_is_a_remark():
  codes, decoder = codes_of(300, 2.0), np.ones((1, 4), np.float32)
  row = analyze(linear(decoder, codes), generation.explorer)["traversal"].rows["direction 1"]
  np.testing.assert_allclose(row[:, 0, 0, 0] - codes.mean(), generation.POSITIONS * codes.std(), rtol=1e-5, atol=1e-6)
  assert remarks(analyze(linear(decoder, 0 * codes + 3), generation.explorer)) == {"explorer"}


@pytest.mark.parametrize(("bottleneck", "least", "most"), [("relu", 0, np.inf), ("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_codes_are_drawn_that_the_bottleneck_can_give(bottleneck, least, most):
  made = subject_of(images(60), images(30, seed=1), bottleneck=bottleneck)
  made.__dict__["train_codes"] = np.random.default_rng(0).choice([least, 1], (60, 4)).astype(np.float32)
  ((name, _, codes),) = generation._densities(made)
  assert name == "mixture"
  assert codes.min() == least
  assert codes.max() <= most


def test_codes_are_drawn_of_the_levels_that_a_quantised_unit_takes():
  made = subject_of(images(60), images(30, seed=1), bottleneck="fsq5")
  ((_, _, codes),) = generation._densities(made)
  assert set(np.unique(codes)) <= {-1, -0.5, 0, 0.5, 1}
  assert len(np.unique(codes)) > 1


@pytest.mark.parametrize(("numbers", "count"), [(2**25, 100), (80 * 16 + 15, 80), (16, 64)])
def test_as_many_codes_are_drawn_as_pay_and_of_large_examples_fewer(monkeypatch, numbers, count):
  monkeypatch.setattr(generation, "DRAWS", 100)
  monkeypatch.setattr(generation, "_MOST_NUMBERS", numbers)
  drawn = generation._densities(subject_of(images(60), images(30, seed=1), "vae"))
  assert {name: codes.shape for name, _, codes in drawn} == {"prior": (count, 4), "mixture": (count, 4)}


def test_another_seed_draws_other_codes_of_each_density():
  made = subject_of(images(60), images(30, seed=1), "vae")
  one = list(generation._densities(made))
  made.run.config.seed += 1
  for (name, _, codes), (_, _, others) in zip(one, generation._densities(made), strict=True):
    assert (codes != others).any(1).all(), name


def test_the_mixture_is_one_of_training_codes():
  made = subject_of(images(60), images(30, seed=1))
  made.__dict__.update(train_codes=codes_of(500, 1.0, 2.0, 1.0, 1.0) + 50, test_codes=codes_of(500, 1.0, 2.0, 1.0, 1.0))
  ((_, _, codes),) = generation._densities(made)
  np.testing.assert_allclose(codes.mean(0), 50.0, atol=0.5)


def test_what_is_decoded_and_is_not_finite_is_said_and_left_out():
  made = subject_of(images(60), images(30, seed=1), labels=False)
  made.run.params["decoder"]["logits"]["bias"] = np.full(16, np.nan, np.float32)
  found = analyze(made)
  assert {"memorisation_mixture", "memorisation_test_reconstructions"} <= remarks(found)
  for measure in ("memorisation_ratio", "frechet_distance", "precision", "recall"):
    left = {name for name in found if name.startswith(f"{measure}/")}
    assert left == ({f"{measure}/training_examples"} if measure != "memorisation_ratio" else set())
  assert np.isfinite([value for value in found.values() if isinstance(value, int | float)]).all()


SMALL = {
  "one test example": ((40, 1), {}, {"interpolations", "explorer", "likeness", "memorisation"}),
  "one training example": ((1, 5), {}, {"likeness", "memorisation"}),
  "one of each": ((1, 1), {}, {"interpolations", "explorer", "likeness", "memorisation"}),
  "no labels": ((30, 9), {"labels": False}, {"features", "memorisation"}),
  "one number of code": ((30, 9), {"latent": 1}, {"features", "memorisation"}),
}


@pytest.mark.parametrize("case", SMALL)
def test_nothing_is_too_small(case):
  counts, options, wanted = SMALL[case]
  found = analyze(subject_of(images(counts[0]), images(counts[1], seed=1), **options))
  assert remarks(found) == wanted
  assert len(found["samples"].examples) == 64
  assert ("traversal" in found) == (case == "one number of code")


def test_constant_images_are_no_exception():
  found = analyze(subject_of(np.ones((30, 4, 4, 1), np.float32), np.ones((9, 4, 4, 1), np.float32)))
  assert "explorer" in remarks(found)
  assert found["nearest_training_distance"] == 0.0
  assert np.isnan(found["memorisation_ratio/mixture"])
  assert found["precision/training_examples"] == found["recall/training_examples"] == 1.0


def test_of_one_class_the_others_do_not_count():
  made = subject_of(images(30), images(30, seed=1), one_class=0)
  assert analyze(made)["compared_examples"] == 10
  rows = analyze(made, generation.interpolations)["interpolations"].rows
  for row in rows.values():
    for end in row[[0, -1]]:
      assert int(np.abs(made.test - end).reshape(30, -1).sum(1).argmin()) % 3 == 0
  nobody = subject_of(images(30), images(30, seed=1), one_class=7)
  assert remarks(analyze(nobody)) == set(analyze(nobody)) == {"remark"}


def test_series_are_made_up_as_well():
  train, test = (images(count, count, (20, 1)) for count in (30, 12))
  made = subject_of(train, test, "sequence", value_range="real", widths=(4,), strides=(2,))
  found = analyze(made)
  assert found["samples"].examples.shape == (64, 20, 1)
  assert found["explorer"].examples.shape[3:] == (20, 1)
  assert np.isfinite(found["frechet_distance/mixture"])


@pytest.mark.parametrize("skips", ["additive", "none"])
def test_that_a_decoder_lacks_its_skips_is_said(skips):
  made = subject_of(images(9), images(1, seed=1), "unet", channels=(3,), skips=skips)
  assert ("skips" in remarks(analyze(made))) == (skips == "additive")


def test_codes_that_are_too_large_are_left_alone():
  made = dataclasses.replace(subject_of(images(9), images(5, seed=1)))
  made.__dict__["train_codes"] = np.zeros((9, 5000), np.float32)
  assert set(analyze(made)) == {"remark"}

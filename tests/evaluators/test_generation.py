"""What models make up whose weights or codes are made so that it is known; nothing is too small to be studied."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax import data, models, runs
from ae_jax.evaluators import exhibits, features, generation, likelihood
from ae_jax.evaluators import subject as subjects


def images(count, seed=0, shape=(4, 4, 1)):
  return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


def subject_of(train, test, name="dense", labels=True, one_class=-1, value_range="unit", **options):
  """A model of this data with random weights; the labels go 0, 1, 2, 0, ..."""
  config = config_of(name, "digits")
  config.data.range = value_range
  config.model.update({**FAMILIES[name][0], **options})
  halves = (np.arange(len(half)) % 3 if labels else None for half in (train, test))
  dataset = data.Dataset("made", value_range, train, test, *halves, one_class)
  model = models.build(shape=dataset.shape, **config.model)
  generator = np.random.default_rng(0)
  normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) / leaf.shape[0] ** 0.5
  params = jax.tree.map(normal, model.abstract_params())
  return subjects.Subject(runs.Run(params, config, {}, [], model, 0), dataset)


def study(subject, study=generation.study):
  found = list(study(subject))
  assert len(dict(found)) == len(found)
  for name, value in found:
    assert isinstance(value, int | float | str | exhibits.Rows | exhibits.Gallery | exhibits.Explorer | exhibits.Lines)
    assert isinstance(value, int | float | str) or "/" not in name
  return dict(found)


def remarks(found):
  return {name for name, value in found.items() if isinstance(value, str)}


@functools.cache
def plain():
  """What is found of an ordinary autoencoder."""
  return study(subject_of(images(90), images(30, seed=1)))


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
  again = study(subject_of(images(90), images(30, seed=1)))
  numbers = {name: value for name, value in again.items() if isinstance(value, int | float)}
  assert numbers == {name: plain()[name] for name in numbers}
  np.testing.assert_array_equal(again["samples"].examples, plain()["samples"].examples)


def test_a_variational_one_is_drawn_from_by_its_prior_too(monkeypatch):
  monkeypatch.setattr(likelihood, "study", lambda subject: [("nll", 1.0)])
  made = subject_of(images(60), images(30, seed=1), "vae")
  found = study(made)
  assert "prior" in found["samples"].title
  assert "mixture" in found["samples_mixture"].title
  assert {"frechet_distance/prior", "frechet_distance/mixture", "memorisation_ratio/prior", "nll"} <= set(found)
  wanted = made.generator().normal(size=(64, 4)).astype(np.float32)
  np.testing.assert_allclose(found["samples"].examples, made.run.decode(wanted), atol=1e-6)
  made.run.config.objective = config_of("dense", "digits").objective
  found = study(made)
  assert "prior" in remarks(found)
  assert "mixture" in found["samples"].title
  assert "nll" not in found


def test_rows_lead_from_one_example_to_another_of_another_class():
  made = subject_of(images(30), images(12, seed=1))
  rows = study(made, generation.interpolations)["interpolations"].rows
  assert len(rows) == 8
  which = lambda image: int(np.abs(made.test - image).reshape(12, -1).sum(1).argmin())
  for row in rows.values():
    start, end = which(row[0]), which(row[-1])
    assert start % 3 != end % 3
    np.testing.assert_allclose(row[[1, -2]], made.reconstructed[[start, end]], atol=1e-5)


def linear(decoder, codes, variational=False):
  """A subject whose decoder is a matrix, with these test codes."""
  model = types.SimpleNamespace(module=None, can=lambda method: variational and method == "posterior")
  apply = lambda method, z: (z @ decoder).reshape(len(z), 2, -1, 1)
  config = config_of("vae" if variational else "dense", "digits")
  dataset = data.Dataset("made", "real", codes, codes, None, None)
  return types.SimpleNamespace(
    run=types.SimpleNamespace(model=model, apply=apply, config=config),
    dataset=dataset,
    test_codes=codes,
    test=(codes @ decoder).reshape(len(codes), 2, -1, 1),
  )


def codes_of(count, *deviations):
  return np.random.default_rng(0).normal(size=(count, len(deviations))).astype(np.float32) * np.float32(deviations)


@pytest.mark.parametrize("variational", [False, True])
def test_the_explorer_goes_along_the_directions_that_vary_most(variational):
  codes, decoder = codes_of(500, 0.1, 5.0, 1.0, 3.0), np.eye(4, dtype=np.float32)
  explorer = study(linear(decoder, codes, variational), generation.explorer)["explorer"]
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
  explorer = study(linear(decoder, codes), generation.explorer)["explorer"]
  assert explorer.names == tuple(f"direction {number}" for number in names)


def test_a_single_direction_is_a_row_and_none_is_a_remark():
  codes, decoder = codes_of(300, 2.0), np.ones((1, 4), np.float32)
  row = study(linear(decoder, codes), generation.explorer)["traversal"].rows["direction 1"]
  np.testing.assert_allclose(row[:, 0, 0, 0] - codes.mean(), generation.POSITIONS * codes.std(), rtol=1e-5, atol=1e-6)
  assert remarks(study(linear(decoder, 0 * codes + 3), generation.explorer)) == {"explorer"}


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


def blobs(count, seed):
  return np.random.default_rng(seed).normal(size=(count, 5, 1, 1)).astype(np.float32)


def memorised(draws, train=None):
  made = types.SimpleNamespace(
    train=blobs(2000, 0) if train is None else train,
    test=blobs(800, 1),
    reconstructed=0.8 * blobs(800, 1),
    dataset=types.SimpleNamespace(anomalous=None),
  )
  return study({"drawn": draws(made)}, lambda draws: generation.memorisation(made, draws))


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


def test_what_is_decoded_and_is_not_finite_is_said_and_left_out():
  made = subject_of(images(60), images(30, seed=1), labels=False)
  made.run.params["decoder"]["logits"]["bias"] = np.full(16, np.nan, np.float32)
  found = study(made)
  assert {"memorisation_mixture", "memorisation_test_reconstructions"} <= remarks(found)
  assert np.isfinite([value for value in found.values() if isinstance(value, int | float)]).all()


@pytest.mark.parametrize("labels", [True, False])
def test_draws_that_are_the_test_examples_are_just_like_them(labels):
  made = subject_of(images(60), images(30, seed=1), labels=labels)
  draws = {"same": made.test[::-1], "other": made.test + 100.0}
  found = study(made, lambda made: generation.likeness(made, draws))
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
  found = study(made, lambda made: generation.likeness(made, {"point": point}))
  assert found["frechet_distance/point"] == pytest.approx(1.0, abs=0.05)


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
  found = study(subject_of(images(counts[0]), images(counts[1], seed=1), **options))
  assert remarks(found) == wanted
  assert len(found["samples"].examples) == 64
  assert ("traversal" in found) == (case == "one number of code")


def test_constant_images_are_no_exception():
  found = study(subject_of(np.ones((30, 4, 4, 1), np.float32), np.ones((9, 4, 4, 1), np.float32)))
  assert "explorer" in remarks(found)
  assert found["nearest_training_distance"] == 0.0
  assert np.isnan(found["memorisation_ratio/mixture"])
  assert found["precision/training_examples"] == found["recall/training_examples"] == 1.0


def test_of_one_class_the_others_do_not_count():
  made = subject_of(images(30), images(30, seed=1), one_class=0)
  assert study(made)["compared_examples"] == 10
  rows = study(made, generation.interpolations)["interpolations"].rows
  for row in rows.values():
    for end in row[[0, -1]]:
      assert int(np.abs(made.test - end).reshape(30, -1).sum(1).argmin()) % 3 == 0
  nobody = subject_of(images(30), images(30, seed=1), one_class=7)
  assert remarks(study(nobody)) == set(study(nobody)) == {"remark"}


def test_series_are_made_up_as_well():
  train, test = (images(count, count, (20, 1)) for count in (30, 12))
  made = subject_of(train, test, "sequence", value_range="real", widths=(4,), strides=(2,))
  found = study(made)
  assert found["samples"].examples.shape == (64, 20, 1)
  assert found["explorer"].examples.shape[3:] == (20, 1)
  assert np.isfinite(found["frechet_distance/mixture"])


@pytest.mark.parametrize("skips", ["additive", "none"])
def test_that_a_decoder_lacks_its_skips_is_said(skips):
  made = subject_of(images(9), images(1, seed=1), "unet", channels=(3,), skips=skips)
  assert ("skips" in remarks(study(made))) == (skips == "additive")


def test_codes_that_are_too_large_are_left_alone():
  made = dataclasses.replace(subject_of(images(9), images(5, seed=1)))
  made.__dict__["train_codes"] = np.zeros((9, 5000), np.float32)
  assert set(study(made)) == {"remark"}

import functools
import types

import made_contexts
import numpy as np
import pytest
from scipy import ndimage

from ae_jax import data, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import denoising, reconstruction, robustness

WIDE = np.random.default_rng(0).uniform(size=(5, 7, 12, 3)).astype(np.float32)
SQUARE = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)


def subject_of(reconstruct, test, train=None, labels=None, one_class=None, latent=2):
  """A context whose run reconstructs as a function says."""
  train = test if train is None else train
  run = types.SimpleNamespace(
    config=types.SimpleNamespace(seed=0),
    variables=models.Variables({}),
    model=made_contexts.fake_model(latent),
    apply=lambda method, x, given: reconstruct(x),
  )
  return contexts.EvalContext(run, data.Dataset("made", "real", train, test, None, labels, one_class))


@pytest.mark.parametrize("images", [WIDE, SQUARE])
def test_to_move_by_nothing_changes_nothing(images):
  np.testing.assert_array_equal(robustness.shift(images, 0, 0, 9.0), images)
  np.testing.assert_array_equal(robustness.rotate(images, 0, 9.0), images)


@pytest.mark.parametrize("turns", [-1, 1, 2, 3, 4])
def test_quarters_of_a_turn_are_exact(turns):
  np.testing.assert_allclose(robustness.rotate(SQUARE, 90 * turns, 9.0), np.rot90(SQUARE, turns, (1, 2)), rtol=1e-6)


@pytest.mark.parametrize("degrees", [-45, 5, 10, 123.4])
@pytest.mark.parametrize("images", [WIDE, SQUARE])
def test_rotation_is_that_of_scipy(images, degrees):
  options = {"axes": (1, 2), "reshape": False, "order": 1, "mode": "grid-constant", "cval": 0.3}
  np.testing.assert_allclose(
    robustness.rotate(images, degrees, 0.3), ndimage.rotate(images, degrees, **options), atol=1e-6
  )


@pytest.mark.parametrize("by", [(1, 0), (-3, 2), (0, -2), (7, 0), (0, 40)])
def test_shift_is_that_of_scipy(by):
  wanted = ndimage.shift(WIDE, (0, *by, 0), order=0, cval=-0.5)
  np.testing.assert_array_equal(robustness.shift(WIDE, *by, -0.5), wanted)


def test_an_image_that_is_as_dark_as_the_outside_is_moved_to_itself():
  images = np.full((2, 9, 6, 1), 0.25, np.float32)
  np.testing.assert_allclose(robustness.rotate(images, 33, 0.25), images, rtol=1e-6)
  np.testing.assert_array_equal(robustness.shift(images, 2, -1, 0.25), images)


def test_who_copies_knows_all_movements_and_takes_no_noise_away():
  found = dict(robustness.analyze(subject_of(lambda x: x, SQUARE)))
  assert found["squared_error/undisturbed"] == found["squared_error/shift_2"] == found["squared_error/rotation_45"] == 0
  noisy = denoising.disturbed(subject_of(lambda x: x, SQUARE), SQUARE)
  for name, images in noisy.items():
    assert found[f"squared_error/{name}"] == pytest.approx(np.square(images - SQUARE).sum() / len(SQUARE), rel=1e-6)
  assert np.isnan(found["increase/shift_1"])  # above nothing


def test_whose_reconstruction_is_black_misses_what_is_there():
  found = dict(robustness.analyze(subject_of(np.zeros_like, WIDE)))
  energy = lambda images: np.square(images, dtype=np.float64).sum() / len(images)
  least = WIDE.min()
  moved = [ndimage.shift(WIDE, (0, *by, 0), order=0, cval=least) for by in ((0, 3), (0, -3), (3, 0), (-3, 0))]
  assert found["squared_error/shift_3"] == pytest.approx(np.mean([energy(images) for images in moved]), rel=1e-5)
  for name in ("gaussian_0.5", "masking_0.25"):  # held against the clean images
    assert found[f"squared_error/{name}"] == pytest.approx(energy(WIDE), rel=1e-6)
    assert found[f"increase/{name}"] == pytest.approx(0, abs=1e-6)
  share = found["squared_error/shift_3"] / found["squared_error/undisturbed"]
  assert found["increase/shift_3"] == pytest.approx(share - 1)


def test_pca_is_asked_the_same():
  found = dict(robustness.analyze(subject_of(np.zeros_like, SQUARE, latent=64)))
  assert found["pca_squared_error/undisturbed"] < 1e-9  # five images span four directions around their mean
  pca = reconstruction.pca(SQUARE, 64)
  turned = [robustness.rotate(SQUARE, degrees, SQUARE.min()) for degrees in (20, -20)]
  wanted = np.mean([np.square(pca(images) - images).sum((1, 2, 3)) for images in turned])
  assert found["pca_squared_error/rotation_20"] == pytest.approx(wanted, rel=1e-5)
  line = found["rotations"].lines["PCA of the same size"]
  assert line[:, 3] == pytest.approx([20, wanted], rel=1e-5)
  assert line[:, 0] == pytest.approx([0, 0], abs=1e-9)


def test_pca_is_fitted_on_training_examples_and_not_on_those_it_is_tested_on():
  """A plane of training examples: PCA of two numbers loses nothing of it, and much of test examples outside of it."""
  generator = np.random.default_rng(3)
  directions = np.eye(64, dtype=np.float32)
  train = (generator.normal(size=(20, 2)).astype(np.float32) @ directions[:2]).reshape(-1, 8, 8, 1)
  test = (generator.normal(size=(20, 2)).astype(np.float32) @ directions[2:4]).reshape(-1, 8, 8, 1)
  found = dict(robustness.analyze(subject_of(np.zeros_like, test, train)))
  assert found["pca_squared_error/undisturbed"] == pytest.approx(np.square(test).sum() / 20, rel=1e-4)


@functools.cache
def of_halves():
  """What is found of a model that takes off half of everything."""
  return dict(robustness.analyze(subject_of(lambda x: 0.5 * x, WIDE)))


@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_the_same_for_any_batches(monkeypatch, batch):
  wanted = of_halves()
  monkeypatch.setattr(contexts, "_BATCH", batch)
  found = dict(robustness.analyze(subject_of(lambda x: 0.5 * x, WIDE)))
  for name, value in wanted.items():
    if isinstance(value, float):
      assert found[name] == pytest.approx(value, rel=1e-6)


def test_series_get_noise_alone_and_hear_why():
  series = np.random.default_rng(0).normal(size=(6, 20, 2)).astype(np.float32)
  found = dict(robustness.analyze(subject_of(lambda x: 0.5 * x, series)))
  assert "series" in found["movements"]
  assert found["squared_error/gaussian_0.5"] > 0
  assert not [name for name in found if "shift" in name or "rotation" in name]


def test_of_many_examples_some_are_studied_and_of_large_ones_fewer(monkeypatch):
  many = np.arange(3000, dtype=np.float32).reshape(-1, 1, 1, 1)
  context = subject_of(lambda x: x, many)
  analyzed = context.test[robustness._numbers(context)].ravel()
  assert len(analyzed) == robustness.MOST == 1000
  assert analyzed[[0, -1]].tolist() == [0, 2999]
  assert set(np.diff(analyzed)) <= {3, 4}
  monkeypatch.setattr(robustness, "_MOST_NUMBERS", 10)
  assert len(robustness._numbers(context)) == 10


def test_of_one_class_only_its_test_examples_are_studied():
  test = np.concatenate([SQUARE, SQUARE + 9])
  context = subject_of(lambda x: x, test, SQUARE, np.repeat([0, 1], 5), 0)
  np.testing.assert_array_equal(context.test[robustness._numbers(context)], SQUARE)


def test_the_pictures_are_of_what_is_measured():
  found = of_halves()
  rows = found["disturbed"].rows
  assert len(rows) == 1 + 2 * 3
  np.testing.assert_allclose(rows["rotation 45"], robustness.rotate(WIDE, 45, WIDE.min()))
  np.testing.assert_allclose(rows["rotation 45 reconstructed"], 0.5 * rows["rotation 45"])
  assert found["shifts"].lines["this model"][0].tolist() == [0, 1, 2, 3]
  values = [found[f"squared_error/{name}"] for name in ("undisturbed", "shift_1", "shift_2", "shift_3")]
  assert found["shifts"].lines["this model"][1].tolist() == values

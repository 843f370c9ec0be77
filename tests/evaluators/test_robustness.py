import functools

import made_contexts
import numpy as np
import pytest
from scipy import ndimage

from ae_jax import data, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import denoising, pca, robustness

WIDE = np.random.default_rng(0).uniform(size=(5, 7, 12, 3)).astype(np.float32)
SQUARE = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)


def context_of(reconstruct, test, train=None, labels=None, one_class=None, latent=2):
  """Returns a context with this reconstruction function."""
  train = test if train is None else train
  run = made_contexts.fake_run(made_contexts.fake_model(latent), lambda method, x, given: reconstruct(x))
  return contexts.EvalContext(run, data.Dataset("made", "real", train, test, None, labels, one_class))


@pytest.mark.parametrize("images", [WIDE, SQUARE])
def test_a_movement_by_zero_is_the_identity(images):
  np.testing.assert_array_equal(robustness.shift(images, 0, 0, 9.0), images)
  np.testing.assert_array_equal(robustness.rotate(images, 0, 9.0), images)


@pytest.mark.parametrize("turns", [-1, 1, 2, 3, 4])
def test_quarter_turns_are_exact(turns):
  np.testing.assert_allclose(robustness.rotate(SQUARE, 90 * turns, 9.0), np.rot90(SQUARE, turns, (1, 2)), rtol=1e-6)


@pytest.mark.parametrize("degrees", [-45, 5, 10, 123.4])
@pytest.mark.parametrize("images", [WIDE, SQUARE])
def test_rotation_agrees_with_scipy(images, degrees):
  options = {"axes": (1, 2), "reshape": False, "order": 1, "mode": "grid-constant", "cval": 0.3}
  np.testing.assert_allclose(
    robustness.rotate(images, degrees, 0.3), ndimage.rotate(images, degrees, **options), atol=1e-6
  )


@pytest.mark.parametrize("by", [(1, 0), (-3, 2), (0, -2), (7, 0), (0, 40)])
def test_shift_agrees_with_scipy(by):
  expected = ndimage.shift(WIDE, (0, *by, 0), order=0, cval=-0.5)
  np.testing.assert_array_equal(robustness.shift(WIDE, *by, -0.5), expected)


def test_a_constant_image_equal_to_the_fill_value_does_not_change():
  images = np.full((2, 9, 6, 1), 0.25, np.float32)
  np.testing.assert_allclose(robustness.rotate(images, 33, 0.25), images, rtol=1e-6)
  np.testing.assert_array_equal(robustness.shift(images, 2, -1, 0.25), images)


def test_the_identity_reconstructs_all_movements_and_removes_no_noise():
  results = dict(robustness.analyze(context_of(lambda x: x, SQUARE)))
  assert (
    results["squared_error/undisturbed"]
    == results["squared_error/shift_2"]
    == results["squared_error/rotation_45"]
    == 0
  )
  noisy = denoising.disturbed(context_of(lambda x: x, SQUARE), SQUARE)
  for name, images in noisy.items():
    assert results[f"squared_error/{name}"] == pytest.approx(np.square(images - SQUARE).sum() / len(SQUARE), rel=1e-6)
  assert np.isnan(results["increase/shift_1"])  # relative to an error of 0


def test_a_black_reconstruction_has_the_energy_of_the_target_as_its_error():
  results = dict(robustness.analyze(context_of(np.zeros_like, WIDE)))
  energy = lambda images: np.square(images, dtype=np.float64).sum() / len(images)
  fill = WIDE.min()
  moved = [ndimage.shift(WIDE, (0, *by, 0), order=0, cval=fill) for by in ((0, 3), (0, -3), (3, 0), (-3, 0))]
  assert results["squared_error/shift_3"] == pytest.approx(np.mean([energy(images) for images in moved]), rel=1e-5)
  for name in ("gaussian_0.5", "masking_0.25"):  # compared with the clean images
    assert results[f"squared_error/{name}"] == pytest.approx(energy(WIDE), rel=1e-6)
    assert results[f"increase/{name}"] == pytest.approx(0, abs=1e-6)
  ratio = results["squared_error/shift_3"] / results["squared_error/undisturbed"]
  assert results["increase/shift_3"] == pytest.approx(ratio - 1)


def test_pca_is_measured_on_the_same_images():
  results = dict(robustness.analyze(context_of(np.zeros_like, SQUARE, latent=64)))
  assert results["pca_squared_error/undisturbed"] < 1e-9  # five images span four directions around their mean
  fitted = pca.fit_baseline(SQUARE.reshape(5, -1), models.CodeSpec((64,)))
  rotated = [robustness.rotate(SQUARE, degrees, SQUARE.min()) for degrees in (20, -20)]
  expected = np.mean([np.square(pca.reconstruct(fitted, images) - images).sum((1, 2, 3)) for images in rotated])
  assert results["pca_squared_error/rotation_20"] == pytest.approx(expected, rel=1e-5)
  line = results["rotations"].lines["PCA of the same size"]
  assert line[:, 3] == pytest.approx([20, expected], rel=1e-5)
  assert line[:, 0] == pytest.approx([0, 0], abs=1e-9)


def test_pca_is_fitted_to_training_examples_only():
  """Training examples span a plane; test examples lie outside of it."""
  generator = np.random.default_rng(3)
  directions = np.eye(64, dtype=np.float32)
  train = (generator.normal(size=(20, 2)).astype(np.float32) @ directions[:2]).reshape(-1, 8, 8, 1)
  test = (generator.normal(size=(20, 2)).astype(np.float32) @ directions[2:4]).reshape(-1, 8, 8, 1)
  results = dict(robustness.analyze(context_of(np.zeros_like, test, train)))
  assert results["pca_squared_error/undisturbed"] == pytest.approx(np.square(test).sum() / 20, rel=1e-4)


@functools.cache
def of_splits():
  """Returns the results for a model that halves every image."""
  return dict(robustness.analyze(context_of(lambda x: 0.5 * x, WIDE)))


@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_the_batch_size(monkeypatch, batch):
  expected = of_splits()
  monkeypatch.setattr(contexts, "_BATCH", batch)
  results = dict(robustness.analyze(context_of(lambda x: 0.5 * x, WIDE)))
  for name, value in expected.items():
    if isinstance(value, float):
      assert results[name] == pytest.approx(value, rel=1e-6)


def test_series_are_measured_with_the_noise_that_applies_to_them_only():
  series = np.random.default_rng(0).normal(size=(6, 20, 2)).astype(np.float32)
  results = dict(robustness.analyze(context_of(lambda x: 0.5 * x, series)))
  assert not [name for name in results if "salt" in name or name == "movements"]
  assert results["squared_error/gaussian_0.5"] > 0
  assert not [name for name in results if "shift" in name or "rotation" in name]


def test_the_number_of_examples_is_limited_and_smaller_for_large_examples(monkeypatch):
  many = np.arange(3000, dtype=np.float32).reshape(-1, 1, 1, 1)
  context = context_of(lambda x: x, many)
  analyzed = context.test[robustness._indices(context)].ravel()
  assert len(analyzed) == robustness.MAX_EXAMPLES == 1000
  assert analyzed[[0, -1]].tolist() == [0, 2999]
  assert set(np.diff(analyzed)) <= {3, 4}
  monkeypatch.setattr(robustness, "_MAX_ELEMENTS", 10)
  assert len(robustness._indices(context)) == 10


def test_anomalies_are_not_analyzed():
  test = np.concatenate([SQUARE, SQUARE + 9])
  context = context_of(lambda x: x, test, SQUARE, np.repeat([0, 1], 5), 0)
  np.testing.assert_array_equal(context.test[robustness._indices(context)], SQUARE)


def test_the_figures_agree_with_the_measures():
  results = of_splits()
  rows = results["disturbed"].rows
  assert len(rows) == 1 + 2 * 3
  np.testing.assert_allclose(rows["rotation 45"], robustness.rotate(WIDE, 45, WIDE.min()))
  np.testing.assert_allclose(rows["rotation 45 reconstructed"], 0.5 * rows["rotation 45"])
  assert results["shifts"].lines["this model"][0].tolist() == [0, 1, 2, 3]
  values = [results[f"squared_error/{name}"] for name in ("undisturbed", "shift_1", "shift_2", "shift_3")]
  assert results["shifts"].lines["this model"][1].tolist() == values


def test_each_disturbed_image_is_reconstructed_once_and_the_test_images_not_again():
  counts = []
  context = context_of(lambda x: counts.append(len(x)) or 0.5 * x, WIDE)
  assert context.reconstructions is not None
  dict(robustness.analyze(context))
  directions = 4 * len(robustness.SHIFTS) + 2 * len(robustness.ROTATIONS)
  assert counts == [5] * (1 + len(denoising.noises(3)) + directions)

import functools
import types

import jax
import made_contexts
import numpy as np
import pytest

from ae_jax import data, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import denoising
from ae_jax.objectives import corruptions
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile

X = np.random.default_rng(0).uniform(0.3, 0.7, size=(2000, 8, 8, 1)).astype(np.float32)
DATASET = data.Dataset("made", "real", X, X, None, None)


class Copies:
  """A model that returns its input as the reconstruction."""

  def reconstruct(self, variables, x, given):
    return x

  def outputs(self, logits, value_range):
    return logits


@functools.cache
def metrics_of_copies(scale=1.0, offset=0.0):
  """Returns the metrics of a model that copies, for the data times `scale` plus `offset`."""
  keys, x = jax.random.split(jax.random.key(0), len(X)), np.float32(scale) * X + np.float32(offset)
  dataset = data.Dataset("made", "real", x, x, None, None)
  values = denoising.per_example(Copies(), None, {"x": x}, keys, "real", dataset.span)
  return dict(denoising.metrics({name: np.asarray(rows) for name, rows in values.items()}, dataset))


def test_copying_the_input_leaves_the_psnr_unchanged():
  metrics = metrics_of_copies()
  for name, level in denoising.NOISES:
    assert metrics[f"test/psnr_in/{name}_{level:g}"] == metrics[f"test/psnr_out/{name}_{level:g}"]


def test_input_psnr_is_the_closed_form_of_the_noise():
  peak, x = float(np.ptp(X)), X.astype(np.float64)
  exact = {
    "gaussian_0.5": (0.5 * peak) ** 2,
    "masking_0.25": 0.25 * np.square(x - x.min()).mean(),  # 0 lies below all values
    "salt_and_pepper_0.1": 0.05 * (np.square(x - x.min()) + np.square(x.max() - x)).mean(),
  }
  for name, mse in exact.items():
    assert metrics_of_copies()[f"test/psnr_in/{name}"] == pytest.approx(10 * np.log10(peak**2 / mse), abs=0.1)


@pytest.mark.parametrize(("scale", "offset"), [(2366.0, 0.0), (1e-3, 5.0)])
def test_psnr_under_noise_does_not_depend_on_the_unit_of_the_data(scale, offset):
  """The noise level is a fraction of the width of the data, so a change of unit scales noise and error alike."""
  assert metrics_of_copies(scale, offset) == pytest.approx(metrics_of_copies(), abs=0.02)


def test_salt_and_pepper_is_not_measured_for_series_and_tables():
  x = X[:50, :, 0, 0]
  keys = jax.random.split(jax.random.key(0), len(x))
  dataset = data.Dataset("made", "real", x, x, None, None)
  values = denoising.per_example(Copies(), None, {"x": x}, keys, "real", dataset.span)
  values = {name: np.asarray(rows) for name, rows in values.items()}
  assert not [name for name in [*values, *dict(denoising.metrics(values, dataset))] if "salt" in name]


def context_of(examples, seed=0):
  """Returns a context whose run halves its input."""
  run = types.SimpleNamespace(
    config=types.SimpleNamespace(seed=seed),
    variables=models.Variables({}),
    model=made_contexts.fake_model(),
    apply=lambda method, x, given: 0.5 * x,
  )
  return contexts.EvalContext(run, data.Dataset("made", "real", examples, examples, None, None))


@pytest.mark.parametrize("examples", [X[:40], X[:5, :, :, 0]])  # images and series
def test_the_figure_has_a_noisy_and_a_restored_row_per_noise(examples):
  rows = dict(denoising.analyze(context_of(examples)))["denoised"].rows
  clean = next(iter(rows.values()))
  is_series = examples.ndim == 3
  assert any("salt" in name for name in rows) != is_series
  assert len(rows) == 1 + 2 * (len(denoising.NOISES) - 2 * is_series)
  assert len(clean) == min(16, len(examples))
  np.testing.assert_array_equal(rows["masking 0.5 restored"], 0.5 * rows["masking 0.5"])
  masked = rows["masking 0.5"] == np.float32(examples.min())
  np.testing.assert_array_equal(rows["masking 0.5"][~masked], clean[~masked])
  assert abs(masked.mean() - 0.5) < 4 * 0.5 / np.sqrt(masked.size)


@pytest.mark.parametrize("batch", [1, 7])
def test_noise_depends_on_the_seed_but_not_on_the_batch_size(monkeypatch, batch):
  expected = denoising.disturbed(context_of(X[:20]), X[:20])
  monkeypatch.setattr(contexts, "_BATCH", batch)
  actual = denoising.disturbed(context_of(X[:20]), X[:20])
  for name, noisy in expected.items():
    np.testing.assert_allclose(actual[name], noisy, rtol=1e-6)
  other = denoising.disturbed(context_of(X[:20], seed=1), X[:20])
  assert all((other[name] != noisy).any() for name, noisy in expected.items())


def test_each_noise_of_an_example_has_its_own_key():
  keys, x = jax.random.split(jax.random.key(0), 3), X[:3]
  values = denoising.per_example(Copies(), None, {"x": x}, keys, "real", DATASET.span)
  for number, (name, level) in enumerate(denoising.NOISES):
    noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    noisy, _ = corruptions.corrupt(name, noise_keys, x, level, DATASET.span)
    np.testing.assert_allclose(values[f"noisy/{name}_{level:g}"], losses.squared_error(noisy, x), rtol=1e-5)

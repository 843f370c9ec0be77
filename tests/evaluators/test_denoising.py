import jax
import numpy as np
import pytest

from ae_jax import data
from ae_jax.evaluators import denoising

X = np.random.default_rng(0).uniform(0.3, 0.7, size=(2000, 8, 8, 1)).astype(np.float32)
DATASET = data.Dataset("made", "real", X, X, None, None)


class Copies:
  """A model whose reconstruction is what it is given."""

  def reconstruct(self, params, x):
    return x


def found():
  keys = jax.random.split(jax.random.key(0), len(X))
  values = denoising.per_example(Copies(), None, {"x": X}, keys, "real")
  return dict(denoising.metrics({name: np.asarray(rows) for name, rows in values.items()}, DATASET))


def test_who_copies_gains_nothing():
  metrics = found()
  for name, level in denoising.NOISES:
    assert metrics[f"test/psnr_in/{name}_{level:g}"] == metrics[f"test/psnr_out/{name}_{level:g}"]


def test_psnr_in_is_that_of_the_noise():
  peak, x = float(np.ptp(X)), X.astype(np.float64)
  exact = {
    "gaussian_0.5": 0.25,
    "masking_0.25": 0.25 * np.square(x).mean(),
    "salt_and_pepper_0.1": 0.05 * (np.square(x) + np.square(1 - x)).mean(),
  }
  for name, mse in exact.items():
    assert found()[f"test/psnr_in/{name}"] == pytest.approx(10 * np.log10(peak**2 / mse), abs=0.1)

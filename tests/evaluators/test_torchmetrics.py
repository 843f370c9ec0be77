"""Agreement with torchmetrics up to rounding. Skipped if the extra `benchmark` is not installed."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ae_jax.evaluators import anomaly, features, probe, reconstruction
from ae_jax.ops import losses

torch = pytest.importorskip("torch", reason="torchmetrics needs it; install the extra benchmark")
torchmetrics = pytest.importorskip("torchmetrics", reason="install the extra benchmark")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # PyTorch's own


def images(shape, seed=0):
  """Returns images [N, H, W, C] and a blurred, noisy version of them."""
  generator = np.random.default_rng(seed)
  x = generator.uniform(size=shape).astype(np.float32)
  return x, np.clip(0.7 * x + 0.3 * np.roll(x, 1, 1) + 0.1 * generator.normal(size=shape), 0, 1).astype(np.float32)


def tensor(x):
  """Returns images as a PyTorch tensor [N, C, H, W]."""
  return torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (5, 17, 30, 3)])
def test_squared_error_and_psnr_match(shape):
  x, x_hat = images(shape)
  mse = float(torchmetrics.functional.mean_squared_error(tensor(x_hat), tensor(x)))
  assert np.asarray(losses.squared_error(x_hat, x)).mean() == pytest.approx(mse * x[0].size, rel=1e-5)
  expected = torchmetrics.functional.image.peak_signal_noise_ratio(tensor(x_hat), tensor(x), data_range=1.0)
  assert reconstruction.psnr(mse, 1.0) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (5, 17, 30, 3)])
def test_structural_similarity_matches(shape):
  """Only windows inside the image count; the mean of torchmetrics also counts mirrored windows at the borders."""
  x, x_hat = images(shape)
  _, windows = torchmetrics.functional.image.structural_similarity_index_measure(
    tensor(x_hat).double(), tensor(x).double(), data_range=1.0, return_full_image=True
  )
  expected = windows[..., 5:-5, 5:-5].mean((1, 2, 3))
  np.testing.assert_allclose(losses.structural_similarity(jnp.asarray(x_hat), x, 1.0), expected, atol=1e-5)


def test_auroc_and_auprc_match():
  generator = np.random.default_rng(0)
  score, anomalous = generator.integers(0, 40, 500) / 7, generator.uniform(size=500) < 0.3  # with ties
  tensors = torch.tensor(score), torch.tensor(anomalous.astype(int))
  for function, name in ((anomaly.auroc, "binary_auroc"), (anomaly.auprc, "binary_average_precision")):
    probabilities = tensors[0] / tensors[0].max()
    expected = getattr(torchmetrics.functional.classification, name)(probabilities, tensors[1])
    assert function(score, anomalous) == pytest.approx(float(expected), abs=1e-6)


def test_frechet_distance_matches():
  generator = np.random.default_rng(0)
  a, b = generator.normal(size=(400, 12)), generator.normal(0.3, 1.4, size=(300, 12)) @ generator.normal(size=(12, 12))
  moments = [torch.tensor(moment) for x in (a, b) for moment in (x.mean(0), np.cov(x.T, bias=True))]
  expected = torchmetrics.image.fid._compute_fid(*moments)
  assert features.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_mutual_information_and_rand_index_match():
  from torchmetrics import clustering

  generator = np.random.default_rng(0)
  labels = generator.integers(0, 3, 200)
  points = np.eye(3)[labels] + 0.5 * generator.normal(size=(200, 3))
  clusters = KMeans(3, n_init=probe._STARTS, random_state=0).fit_predict(points)
  tensors = torch.tensor(clusters), torch.tensor(labels)
  expected = [float(clustering.NormalizedMutualInfoScore()(*tensors)), float(clustering.AdjustedRandScore()(*tensors))]
  assert 0.2 < expected[0] < 0.9
  assert probe.agreement(points, points, labels) == pytest.approx(expected, abs=1e-6)

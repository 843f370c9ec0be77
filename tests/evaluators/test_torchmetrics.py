"""The measures that torchmetrics has too, to rounding. Skipped where the extra `benchmark` is not installed."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ae_jax.evaluators import anomaly, features, probe, reconstruction
from ae_jax.ops import losses

torch = pytest.importorskip("torch", reason="torchmetrics needs it, which the extra benchmark brings")
torchmetrics = pytest.importorskip("torchmetrics", reason="it is in the extra benchmark")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # PyTorch's of itself


def images(shape, seed=0):
  """Images [N, H, W, C] and a blurred, noisy version of them."""
  generator = np.random.default_rng(seed)
  x = generator.uniform(size=shape).astype(np.float32)
  return x, np.clip(0.7 * x + 0.3 * np.roll(x, 1, 1) + 0.1 * generator.normal(size=shape), 0, 1).astype(np.float32)


def tensor(x):
  """Images as PyTorch holds them [N, C, H, W]."""
  return torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (5, 17, 30, 3)])
def test_errors_of_reconstructions(shape):
  x, x_hat = images(shape)
  mse = float(torchmetrics.functional.mean_squared_error(tensor(x_hat), tensor(x)))
  assert np.asarray(losses.squared_error(x_hat, x)).mean() == pytest.approx(mse * x[0].size, rel=1e-5)
  wanted = torchmetrics.functional.image.peak_signal_noise_ratio(tensor(x_hat), tensor(x), data_range=1.0)
  assert reconstruction.psnr(mse, 1.0) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (5, 17, 30, 3)])
def test_structural_similarity(shape):
  """Of the windows inside the image: torchmetrics' own mean counts those that stick out, mirrored, too."""
  x, x_hat = images(shape)
  _, windows = torchmetrics.functional.image.structural_similarity_index_measure(
    tensor(x_hat).double(), tensor(x).double(), data_range=1.0, return_full_image=True
  )
  wanted = windows[..., 5:-5, 5:-5].mean((1, 2, 3))
  np.testing.assert_allclose(losses.structural_similarity(jnp.asarray(x_hat), x, 1.0), wanted, atol=1e-5)


def test_areas_under_the_curves_of_anomalies():
  generator = np.random.default_rng(0)
  score, anomalous = generator.integers(0, 40, 500) / 7, generator.uniform(size=500) < 0.3  # with ties
  given = torch.tensor(score), torch.tensor(anomalous.astype(int))
  for mine, theirs in ((anomaly.auroc, "binary_auroc"), (anomaly.auprc, "binary_average_precision")):
    probabilities = given[0] / given[0].max()
    wanted = getattr(torchmetrics.functional.classification, theirs)(probabilities, given[1])
    assert mine(score, anomalous) == pytest.approx(float(wanted), abs=1e-6)


def test_the_frechet_distance():
  generator = np.random.default_rng(0)
  a, b = generator.normal(size=(400, 12)), generator.normal(0.3, 1.4, size=(300, 12)) @ generator.normal(size=(12, 12))
  moments = [torch.tensor(moment) for x in (a, b) for moment in (x.mean(0), np.cov(x.T, bias=True))]
  wanted = torchmetrics.image.fid._compute_fid(*moments)
  assert features.frechet_distance(a, b) == pytest.approx(float(wanted), rel=1e-6)


def test_how_well_clusters_agree_with_labels():
  from torchmetrics import clustering

  generator = np.random.default_rng(0)
  labels = generator.integers(0, 3, 200)
  points = np.eye(3)[labels] + 0.5 * generator.normal(size=(200, 3))
  clusters = KMeans(3, n_init=probe._STARTS, random_state=0).fit_predict(points)
  given = torch.tensor(clusters), torch.tensor(labels)
  wanted = [float(clustering.NormalizedMutualInfoScore()(*given)), float(clustering.AdjustedRandScore()(*given))]
  assert 0.2 < wanted[0] < 0.9
  assert probe.agreement(points, points, labels) == pytest.approx(wanted, abs=1e-6)

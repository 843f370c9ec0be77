"""How well the test set is reconstructed, beside what PCA does with as many numbers.

Where training was on one class, the test examples of that class are what counts; the rest are anomalies, to be told by
their errors (`ae_jax.evaluators.anomaly`).
"""

import math

import numpy as np

from ae_jax import losses
from ae_jax.data import ranges


def check(model, dataset):
  """It applies to any model."""
  del model, dataset


def per_example(model, params, batch, keys, value_range):
  """{"squared_error": [B]} and, in [0, 1], {"nats": [B]}."""
  del keys
  logits = model.reconstruct(params, batch["x"])
  found = {"squared_error": losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), batch["x"])}
  if value_range == "unit":
    found["nats"] = losses.bernoulli_nats(logits, batch["x"])
  return found


def metrics(values, dataset):
  """Generates squared error per example, per pixel, PSNR in dB, and nats."""
  squared_error = _typical(values["squared_error"], dataset).mean(dtype=np.float64)
  mse = float(squared_error / math.prod(dataset.shape))
  yield "test/squared_error", float(squared_error)
  yield "test/mse", mse
  yield "test/psnr", psnr(mse, dataset.peak)
  if "nats" in values:
    yield "test/nats", float(_typical(values["nats"], dataset).mean(dtype=np.float64))


def rulers(dataset, latent):
  """Generates (name, value) of what the metrics are held against; none of it depends on the model."""
  if dataset.value_range == "unit":
    entropy = np.asarray(losses.bernoulli_entropy(ranges.normalise(dataset.test, "unit")))
    yield "test/nats_floor", float(_typical(entropy, dataset).mean(dtype=np.float64))
  yield "test/pca_squared_error", float(_typical(pca_squared_errors(dataset, latent), dataset).mean())


def _typical(values, dataset):
  """Of values over the test set [N], those of examples like the ones that were trained on."""
  return values if dataset.anomalous is None else values[~dataset.anomalous]


def psnr(mse, peak):
  """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mse): infinite for a perfect reconstruction."""
  if mse == 0.0:
    return math.inf
  return 10.0 * math.log10(peak**2 / mse) if math.isfinite(mse) else -mse  # of a model that diverged


def pca_squared_errors(dataset, latent):
  """Squared error of each test example [N] of PCA with `latent` components, fitted on `dataset.train_sample`."""
  from sklearn.decomposition import PCA  # seconds of imports

  train, test = (
    ranges.normalise(half, dataset.value_range).reshape(len(half), -1) for half in (dataset.train_sample, dataset.test)
  )
  components = min(latent, len(train) - 1, train.shape[1])  # N points span N - 1 directions around their mean
  with np.errstate(divide="ignore", invalid="ignore"):  # shares of a variance that is 0: of one image, or of equal ones
    pca = PCA(components, random_state=0).fit(train)
  return np.square(test - pca.inverse_transform(pca.transform(test)), dtype=np.float64).sum(1)

"""How well the test set is reconstructed, beside what PCA does with as many numbers.

Sums come from the device (`steps.evaluate`); the division happens here, once, so that no value depends on how the set
was cut into batches.
"""

import functools
import math

import numpy as np

from ae_jax import losses
from ae_jax.data import ranges


def statistics(model, params, batch, value_range):
  """Per-example numbers to be summed over the test set: {"squared_error": [B]} and, in [0, 1], {"nats": [B]}."""
  logits = model.decode(params, model.encode(params, batch["x"]))
  per_example = {"squared_error": losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), batch["x"])}
  if value_range == "unit":
    per_example["nats"] = losses.bernoulli_nats(logits, batch["x"])
  return per_example


def statistics_for(value_range):
  """`statistics` for a range, as a static argument of `steps.evaluate`."""
  return functools.partial(statistics, value_range=value_range)


def metrics(sums, dataset):
  """Generates (name, value) from the device's sums {name: [batches]} over the test set."""
  examples, pixels = len(dataset.test), math.prod(dataset.shape)
  means = {name: float(np.asarray(values).sum(dtype=np.float64)) / examples for name, values in sums.items()}
  yield "test/loss", means["loss"]
  yield "test/squared_error", means["squared_error"]
  mse = means["squared_error"] / pixels
  yield "test/mse", mse
  yield "test/psnr", psnr(mse, dataset.peak)
  if "nats" in means:
    yield "test/nats", means["nats"]


def rulers(dataset, latent):
  """Generates (name, value) of what the metrics are held against; none of it depends on the model."""
  if dataset.value_range == "unit":
    entropy = np.asarray(losses.bernoulli_entropy(ranges.normalise(dataset.test, "unit")))
    yield "test/nats_floor", float(entropy.mean(dtype=np.float64))
  yield "test/pca_squared_error", pca_squared_error(dataset, latent)


def psnr(mse, peak):
  """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mse); infinite for a perfect reconstruction."""
  return 10.0 * math.log10(peak**2 / mse) if mse else math.inf


def pca_squared_error(dataset, latent):
  """Mean squared error per test image of PCA with `latent` components, fitted on the training images."""
  from sklearn.decomposition import PCA  # seconds of imports

  train, test = (
    ranges.normalise(images, dataset.value_range).reshape(len(images), -1) for images in (dataset.train, dataset.test)
  )
  components = min(latent, len(train) - 1, train.shape[1])  # N points span N - 1 directions around their mean
  with np.errstate(divide="ignore", invalid="ignore"):  # shares of a variance that is 0: of one image, or of equal ones
    pca = PCA(components, random_state=0).fit(train)
  residual = test - pca.inverse_transform(pca.transform(test))
  return float(np.square(residual, dtype=np.float64).sum() / len(test))

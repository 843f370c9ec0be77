"""Reconstruction errors on the test set, and the errors of baselines such as PCA with the same latent size.

If the model was trained on one class, the metrics are computed over the test examples of this class. The other test
examples are anomalies; see `ae_jax.evaluators.anomaly`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float64, Shaped

from ae_jax import data, models
from ae_jax.data import ranges
from ae_jax.evaluators import base, figures
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.ops import losses
from ae_jax.runs import metric_names
from ae_jax.types import AnyArray, Keys

SHOWN = 16  # maximum number of examples in a figure
KINDS = {3: "series", 4: "test images"}  # number of axes of the examples -> their name in figures
_MAX_EXACT = (
  1000  # elements of an example up to which an exact PCA solver is used, which is faster than a randomised one
)
_MAX_BITS = 8  # maximum number of bits of a component of quantised PCA
_MAX_CLASSES = 100  # maximum number of classes for which the error of each class is reported
_BASELINES = ("nats_floor", "pca_squared_error", "pca_quantised_squared_error", "mean_predictor_squared_error")


def per_example(
  model: models.Model,
  variables: models.Variables,
  batch: Mapping[str, AnyArray],
  keys: Keys,
  value_range: str,
  span: Any,
) -> dict[str, Float[Array, " batch"]]:
  """Returns {"squared_error": [B]} and, for data in [0, 1], {"nats": [B]}."""
  del keys, span
  logits = model.reconstruct(variables, batch["x"], batch)
  values = {"squared_error": losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), batch["x"])}
  if value_range == "unit":
    values["nats"] = losses.bernoulli_nats(logits, batch["x"])
  return values


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, Any]]:
  """Yields the squared error per example, the mean squared error per element, the PSNR in dB, and nats per example."""
  squared_error = trained_class_only(values["squared_error"], dataset).mean(dtype=np.float64)
  mse = float(squared_error / math.prod(dataset.shape))
  yield "test/squared_error", float(squared_error)
  yield "test/mse", mse
  yield "test/psnr", psnr(mse, dataset.peak)
  if "nats" in values:
    yield "test/nats", float(trained_class_only(values["nats"], dataset).mean(dtype=np.float64))


def baselines(dataset: data.Dataset, code: models.CodeSpec) -> Iterator[tuple[str, float]]:
  """Yields (name, value) of the baselines. They depend on the model only by the size of its latent code.

  PCA has as many components as the latent code has elements. If the code is discrete, there is also a quantised PCA
  with the same number of bits.
  """
  if dataset.value_range == "unit":
    entropy = np.asarray(losses.bernoulli_entropy(ranges.normalise(dataset.test, "unit")))
    yield "test/nats_floor", float(trained_class_only(entropy, dataset).mean(dtype=np.float64))
  yield "test/pca_squared_error", float(trained_class_only(pca_squared_errors(dataset, code.size), dataset).mean())
  if code.bits is not None:
    errors = quantised_pca_squared_errors(dataset, code.bits)
    yield "test/pca_quantised_squared_error", float(trained_class_only(errors, dataset).mean())
  yield (
    "test/mean_predictor_squared_error",
    float(trained_class_only(mean_predictor_squared_errors(dataset), dataset).mean()),
  )


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the metrics and their baselines, bits per dimension, SSIM, errors by class, and figures."""
  dataset, model = context.dataset, context.run.model
  value_range = dataset.value_range
  values = {"squared_error": context.squared_errors}
  if value_range == "unit":
    values |= context.map_examples(
      lambda variables, x, columns, keys: {"nats": losses.bernoulli_nats(model.reconstruct(variables, x, columns), x)},
      context.test,
      context.columns("test"),
    )
  results = {name.removeprefix("test/"): value for name, value in metrics(values, dataset)}
  known = context.baselines or dict(baselines(dataset, model.code))
  results |= {name: known[f"test/{name}"] for name in _BASELINES if f"test/{name}" in known}
  pca = metric_names.pca_key(known).removeprefix("test/")
  over_pca = ratio(results["squared_error"], results[pca])
  undefined = "the ratio to the error of PCA is undefined: the error of PCA is 0"
  results["squared_error_over_pca"] = undefined if math.isnan(over_pca) else over_pca
  if value_range == "unit":
    to_bits = 1.0 / (math.prod(dataset.shape) * math.log(2.0))
    results["bits_per_dimension"] = results["nats"] * to_bits
    results["bits_per_dimension_floor"] = results["nats_floor"] * to_bits
  yield from results.items()
  yield "ssim", _ssim(context)
  yield from _by_class(context)
  yield from _figures(context)


def _ssim(context: EvalContext) -> float | str:
  """Returns the mean SSIM of the test images, or a remark that says why it is undefined."""
  shape, low, peak = context.dataset.shape, context.dataset.span.low, context.dataset.peak
  if len(shape) == 2:
    return "SSIM is undefined for series: it compares windows of images"
  if min(shape[:2]) < losses.SSIM_WINDOW:
    window = f"{losses.SSIM_WINDOW} x {losses.SSIM_WINDOW}"
    return f"SSIM is undefined for images of {shape[0]} x {shape[1]} pixels: its window has {window} pixels"
  similarity = context.map_examples(
    lambda variables, x_hat, x, keys: losses.structural_similarity(x_hat - low, x - low, peak),
    *(trained_class_only(images, context.dataset) for images in (context.reconstructions, context.test)),
  )
  return float(similarity.mean(dtype=np.float64))


def _by_class(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the squared error of the test examples of each class."""
  if context.test_labels is None:
    yield "by_class", "errors by class are omitted: the test set has no integer labels"
    return
  labels, squared_errors = (
    trained_class_only(values, context.dataset) for values in (context.test_labels, context.squared_errors)
  )
  classes = np.unique(labels)
  if len(classes) > _MAX_CLASSES:
    yield (
      "by_class",
      f"errors by class are omitted: the test set has {len(classes)} classes, and the limit is {_MAX_CLASSES}",
    )
    return
  means = np.array([squared_errors[labels == label].mean() for label in classes])
  for label, mean in zip(classes, means, strict=True):
    yield f"squared_error/class_{label}", float(mean)
  title = "Mean squared error per example, for each class of the test set"
  names = tuple(map(context.dataset.class_name, classes))
  yield "squared_error_by_class", figures.Bars(title, names, means, "class", "squared error per example")


def _figures(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields figures: evenly spaced, worst and best reconstructions, the error of each pixel, and attention weights."""
  indices = trained_class_only(np.arange(len(context.test)), context.dataset)
  order = indices[np.argsort(context.squared_errors[indices], kind="stable")]
  typical = indices[spaced(SHOWN, len(indices))]
  choices = {
    "reconstructions": (typical, "Evenly spaced test examples and their reconstructions"),
    "worst": (order[::-1][:SHOWN], "The test examples with the largest squared errors, in descending order"),
    "best": (order[:SHOWN], "The test examples with the smallest squared errors, in ascending order"),
  }
  for name, (chosen, title) in choices.items():
    rows = {KINDS[context.test.ndim]: context.test[chosen], "reconstructions": context.reconstructions[chosen]}
    yield name, figures.ExampleRows(title, rows)
  squares = np.square(context.reconstructions[indices] - context.test[indices]).mean(0, dtype=np.float64).sum(-1)
  place = "pixel" if context.test.ndim == 4 else "step"
  title = f"Mean squared error per {place} over the test set"
  yield "error_map", figures.Heatmap(title, "squared error", squares)
  weights = context.attention(typical)
  if weights:
    yield "attention", figures.Attention("Attention weights of the encoder", context.test[typical], weights)


def trained_class_only(
  values: Shaped[np.ndarray, "examples ..."], dataset: data.Dataset
) -> Shaped[np.ndarray, "normal ..."]:
  """Returns the rows of `values` that belong to normal test examples; all rows if there is no normal class.

  `values` holds one row per test example.
  """
  return values if dataset.anomalous is None else values[~dataset.anomalous]


def psnr(mse: float, peak: float) -> float:
  """Returns the peak signal-to-noise ratio in dB, 10 log10(peak^2 / mse); infinite for a perfect reconstruction."""
  if mse == 0.0:
    return math.inf
  return 10.0 * math.log10(peak**2 / mse) if math.isfinite(mse) else -mse  # not finite if the training diverged


def ratio(error: float, baseline: float) -> float:
  """Returns `error / baseline`, or NaN if the baseline is 0."""
  return error / baseline if baseline else math.nan


def pca_squared_errors(dataset: data.Dataset, latent: int) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of PCA with `latent` components for each test example.

  PCA is fitted to `dataset.train_sample`. For large examples it uses a randomised solver, whose error is slightly above
  the minimum.
  """
  train, test = (ranges.normalise(split, dataset.value_range) for split in (dataset.train_sample, dataset.test))
  return np.square(test - pca(train, latent)(test), dtype=np.float64).reshape(len(test), -1).sum(1)


def quantised_pca_squared_errors(dataset: data.Dataset, bits: float) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of PCA with uniformly quantised components for each test example.

  PCA is fitted to `dataset.train_sample`. The range of each of the `bits` / b leading components in training is divided
  into 2^b equal intervals, and the component is rounded to the centre of its interval. The b from 1 to 8 with the
  smallest training error is used. The directions of the components are orthonormal, so the squared error is the sum of
  the squared errors of the components and the squared norm of the residual outside their span.
  """
  train, test = (
    ranges.normalise(split, dataset.value_range).reshape(len(split), -1)
    for split in (dataset.train_sample, dataset.test)
  )
  fitted = fitted_pca(train, int(min(bits, train.shape[1])))
  low, high, splits = None, None, []
  for split in (train, test):
    codes = fitted.transform(split).astype(np.float64)
    residual = np.square(split - fitted.mean_, dtype=np.float64).sum(1) - np.square(codes).sum(1)
    low, high = (codes.min(0), codes.max(0)) if low is None else (low, high)
    splits.append((codes, np.maximum(residual, 0.0)))
  candidates = []
  for b in range(1, min(_MAX_BITS, int(bits)) + 1):
    kept = min(int(bits // b), len(low))
    candidates.append([residual + _quantisation_errors(codes, low, high, 2**b, kept) for codes, residual in splits])
  return min(candidates, key=lambda errors: errors[0].mean())[1]


def _quantisation_errors(
  codes: Float64[np.ndarray, "examples components"],
  low: Float64[np.ndarray, " components"],
  high: Float64[np.ndarray, " components"],
  levels: int,
  kept: int,
) -> Float64[np.ndarray, " examples"]:
  """Returns the squared errors if the first `kept` components are rounded to `levels` values, and the rest to 0."""
  quantised, low, high = codes[:, :kept], low[:kept], high[:kept]
  width = np.where(high > low, (high - low) / levels, 1.0)
  cell = np.clip(np.floor((quantised - low) / width), 0, levels - 1)
  return np.square(quantised - low - (cell + 0.5) * width).sum(1) + np.square(codes[:, kept:]).sum(1)


def mean_predictor_squared_errors(dataset: data.Dataset) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of each test example if the prediction is the mean of `dataset.train_sample`.

  The mean is rounded to float32, so a test example that equals all training examples has an error of exactly 0.
  """
  train, test = (ranges.normalise(split, dataset.value_range) for split in (dataset.train_sample, dataset.test))
  mean = train.mean(0, dtype=np.float64).astype(np.float32)
  return np.square(test - mean, dtype=np.float64).reshape(len(test), -1).sum(1)


def pca(train: Float[np.ndarray, "examples ..."], latent: int) -> Callable[[np.ndarray], np.ndarray]:
  """Fits PCA with `latent` components; returns the function that maps examples to their reconstructions."""
  fitted = fitted_pca(train.reshape(len(train), -1), latent)
  return lambda x: fitted.inverse_transform(fitted.transform(x.reshape(len(x), -1))).reshape(x.shape)


def fitted_pca(train: Float[np.ndarray, "examples elements"], latent: int) -> Any:
  """Returns a scikit-learn PCA with `latent` components, or fewer if the examples do not have as many."""
  from sklearn.decomposition import PCA  # seconds of imports

  solver = "covariance_eigh" if train.shape[1] <= _MAX_EXACT else "auto"
  components = min(latent, len(train) - 1, train.shape[1])  # N points span N - 1 directions around their mean
  with np.errstate(divide="ignore", invalid="ignore"):  # PCA divides by the total variance, which is 0 for equal images
    return PCA(components, svd_solver=solver, random_state=0).fit(train)


EVALUATOR = base.Evaluator(
  name="reconstruction",
  per_example=per_example,
  metrics=metrics,
  baselines=baselines,
  analyses=(base.Analysis(analyze),),
)

"""Reconstruction errors on the test set, and the errors of baselines such as PCA with the same latent size.

If the model was trained on one class, the metrics are computed over the test examples of this class. The other test
examples are anomalies; see `ae_jax.evaluators.anomaly`.

Reconstructions are compared with the targets of the examples if the data have targets. Elements that were not observed
are ignored. If the test examples have weights, the means over them are weighted.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float64, Int, Shaped

from ae_jax import data, models, objectives
from ae_jax.data import lazy_arrays, ranges
from ae_jax.decisions import thresholds
from ae_jax.evaluators import base, columns, figures, outputs, pca, recordings, shown
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.ops import losses
from ae_jax.runs import metric_names
from ae_jax.types import AnyArray, Keys

_MAX_COLUMNS = 100  # maximum number of columns of a table for which the error of each column is reported
_MAX_CLASSES = 100  # maximum number of classes for which the error of each class is reported
_BASELINES = (
  "nats_floor",
  "pca_squared_error",
  "pca_quantised_squared_error",
  "mean_predictor_squared_error",
  "input_squared_error",
  "input_psnr",
)


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
  compared = objectives.compared(batch)
  values = {"squared_error": losses.squared_error(model.outputs(logits, value_range), *compared)}
  if value_range == "unit":
    values["nats"] = losses.bernoulli_nats(logits, *compared)
  return values


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, Any]]:
  """Yields the squared error per example and the MSE per element, and, if defined, PSNR (dB) and cross-entropy."""
  squared_error = mean_over_test(values["squared_error"], dataset)
  yield "test/squared_error", squared_error
  yield "test/mse", (mse := squared_error / _elements(dataset))
  if dataset.has_peak:
    yield "test/psnr", psnr(mse, dataset.peak)
  if "nats" in values:
    yield "test/nats", mean_over_test(values["nats"], dataset)


def _elements(dataset: data.Dataset) -> float | int:
  """Returns the mean number of observed elements of a test example."""
  return math.prod(dataset.shape) if dataset.test_observed is None else mean_over_test(dataset.test_observed, dataset)


def baselines(dataset: data.Dataset, code: models.CodeSpec) -> Iterator[tuple[str, float]]:
  """Yields (name, value) of the baselines. They do not use the model, only the size of its latent code.

  PCA has as many components as the latent code has elements. If the code is discrete, there is also a quantised PCA
  with the same number of bits. If the data have targets, the input itself is a baseline, too.
  """
  if dataset.value_range == "unit":
    targets, mask = dataset.test_targets, dataset.column("test", "mask")
    observed = () if mask is None else (lazy_arrays.load_all(mask).astype(np.float32),)
    entropy = np.asarray(losses.bernoulli_entropy(ranges.normalise(targets, "unit"), *observed))
    yield "test/nats_floor", mean_over_test(entropy, dataset)
  errors = pca.squared_errors(dataset, lambda train: pca.fit(train, code.size))
  yield "test/pca_squared_error", mean_over_test(errors, dataset)
  if code.bits is not None:
    errors = pca.baseline_squared_errors(dataset, code)
    yield "test/pca_quantised_squared_error", mean_over_test(errors, dataset)
  yield "test/mean_predictor_squared_error", mean_over_test(mean_predictor_squared_errors(dataset), dataset)
  if "target" in dataset.column_names:
    squared_error = mean_over_test(_squared_errors(losses.flat(dataset.test), dataset), dataset)
    yield "test/input_squared_error", squared_error
    if dataset.has_peak:
      yield "test/input_psnr", psnr(squared_error / _elements(dataset), dataset.peak)


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the metrics and their baselines, bits per dimension, SSIM, errors by class, and figures."""
  dataset, model = context.dataset, context.run.model
  value_range = dataset.value_range
  values = {"squared_error": context.squared_errors}
  if value_range == "unit":

    def nats(variables, x, columns, loss_columns, keys):
      compared = objectives.compared({"x": x, **loss_columns})
      return {"nats": losses.bernoulli_nats(model.reconstruct(variables, x, columns), *compared)}

    values |= context.map_examples(nats, context.test, context.columns("test"), context.test_loss_columns)
  results = {name.removeprefix("test/"): value for name, value in metrics(values, dataset)}
  known = context.baselines or dict(baselines(dataset, model.code))
  results |= {name: known[f"test/{name}"] for name in _BASELINES if f"test/{name}" in known}
  baseline = metric_names.pca_key(known).removeprefix("test/")
  over_pca = ratio(results["squared_error"], results[baseline])
  undefined = "the ratio to the error of PCA is undefined: the error of PCA is 0"
  results["squared_error_over_pca"] = undefined if math.isnan(over_pca) else over_pca
  if value_range == "unit":
    to_bits = 1.0 / (_elements(dataset) * math.log(2.0))
    results["bits_per_dimension"] = results["nats"] * to_bits
    results["bits_per_dimension_floor"] = results["nats_floor"] * to_bits
  yield from results.items()
  if dataset.kind == "images":
    yield "ssim", _ssim(context)
  yield from outputs.analyze(context)
  yield from _by_class(context)
  yield from _by_column(context)
  yield from _figures(context)


def _ssim(context: EvalContext) -> float | str:
  """Returns the mean SSIM of the test images, or a note that says why it is undefined."""
  shape, low, peak = context.dataset.shape, context.dataset.span.low, context.dataset.peak
  if min(shape[:2]) < losses.SSIM_WINDOW:
    window = f"{losses.SSIM_WINDOW} x {losses.SSIM_WINDOW}"
    return f"SSIM is undefined for images of {shape[0]} x {shape[1]} pixels: its window has {window} pixels"
  if context.mask is not None:
    return "SSIM is not computed: it compares windows of pixels, and not all pixels are observed"
  similarity = context.map_examples(
    lambda variables, x_hat, x, keys: losses.structural_similarity(x_hat - low, x - low, peak),
    *(trained_class_only(images, context.dataset) for images in (context.reconstructions, context.targets)),
  )
  return float(np.average(similarity.astype(np.float64), weights=_weights(context.dataset)))


def _by_class(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the squared error of the test examples of each class."""
  if context.test_labels is None:
    missing = "labels" if context.dataset.test_labels is None else "integer labels"
    yield "by_class", f"errors by class are omitted: the test set has no {missing}"
    return
  labels, squared_errors = (
    trained_class_only(values, context.dataset) for values in (context.test_labels, context.squared_errors)
  )
  classes = np.unique(labels)
  if len(classes) > _MAX_CLASSES:
    note = f"errors by class are omitted: the test set has {len(classes)} classes, and the limit is {_MAX_CLASSES}"
    yield "by_class", note
    return
  weights = _weights(context.dataset)
  weights = np.ones(len(labels)) if weights is None else weights
  rows = [labels == label for label in classes]
  means = np.array([np.average(squared_errors[chosen], weights=weights[chosen]) for chosen in rows])
  for label, mean in zip(classes, means, strict=True):
    yield f"squared_error/class_{label}", float(mean)
  if len(classes) == 1:
    return
  title = f"Mean squared error per example, for each class of the {context.tested}"
  names = tuple(map(context.dataset.class_name, classes))
  yield "squared_error_by_class", figures.Bars(title, names, means, "class", "squared error per example")


def _by_column(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the mean squared error of each column of a table, in the units of the model's input.

  If the columns have names, `columns.analyze` yields the errors instead.
  """
  schema = context.dataset.schema
  if schema is not None:
    yield from columns.analyze(context, trained_class_only(np.arange(len(context.test)), context.dataset))
  if (
    (schema is not None and schema.named) or context.dataset.kind != "table" or context.dataset.shape[0] > _MAX_COLUMNS
  ):
    return
  means = _means_over_observed(context, trained_class_only(np.arange(len(context.test)), context.dataset))
  for column, mean in enumerate(means):
    yield f"squared_error/column_{column}", float(mean)
  title, names = f"Mean squared error of each column over the {context.tested}", tuple(map(str, range(len(means))))
  yield "squared_error_by_column", figures.Bars(title, names, means, "column", "squared error")


def _figures(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields figures: evenly spaced, worst and best reconstructions, the error of each pixel, and attention weights."""
  indices = trained_class_only(np.arange(len(context.test)), context.dataset)
  order = indices[np.argsort(context.squared_errors[indices], kind="stable")]
  typical = indices[spaced(shown.SHOWN, len(indices))]
  title = f"Evenly spaced {context.tested} and their reconstructions"
  yield "reconstructions", shown.example_rows(context, title, typical)
  largest, smallest = "largest squared errors, in descending order", "smallest squared errors, in ascending order"
  half = len(order) // 2  # no example is in both figures
  halves = ("worst", order[half:][::-1], largest), ("best", order[:half], smallest)
  for name, ordered, words in halves if half else halves[:1]:
    chosen = context.dataset.test_apart(ordered, shown.SHOWN)
    title = f"The {context.tested} with the {words}"
    title += "" if np.array_equal(chosen, ordered[: shown.SHOWN]) else ", without windows that overlap these"
    yield name, shown.example_rows(context, title, chosen)
  if context.dataset.test_start is not None and not np.any(context.dataset.anomalous):
    threshold, _ = thresholds.of_run(context.run)
    yield from recordings.analyze(context, threshold)  # otherwise, the evaluator `anomaly` yields this figure
  if context.dataset.kind != "table":
    yield "error_map", _error_map(context, indices)
  if weights := context.attention(typical):
    examples, missing = shown.marked(context, typical)
    title, captions = f"Attention weights of the encoder{missing}", context.dataset.test_captions(typical)
    yield "attention", figures.Attention(title, examples, weights, captions=captions)


def _means_over_observed(context: EvalContext, chosen: Int[np.ndarray, " chosen"]) -> Float64[np.ndarray, "..."]:
  """Returns the mean squared error of each element over the test examples at `chosen` in which it is observed.

  It is 0 for elements that are never observed.
  """
  weights = context.dataset.column("test", "weight")
  weights = None if weights is None else weights[chosen].astype(np.float64)
  means = np.average(context.squares(context.reconstructions[chosen], chosen), axis=0, weights=weights)
  if context.mask is None:
    return means
  observed = np.average(context.mask[chosen].astype(np.float64), axis=0, weights=weights)
  return np.divide(means, observed, out=np.zeros_like(means), where=observed > 0)


def _error_map(context: EvalContext, indices: Int[np.ndarray, " chosen"]) -> figures.Heatmap:
  """Returns the mean squared error of each pixel or time step; for volumes, the mean over the first axis."""
  squares = _means_over_observed(context, indices).sum(-1)
  place = "time step" if context.dataset.kind == "series" else "pixel"
  title = f"Mean squared error per {place} over the {context.tested}"
  title += ", summed over the channels" if context.test.shape[-1] > 1 else ""
  title += ", averaged over the first axis of the volumes" if squares.ndim == 3 else ""
  return figures.Heatmap(title, "squared error", squares.mean(0) if squares.ndim == 3 else squares)


def trained_class_only(
  values: Shaped[np.ndarray, "examples ..."], dataset: data.Dataset
) -> Shaped[np.ndarray, "normal ..."]:
  """Returns the rows of `values` that belong to normal test examples; all rows if there is no normal class.

  `values` holds one row per test example.
  """
  return values if dataset.anomalous is None else values[~dataset.anomalous]


def mean_over_test(values: Shaped[np.ndarray, " examples"], dataset: data.Dataset) -> float:
  """Returns the mean of a value over the test examples of the trained class, weighted if they have weights."""
  values, weights = trained_class_only(values, dataset), _weights(dataset)
  return float(values.mean(dtype=np.float64) if weights is None else np.average(values, weights=weights))


def _weights(dataset: data.Dataset) -> Float64[np.ndarray, " normal"] | None:
  """Returns the weights of the test examples of the trained class; None if they have no weights."""
  weights = dataset.column("test", "weight")
  return None if weights is None else trained_class_only(weights, dataset).astype(np.float64)


def psnr(mse: float, peak: float) -> float:
  """Returns the peak signal-to-noise ratio in dB, 10 log10(peak^2 / mse); infinite for a perfect reconstruction."""
  if mse == 0.0:
    return math.inf
  return 10.0 * math.log10(peak**2 / mse) if math.isfinite(mse) else -mse  # not finite if the training diverged


def ratio(error: float, baseline: float) -> float:
  """Returns `error / baseline`, or NaN if the baseline is 0."""
  return error / baseline if baseline else math.nan


def mean_predictor_squared_errors(dataset: data.Dataset) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of each test example if the prediction is the mean of `pca.training_examples`."""
  return _squared_errors(pca.mean(pca.training_examples(dataset)), dataset)


def _squared_errors(
  predictions: Shaped[np.ndarray, "... elements"], dataset: data.Dataset
) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of each test example, given one prediction per example or one prediction for all."""
  targets, mask = losses.flat(dataset.test_targets), dataset.column("test", "mask")
  targets, predictions = (ranges.normalise(values, dataset.value_range) for values in (targets, predictions))
  squares = np.square(targets - predictions, dtype=np.float64)
  return (squares if mask is None else squares * losses.flat(mask)).sum(1)


EVALUATOR = base.Evaluator(
  name="reconstruction",
  per_example=per_example,
  uses_span=False,
  metrics=metrics,
  baselines=baselines,
  analyses=(base.Analysis(analyze),),
)

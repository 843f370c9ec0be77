"""How well the test set is reconstructed, beside what PCA does with as many numbers.

Where training was on one class, the test examples of that class are what counts; the rest are anomalies, to be told by
their errors (`ae_jax.evaluators.anomaly`).
"""

import math

import numpy as np

from ae_jax.data import ranges
from ae_jax.evaluators import base, figures
from ae_jax.evaluators.context import shown
from ae_jax.ops import losses
from ae_jax.runs import metric_names

SHOWN = 16  # examples in a picture
KINDS = {3: "series", 4: "test images"}  # what examples are called in it, by the axes of their array
_EXACT = 1000  # numbers of an example up to which PCA's components are exact, and found faster than good ones
_MOST_BITS = 8  # of a component of quantised PCA
_MOST_CLASSES = 100  # that have an error of their own
_RULERS = ("nats_floor", "pca_squared_error", "pca_quantised_squared_error", "mean_predictor_squared_error")


def per_example(model, variables, batch, keys, value_range, span):
  """Returns {"squared_error": [B]} and, in [0, 1], {"nats": [B]}."""
  del keys, span
  logits = model.reconstruct(variables, batch["x"], batch)
  found = {"squared_error": losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), batch["x"])}
  if value_range == "unit":
    found["nats"] = losses.bernoulli_nats(logits, batch["x"])
  return found


def metrics(values, dataset):
  """Generates squared error per example, per pixel, PSNR in dB, and nats."""
  squared_error = typical(values["squared_error"], dataset).mean(dtype=np.float64)
  mse = float(squared_error / math.prod(dataset.shape))
  yield "test/squared_error", float(squared_error)
  yield "test/mse", mse
  yield "test/psnr", psnr(mse, dataset.peak)
  if "nats" in values:
    yield "test/nats", float(typical(values["nats"], dataset).mean(dtype=np.float64))


def baselines(dataset, code):
  """Generates (name, value) of the baselines, which depend on the budget of the `models.CodeSpec` alone.

  PCA has as many numbers as the code; for a discrete code there is also PCA with as many bits.
  """
  if dataset.value_range == "unit":
    entropy = np.asarray(losses.bernoulli_entropy(ranges.normalise(dataset.test, "unit")))
    yield "test/nats_floor", float(typical(entropy, dataset).mean(dtype=np.float64))
  yield "test/pca_squared_error", float(typical(pca_squared_errors(dataset, code.numbers), dataset).mean())
  if code.bits is not None:
    errors = quantised_pca_squared_errors(dataset, code.bits)
    yield "test/pca_quantised_squared_error", float(typical(errors, dataset).mean())
  yield "test/mean_predictor_squared_error", float(typical(mean_predictor_squared_errors(dataset), dataset).mean())


def analyze(context):
  """Generates the metrics and their baselines, bits per dimension, SSIM, errors by class, and pictures of all this."""
  dataset, model = context.dataset, context.run.model
  value_range = dataset.value_range
  values = {"squared_error": context.squared_errors}
  if value_range == "unit":
    values |= context.each(
      lambda variables, x, given, keys: {"nats": losses.bernoulli_nats(model.reconstruct(variables, x, given), x)},
      context.test,
      context.given("test"),
    )
  found = {name.removeprefix("test/"): value for name, value in metrics(values, dataset)}
  known = context.baselines or dict(baselines(dataset, model.code))
  found |= {name: known[f"test/{name}"] for name in _RULERS if f"test/{name}" in known}
  pca = metric_names.pca_key(known).removeprefix("test/")
  over_pca = ratio(found["squared_error"], found[pca])
  found["squared_error_over_pca"] = "PCA's error is 0: there is no ratio to it" if math.isnan(over_pca) else over_pca
  if value_range == "unit":
    to_bits = 1.0 / (math.prod(dataset.shape) * math.log(2.0))
    found |= {"bits_per_dimension": found["nats"] * to_bits, "bits_per_dimension_floor": found["nats_floor"] * to_bits}
  yield from found.items()
  yield "ssim", _ssim(context)
  yield from _by_class(context)
  yield from _pictures(context)


def _ssim(context):
  """The mean SSIM of the test images, or why they have none."""
  shape, least, peak = context.dataset.shape, context.dataset.span.low, context.dataset.peak
  if len(shape) == 2:
    return "series have no SSIM, which compares the windows of images"
  if min(shape[:2]) < losses.SSIM_WINDOW:
    return f"images of {shape[0]} x {shape[1]} pixels have no SSIM, whose window has {losses.SSIM_WINDOW} on a side"
  similarity = context.each(
    lambda params, x_hat, x, keys: losses.structural_similarity(x_hat - least, x - least, peak),
    *(typical(images, context.dataset) for images in (context.reconstructed, context.test)),
  )
  return float(similarity.mean(dtype=np.float64))


def _by_class(context):
  """Generates the squared error of the test examples of each class."""
  if context.test_labels is None:
    yield "by_class", "the data set has no integer labels: there are no classes whose errors could be told apart"
    return
  labels, squared_errors = (typical(each, context.dataset) for each in (context.test_labels, context.squared_errors))
  classes = np.unique(labels)
  if len(classes) > _MOST_CLASSES:
    yield "by_class", f"the test set has {len(classes)} classes; of more than {_MOST_CLASSES} errors are not told apart"
    return
  means = np.array([squared_errors[labels == label].mean() for label in classes])
  for label, mean in zip(classes, means, strict=True):
    yield f"squared_error/class_{label}", float(mean)
  title = "the squared reconstruction error of each class, mean over its test examples"
  names = tuple(map(str, classes))
  yield "squared_error_by_class", figures.Bars(title, names, means, "class", "squared error per example")


def _pictures(context):
  """Generates typical, worst and best reconstructions, where in the image the errors are, and where attention looks."""
  numbers = typical(np.arange(len(context.test)), context.dataset)
  order = numbers[np.argsort(context.squared_errors[numbers], kind="stable")]
  spread = numbers[shown(SHOWN, len(numbers))]
  choices = {
    "reconstructions": (spread, "test examples at even distances, and what the model makes of them"),
    "worst": (order[::-1][:SHOWN], "the test examples with the largest error, the worst first"),
    "best": (order[:SHOWN], "the test examples with the smallest error, the best first"),
  }
  for name, (chosen, title) in choices.items():
    rows = {KINDS[context.test.ndim]: context.test[chosen], "reconstructions": context.reconstructed[chosen]}
    yield name, figures.ExampleRows(title, rows)
  squares = np.square(context.reconstructed[numbers] - context.test[numbers]).mean(0, dtype=np.float64).sum(-1)
  yield "error_map", figures.Heatmap("where the errors are: the mean over the test set", "squared error", squares)
  weights = context.attention(spread)
  if weights:
    yield "attention", figures.Attention("where attention looks", context.test[spread], weights)


def typical(values, dataset):
  """Of values over the test set [N], those of examples like the ones that were trained on."""
  return values if dataset.anomalous is None else values[~dataset.anomalous]


def psnr(mse, peak):
  """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mse): infinite for a perfect reconstruction."""
  if mse == 0.0:
    return math.inf
  return 10.0 * math.log10(peak**2 / mse) if math.isfinite(mse) else -mse  # of a model that diverged


def ratio(error, baseline):
  """Returns an error divided by that of a baseline; NaN where the baseline's is 0."""
  return error / baseline if baseline else math.nan


def pca_squared_errors(dataset, latent):
  """Squared error of each test example [N] of PCA with `latent` components, fitted on `dataset.train_sample`.

  Of examples with many numbers the components are those of a randomised method, a hair worse than the best.
  """
  train, test = (ranges.normalise(half, dataset.value_range) for half in (dataset.train_sample, dataset.test))
  return np.square(test - pca(train, latent)(test), dtype=np.float64).reshape(len(test), -1).sum(1)


def quantised_pca_squared_errors(dataset, bits):
  """Returns the squared error of each test example [N] of PCA whose components are uniformly quantised.

  Each component is rounded to the centre of one of 2^b equal intervals between its extremes in training. Of b = 1 to 8
  bits for each of the `bits` / b leading components the b with the smallest training error is used. Fitted on
  `dataset.train_sample`. The components are orthonormal, so the error is the sum of the errors of the components and
  of what lies outside their span.
  """
  train, test = (
    ranges.normalise(half, dataset.value_range).reshape(len(half), -1) for half in (dataset.train_sample, dataset.test)
  )
  fitted = fitted_pca(train, int(min(bits, train.shape[1])))
  low, high, halves = None, None, []
  for half in (train, test):
    codes = fitted.transform(half).astype(np.float64)
    outside = np.square(half - fitted.mean_, dtype=np.float64).sum(1) - np.square(codes).sum(1)
    low, high = (codes.min(0), codes.max(0)) if low is None else (low, high)
    halves.append((codes, np.maximum(outside, 0.0)))
  found = []
  for each in range(1, min(_MOST_BITS, int(bits)) + 1):
    kept = min(int(bits // each), len(low))
    found.append([rest + _quantisation_errors(codes, low, high, 2**each, kept) for codes, rest in halves])
  return min(found, key=lambda errors: errors[0].mean())[1]


def _quantisation_errors(codes, low, high, levels, kept):
  """Returns the squared error [N] of codes whose first `kept` numbers are rounded to `levels` values, others to 0."""
  coded, low, high = codes[:, :kept], low[:kept], high[:kept]
  width = np.where(high > low, (high - low) / levels, 1.0)
  cell = np.clip(np.floor((coded - low) / width), 0, levels - 1)
  return np.square(coded - low - (cell + 0.5) * width).sum(1) + np.square(codes[:, kept:]).sum(1)


def mean_predictor_squared_errors(dataset):
  """Squared error of each test example [N] of the mean of `dataset.train_sample`, predicted for all of them.

  It is exactly 0 for test examples that are equal to all training examples: the mean is rounded to float32.
  """
  train, test = (ranges.normalise(half, dataset.value_range) for half in (dataset.train_sample, dataset.test))
  mean = train.mean(0, dtype=np.float64).astype(np.float32)
  return np.square(test - mean, dtype=np.float64).reshape(len(test), -1).sum(1)


def pca(train, latent):
  """PCA with `latent` components, fitted on examples [N, ...]: a function from examples to their reconstructions."""
  fitted = fitted_pca(train.reshape(len(train), -1), latent)
  return lambda x: fitted.inverse_transform(fitted.transform(x.reshape(len(x), -1))).reshape(x.shape)


def fitted_pca(train, latent):
  """scikit-learn's PCA with `latent` components, or as many as there are, fitted on examples [N, elements]."""
  from sklearn.decomposition import PCA  # seconds of imports

  solver = "covariance_eigh" if train.shape[1] <= _EXACT else "auto"
  components = min(latent, len(train) - 1, train.shape[1])  # N points span N - 1 directions around their mean
  with np.errstate(divide="ignore", invalid="ignore"):  # shares of a variance that is 0: of one image, or of equal ones
    return PCA(components, svd_solver=solver, random_state=0).fit(train)


EVALUATOR = base.Evaluator(
  name="reconstruction",
  per_example=per_example,
  metrics=metrics,
  baselines=baselines,
  analyses=(base.Analysis(analyze),),
)

"""Anomaly detection: areas under the ROC and precision-recall curves of several anomaly scores.

The model is trained on one class, config.data.one_class. Test examples of other classes are anomalies and form the
positive class. During training the score is the squared error |x_hat - x|^2. The analysis adds the Mahalanobis
and kNN distances, the normalised error, the norm of the gradient, and the squared error of PCA as a baseline.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Shaped

from ae_jax import data, models, objectives
from ae_jax.decisions import scores, thresholds
from ae_jax.evaluators import anomaly_flags, base, figures, localisation, pca
from ae_jax.evaluators.context import EvalContext
from ae_jax.ops import losses
from ae_jax.types import AnyArray

_GRADIENTS = 16  # maximum number of per-example gradients in memory
_GRADIENT_NUMBERS = 2**23  # maximum number of elements in these gradients; a single gradient may have more
_BISECTIONS = 60  # halvings of an interval of length 1, to the precision of float64
_MOST_CLASSES = 100  # maximum number of anomalous classes; if there are more, the AUROC of each class is omitted


def per_example(
  model: Any, variables: Any, batch: Mapping[str, AnyArray], keys: Any, value_range: str, span: Any
) -> dict[str, Float[Array, " batch"]]:
  """Returns the squared reconstruction error as the anomaly score: {"anomaly_score": [B]}."""
  del keys, span
  x_hat = model.outputs(model.reconstruct(variables, batch["x"], batch), value_range)
  return {"anomaly_score": losses.squared_error(x_hat, *objectives.compared(batch))}


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, float]]:
  """Yields the AUROC and the average precision of the anomaly score, and the mean score of the anomalies."""
  score, anomalous = values["anomaly_score"], dataset.anomalous
  yield "test/auroc", auroc(score, anomalous)
  yield "test/auprc", auprc(score, anomalous)
  yield "test/anomalous_squared_error", float(score[anomalous].mean(dtype=np.float64))


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the AUROC and the average precision of each score, the AUROC of each anomalous class, and a figure.

  The AUROC has a 95 % interval, see `auroc_interval`.
  """
  anomalous, labels = context.dataset.anomalous, context.dataset.test_labels
  assert labels is not None  # ensured by the requirement "one_class"
  assert anomalous is not None
  classes = np.unique(labels[anomalous])
  by_class = len(classes) <= _MOST_CLASSES
  if not by_class:
    yield (
      "by_class",
      f"AUROC by class is omitted: there are {len(classes)} anomalous classes; the limit is {_MOST_CLASSES}",
    )
  by_score = {}
  for name, (label, score) in SCORES.items():
    values = score(context)
    yield f"auroc/{name}", (area := auroc(values, anomalous))
    low, high = auroc_interval(area, int(anomalous.sum()), int((~anomalous).sum()))
    if math.isfinite(low):
      yield from ((f"auroc_low/{name}", low), (f"auroc_high/{name}", high))
    yield f"auprc/{name}", auprc(values, anomalous)
    if by_class:
      subsets = [~anomalous | (labels == anomaly) for anomaly in classes]
      areas = [auroc(values[subset], anomalous[subset]) for subset in subsets]
      yield from ((f"auroc/{name}/class_{anomaly}", area) for anomaly, area in zip(classes, areas, strict=True))
      by_score[label] = np.array(areas)
  if by_class:
    yield "auroc_by_class", _by_class(context.dataset, classes, by_score)


def _by_class(
  dataset: data.Dataset, classes: Shaped[np.ndarray, " classes"], areas: Mapping[str, Float64[np.ndarray, " classes"]]
) -> figures.Lines:
  """Returns a figure of the AUROC of each anomalous class, in ascending order of the first score in `areas`."""
  first, *_ = areas
  order = np.argsort(areas[first], kind="stable")
  title = (
    f"AUROC of each anomalous class against the normal class {dataset.class_name(dataset.one_class)}, in ascending "
    f"order for the {first}; random scores have 0.5"
  )
  lines = {score: np.array([np.arange(len(order)), values[order]]) for score, values in areas.items()}
  names = tuple(dataset.class_in_words(label) for label in classes[order])
  return figures.Lines(title, lines, "class", "area under the ROC curve", names, y_bounds=(0.0, 1.0))


def gradient_norms(context: EvalContext) -> Float[np.ndarray, " examples"]:
  """Returns the norm of the gradient of each test example's reconstruction loss (Kwon et al. 2020).

  The gradient is taken with respect to all parameters.
  """
  run, value_range = context.run, context.dataset.value_range
  objective = objectives.build("reconstruction", run.model, value_range, likelihood=run.config.objective.likelihood)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  batch_size = max(1, min(_GRADIENTS, _GRADIENT_NUMBERS // parameters))

  def norms(variables, x, columns, keys):
    def norm(row):
      batch = jax.tree.map(lambda column: column[None], row) | {"weight": jnp.ones(1)}
      loss = lambda params: objective(run.model, variables._replace(params=params), batch, None)[0]
      return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(jax.grad(loss)(variables.params))))

    return jax.lax.map(norm, {**columns, "x": x}, batch_size=batch_size)

  return context.map_examples(norms, context.test, context.columns("test") | context.test_loss_columns)


def _of_kind(context: EvalContext, kind: str) -> Float[np.ndarray, " examples"]:
  """Returns the anomaly scores of the test examples, or NaN if the reference statistics of the scores are not finite.

  `kind` is a key of `scores.KINDS` whose scores depend on the reference statistics.
  """
  if not context.reference.is_finite:
    return np.full(len(context.test), np.nan, np.float32)
  return scores.of_kind(context.run, context.test_inputs, kind, lambda: context.reference)


# Name of a score -> (its label in figures, function that maps an `EvalContext` to the scores [N] of its test examples).
SCORES: dict[str, tuple[str, Callable[[EvalContext], Float[np.ndarray, " examples"]]]] = {
  "squared_error": ("squared error", lambda context: context.squared_errors),
  "normalised": ("normalised squared error", functools.partial(_of_kind, kind="normalised")),
  "mahalanobis": ("Mahalanobis distance", lambda context: scores.mahalanobis(context.test_codes, context.train_codes)),
  "knn": ("kNN distance", functools.partial(_of_kind, kind="knn")),
  "gradient_norm": ("norm of the gradient", gradient_norms),
  "pca": (
    "squared error of PCA",
    lambda context: pca.baseline_squared_errors(context.dataset, context.run.model.code),
  ),
}


def baselines(dataset: data.Dataset, code: models.CodeSpec) -> Iterator[tuple[str, float]]:
  """Yields the AUROC of the squared error of PCA, and the average precision of random scores.

  PCA has the budget of the latent code (see `evaluators.pca`).
  """
  yield "test/pca_auroc", auroc(pca.baseline_squared_errors(dataset, code), dataset.anomalous)
  yield "test/chance_auprc", float(dataset.anomalous.mean())


def auroc(score: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> float:
  """Returns the area under the ROC curve; NaN if a score is not finite.

  It is the probability that an anomaly has a higher score than a normal example, plus half the probability that both
  scores are equal.
  """
  from sklearn.metrics import roc_auc_score  # a second of imports

  return float(roc_auc_score(anomalous, score)) if np.isfinite(score).all() else math.nan


def auroc_interval(area: float, anomalies: int, normal: int) -> tuple[float, float]:
  """Returns the 95 % interval of an AUROC (Newcombe 2006, part 2, method 5); (NaN, NaN) if the AUROC is not finite.

  As in Wilson's interval of a proportion, the ends are the areas A from which `area` differs by 1.96 standard errors
  at A. The variance is that of Hanley and McNeil (1982) with both numbers of examples replaced by their mean. The
  interval lies in [0, 1] and has a length above 0 also if `area` is 0 or 1. It assumes independent examples, which
  overlapping windows are not.

  Args:
    area: The AUROC of the scores of some examples.
    anomalies: Number of anomalies among these examples, at least 1.
    normal: Number of normal examples, at least 1.
  """
  if not math.isfinite(area):
    return math.nan, math.nan

  def low(area):
    outside, inside = 0.0, area
    for _ in range(_BISECTIONS):
      middle = (outside + inside) / 2
      if (area - middle) ** 2 > thresholds.Z**2 * _variance(middle, anomalies, normal):
        outside = middle
      else:
        inside = middle
    return inside

  return low(area), 1 - low(1 - area)  # the variance is symmetric around an area of 0.5


def _variance(area: float, anomalies: int, normal: int) -> float:
  """Returns the variance of an AUROC with the expected value `area`; see `auroc_interval`."""
  others = (anomalies + normal) / 2 - 1
  pairs = 1 + others * ((1 - area) / (2 - area) + area / (1 + area))
  return area * (1 - area) * pairs / (anomalies * normal)


def auprc(score: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> float:
  """Returns the average precision; NaN if a score is not finite.

  It is the area under the precision-recall curve, drawn as a step function.
  """
  from sklearn.metrics import average_precision_score

  return float(average_precision_score(anomalous, score)) if np.isfinite(score).all() else math.nan


EVALUATOR = base.Evaluator(
  name="anomaly",
  needs=("one_class", "anomalies", "normal_examples"),
  per_example=per_example,
  metrics=metrics,
  baselines=baselines,
  analyses=(base.Analysis(analyze), base.Analysis(anomaly_flags.analyze), base.Analysis(localisation.analyze)),
)

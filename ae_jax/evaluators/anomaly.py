"""Detection of classes that were not trained on: ROC and precision-recall areas of several scores, compared with PCA.

It needs normal and anomalous test examples (config.data.one_class). During training the score is |x_hat - x|^2; the
analysis adds the Mahalanobis distance and the norm of the gradient. Anomalies are the positive class.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ae_jax import data, models, objectives
from ae_jax.evaluators import base, figures, reconstruction
from ae_jax.evaluators.context import EvalContext
from ae_jax.ops import losses
from ae_jax.types import AnyArray

_GRADIENTS = 16  # per-example gradients in memory at most
_GRADIENT_NUMBERS = 2**23  # in these gradients, unless one gradient has more
_MOST_CLASSES = 100  # of anomalies with their own AUROC
_RIDGE = 1e-6  # share of the mean variance that is added to the variance of every direction


def per_example(
  model: Any, variables: Any, batch: Mapping[str, AnyArray], keys: Any, value_range: str, span: Any
) -> dict[str, Float[Array, " batch"]]:
  """Returns the anomaly score {"anomaly_score": [B]}, in the squared unit of the data."""
  del keys, span
  x_hat = losses.OUTPUT_ACTIVATIONS[value_range](model.reconstruct(variables, batch["x"], batch))
  return {"anomaly_score": losses.squared_error(x_hat, batch["x"])}


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, float]]:
  """Yields the areas under the ROC and the precision-recall curve, and the mean score of the anomalies."""
  score, anomalous = values["anomaly_score"], dataset.anomalous
  yield "test/auroc", auroc(score, anomalous)
  yield "test/auprc", auprc(score, anomalous)
  yield "test/anomalous_squared_error", float(score[anomalous].mean(dtype=np.float64))


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields both areas for each score, and the AUROC of each class of anomalies."""
  anomalous, labels = context.dataset.anomalous, context.dataset.test_labels
  assert labels is not None  # because the evaluator needs "one_class"
  assert anomalous is not None
  classes = np.unique(labels[anomalous])
  by_class = len(classes) <= _MOST_CLASSES
  if not by_class:
    yield (
      "by_class",
      f"AUROC by class is omitted: there are {len(classes)} classes of anomalies, more than {_MOST_CLASSES}",
    )
  lines = {}
  for name, (label, score) in SCORES.items():
    values = score(context)
    yield f"auroc/{name}", auroc(values, anomalous)
    yield f"auprc/{name}", auprc(values, anomalous)
    if by_class:
      subsets = [~anomalous | (labels == anomaly) for anomaly in classes]
      areas = [auroc(values[subset], anomalous[subset]) for subset in subsets]
      yield from ((f"auroc/{name}/class_{anomaly}", area) for anomaly, area in zip(classes, areas, strict=True))
      lines[label] = np.array([classes, areas], np.float64)
  if by_class:
    title = f"AUROC of each class against class {context.dataset.one_class}, the only class in training"
    yield "auroc_by_class", figures.Lines(title, lines, "class", "area under the ROC curve")


def mahalanobis(
  codes: Float[np.ndarray, "examples latents"], train_codes: Float[np.ndarray, "train latents"]
) -> Float[np.ndarray, " examples"]:
  """Returns the Mahalanobis distances of latent codes to the mean of the training codes.

  A millionth of the mean variance is added to the variance of every direction: otherwise a direction in which the
  training codes do not vary would dominate the distance.
  """
  centred = train_codes - train_codes.mean(0, dtype=np.float64)
  covariance = centred.T @ centred / max(1, len(centred) - 1)
  size = len(covariance)
  covariance += (_RIDGE * np.trace(covariance) / size or 1.0) * np.eye(size)
  offsets = codes - train_codes.mean(0, dtype=np.float64)
  return np.sqrt(np.einsum("nk,nk->n", offsets, np.linalg.solve(covariance, offsets.T).T))


def gradient_norms(context: EvalContext) -> Float[np.ndarray, " examples"]:
  """Returns each test example's norm of the reconstruction loss gradient by the parameters (Kwon et al. 2020)."""
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

  return context.map_examples(norms, context.test, context.columns("test"))


# name -> (label, function (context) -> scores [N] of the test examples)
SCORES = {
  "squared_error": ("squared error", lambda context: context.squared_errors),
  "mahalanobis": ("Mahalanobis distance", lambda context: mahalanobis(context.test_codes, context.train_codes)),
  "gradient_norm": ("norm of the gradient", gradient_norms),
  "pca": (
    "squared error of PCA",
    lambda context: reconstruction.pca_squared_errors(context.dataset, context.run.model.code.size),
  ),
}


def baselines(dataset: data.Dataset, code: models.CodeSpec) -> Iterator[tuple[str, float]]:
  """Yields the AUROC of PCA's squared error, with one component per latent, and the AUPRC of random scores."""
  yield "test/pca_auroc", auroc(reconstruction.pca_squared_errors(dataset, code.size), dataset.anomalous)
  yield "test/chance_auprc", float(dataset.anomalous.mean())


def auroc(score: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> float:
  """Returns the probability that an anomaly scores higher than a normal example; NaN if a score is not finite.

  Ties count one half.
  """
  from sklearn.metrics import roc_auc_score  # a second of imports

  return float(roc_auc_score(anomalous, score)) if np.isfinite(score).all() else math.nan


def auprc(score: Float[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"]) -> float:
  """Returns the average precision; NaN if a score is not finite.

  It is the area under the precision-recall curve as a step function.
  """
  from sklearn.metrics import average_precision_score

  return float(average_precision_score(anomalous, score)) if np.isfinite(score).all() else math.nan


EVALUATOR = base.Evaluator(
  name="anomaly",
  needs=("one_class", "anomalies", "normal_examples"),
  per_example=per_example,
  metrics=metrics,
  baselines=baselines,
  analyses=(base.Analysis(analyze),),
)

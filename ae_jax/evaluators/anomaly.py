"""How well a score tells the class that was trained on from all others, beside PCA's residual.

It needs a test set with both (config.data.one_class). The score of each evaluation is |x_hat - x|^2; the analyze has two
more. Anomalies are the positives.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import objectives
from ae_jax.evaluators import base, figures, reconstruction
from ae_jax.ops import losses

_AT_ONCE = 16  # examples whose gradients lie in memory, at most
_NUMBERS = 2**23  # of them, unless those of one example are more
_MOST_CLASSES = 100  # of anomalies that are told apart
_FLAT = 1e-6  # of the mean variance, as if the code varied so much in every direction


def per_example(model, variables, batch, keys, value_range, span):
  """The score {"anomaly_score": [B]}, in the square of the data's unit."""
  del keys, span
  x_hat = losses.OUTPUT_ACTIVATIONS[value_range](model.reconstruct(variables, batch["x"], batch))
  return {"anomaly_score": losses.squared_error(x_hat, batch["x"])}


def metrics(values, dataset):
  """Generates the areas under the ROC and the precision-recall curve, and the mean score of the anomalies."""
  score, anomalous = values["anomaly_score"], dataset.anomalous
  yield "test/auroc", auroc(score, anomalous)
  yield "test/auprc", auprc(score, anomalous)
  yield "test/anomalous_squared_error", float(score[anomalous].mean(dtype=np.float64))


def analyze(context):
  """Generates the areas under both curves for each score, and under the ROC curve for each class of anomalies."""
  anomalous, labels = context.dataset.anomalous, context.dataset.test_labels
  classes = np.unique(labels[anomalous])
  told = len(classes) <= _MOST_CLASSES
  if not told:
    yield "by_class", f"there are {len(classes)} classes of anomalies; more than {_MOST_CLASSES} are not told apart"
  lines = {}
  for name, (words, score) in SCORES.items():
    values = score(context)
    yield f"auroc/{name}", auroc(values, anomalous)
    yield f"auprc/{name}", auprc(values, anomalous)
    if told:
      against = [~anomalous | (labels == label) for label in classes]
      areas = [auroc(values[one], anomalous[one]) for one in against]
      yield from ((f"auroc/{name}/class_{label}", area) for label, area in zip(classes, areas, strict=True))
      lines[words] = np.array([classes, areas], np.float64)
  if told:
    title = f"how well each class is told from class {context.dataset.one_class}, the one that was trained on"
    yield "auroc_by_class", figures.Lines(title, lines, "class", "area under the ROC curve")


def mahalanobis(codes, train_codes):
  """Distances [N] of codes [N, latent] to the mean of the training codes, in terms of their covariance.

  A millionth of the mean variance is added to every direction, so that one in which the training codes do not vary has
  its say, and not all.
  """
  centred = train_codes - train_codes.mean(0, dtype=np.float64)
  covariance = centred.T @ centred / max(1, len(centred) - 1)
  size = len(covariance)
  covariance += (_FLAT * np.trace(covariance) / size or 1.0) * np.eye(size)
  away = codes - train_codes.mean(0, dtype=np.float64)
  return np.sqrt(np.einsum("nk,nk->n", away, np.linalg.solve(covariance, away.T).T))


def gradient_norms(context):
  """The norm [N] of the gradient of each test example's reconstruction term by the parameters (Kwon et al. 2020)."""
  run, value_range = context.run, context.dataset.value_range
  objective = objectives.build("reconstruction", run.model, value_range, likelihood=run.config.objective.likelihood)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  at_once = max(1, min(_AT_ONCE, _NUMBERS // parameters))

  def norms(variables, x, given, keys):
    def norm(row):
      batch = jax.tree.map(lambda column: column[None], row) | {"weight": jnp.ones(1)}
      loss = lambda params: objective(run.model, variables._replace(params=params), batch, None)[0]
      return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(jax.grad(loss)(variables.params))))

    return jax.lax.map(norm, {**given, "x": x}, batch_size=at_once)

  return context.each(norms, context.test, context.given("test"))


# name -> what it is called, and the function (context) -> scores [N] of the test examples
SCORES = {
  "squared_error": ("squared error", lambda context: context.squared_errors),
  "mahalanobis": ("Mahalanobis distance", lambda context: mahalanobis(context.test_codes, context.train_codes)),
  "gradient_norm": ("norm of the gradient", gradient_norms),
  "pca": (
    "residual of PCA",
    lambda context: reconstruction.pca_squared_errors(context.dataset, context.run.model.code.numbers),
  ),
}


def baselines(dataset, code):
  """Generates the AUROC of PCA's residual with as many components, and the AUPRC of chance."""
  yield "test/pca_auroc", auroc(reconstruction.pca_squared_errors(dataset, code.numbers), dataset.anomalous)
  yield "test/chance_auprc", float(dataset.anomalous.mean())


def auroc(score, anomalous):
  """The probability that an anomaly scores higher than a normal example, ties half; NaN if a score is not finite."""
  from sklearn.metrics import roc_auc_score  # a second of imports

  return float(roc_auc_score(anomalous, score)) if np.isfinite(score).all() else math.nan


def auprc(score, anomalous):
  """Average precision: the area under the precision-recall curve as a step function; NaN if a score is not finite."""
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

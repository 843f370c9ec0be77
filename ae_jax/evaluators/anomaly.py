"""How well the squared reconstruction error tells the class that was trained on from all others, beside PCA's.

It needs a test set with both (config.data.one_class). An example's score is |x_hat - x|^2; anomalies are positives.
"""

import math

import numpy as np

from ae_jax import errors, losses
from ae_jax.evaluators import reconstruction


def check(model, dataset):
  """Raises UserError unless the test set has both normal and anomalous examples, and says which are which."""
  del model
  if dataset.anomalous is None:
    raise errors.UserError(
      "config.evaluators: 'anomaly' needs config.data.one_class, the label of the examples to train on; it is -1"
    )
  for there, kind in ((dataset.anomalous.any(), "anomalies"), (not dataset.anomalous.all(), "normal examples")):
    if not there:
      raise errors.UserError(
        "config.evaluators: 'anomaly' needs normal and anomalous test examples; with "
        f"config.data.one_class={dataset.one_class} there are no {kind}"
      )


def per_example(model, params, batch, keys, value_range):
  """The score {"anomaly_score": [B]}, in the square of the data's unit."""
  del keys
  x_hat = losses.OUTPUT_ACTIVATIONS[value_range](model.reconstruct(params, batch["x"]))
  return {"anomaly_score": losses.squared_error(x_hat, batch["x"])}


def metrics(values, dataset):
  """Generates the areas under the ROC and the precision-recall curve, and the mean score of the anomalies."""
  score, anomalous = values["anomaly_score"], dataset.anomalous
  yield "test/auroc", auroc(score, anomalous)
  yield "test/auprc", auprc(score, anomalous)
  yield "test/anomalous_squared_error", float(score[anomalous].mean(dtype=np.float64))


def rulers(dataset, latent):
  """Generates the AUROC of PCA's residual with as many components, and the AUPRC of chance."""
  yield "test/pca_auroc", auroc(reconstruction.pca_squared_errors(dataset, latent), dataset.anomalous)
  yield "test/chance_auprc", float(dataset.anomalous.mean())


def auroc(score, anomalous):
  """The probability that an anomaly scores higher than a normal example, ties half; NaN if a score is not finite."""
  from sklearn.metrics import roc_auc_score  # a second of imports

  return float(roc_auc_score(anomalous, score)) if np.isfinite(score).all() else math.nan


def auprc(score, anomalous):
  """Average precision: the area under the precision-recall curve as a step function; NaN if a score is not finite."""
  from sklearn.metrics import average_precision_score

  return float(average_precision_score(anomalous, score)) if np.isfinite(score).all() else math.nan

"""Names of squared-error metrics: the PCA baselines, and the error used for model selection.

Model selection (of checkpoints and hyperparameters) uses the validation set if there is one, otherwise the test set.
"""

from collections.abc import Container

PCA = "test/pca_squared_error"  # PCA with as many components as the latent size
QUANTISED_PCA = "test/pca_quantised_squared_error"  # quantised PCA with as many bits as the discrete latent code
_SQUARED_ERRORS = ("validation/squared_error", "test/squared_error")


def selection_key(metrics: Container[str]) -> str:
  """Returns the metric used for model selection: the validation error if it is in `metrics`, else the test error."""
  validation, test = _SQUARED_ERRORS
  return validation if validation in metrics else test


def pca_key(metrics: Container[str]) -> str:
  """Returns the metric name of the model's PCA baseline: quantised PCA if it is in `metrics`, else PCA."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA

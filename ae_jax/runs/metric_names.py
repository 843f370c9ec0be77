"""Metric names of the squared error: of PCA baselines, and of the set on which checkpoints and settings are chosen."""

from collections.abc import Container

PCA = "test/pca_squared_error"  # PCA with as many components as the latent size
QUANTISED_PCA = "test/pca_quantised_squared_error"  # quantised PCA with as many bits as the discrete latent code
_SQUARED_ERRORS = ("validation/squared_error", "test/squared_error")


def selection_key(metrics: Container[str]) -> str:
  """Returns the metric name of the error by which models are chosen: on the validation set if there is one."""
  validation, test = _SQUARED_ERRORS
  return validation if validation in metrics else test


def pca_key(metrics: Container[str]) -> str:
  """Returns the metric name of the PCA baseline of a model: quantised PCA if it is in `metrics`, else PCA."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA

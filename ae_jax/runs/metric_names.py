"""Metric names of the squared error of PCA baselines, which use as many numbers or bits as the latent code."""

from collections.abc import Container

PCA = "test/pca_squared_error"  # PCA with as many components as the latent size
QUANTISED_PCA = "test/pca_quantised_squared_error"  # quantised PCA with as many bits as the discrete latent code


def pca_key(metrics: Container[str]) -> str:
  """Returns the metric name of the PCA baseline of a model: quantised PCA if it is in `metrics`, else PCA."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA

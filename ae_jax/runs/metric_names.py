"""Names of the PCA baselines of the squared error, which have the size of the latent code."""

from collections.abc import Container

PCA = "test/pca_squared_error"  # with as many components as the latent size
QUANTISED_PCA = "test/pca_quantised_squared_error"  # with as many bits as a discrete latent code


def pca_key(metrics: Container[str]) -> str:
  """Returns the name of the PCA baseline for a model's squared error, given the names of the measured metrics."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA

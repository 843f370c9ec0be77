"""The PCA baseline of a reconstruction error, which has the budget of the latent code."""

PCA = "test/pca_squared_error"  # as many numbers
QUANTISED_PCA = "test/pca_quantised_squared_error"  # as many bits; measured for discrete codes


def pca_key(metrics) -> str:
  """Returns the name of the metric among these that a model's squared error is compared with."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA

"""Linear autoencoder: an affine encoder to 32 latents, an affine decoder and the squared error. It converges to PCA.

At the optimum the model has the same subspace and the same error as PCA. Its latent code is an invertible linear map of
the principal components.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 13.92 (13.91 to 13.93), PCA 13.91
  mnist,    20 epochs: test/squared_error 13.19 (13.19 to 13.19), PCA 13.19
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = ()  # widths of the hidden layers; (): no hidden layer
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "identity"
  config.model.bottleneck = "identity"
  config.model.tied = False
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  config.data.range = "real"  # "real" is unbounded, so the output has no activation
  config.objective.likelihood = "gaussian"
  config.optimizer.learning_rate = 1e-2
  return config

"""Contractive autoencoder: a penalty keeps the latent code insensitive to small changes of the example.

The penalty is the squared Frobenius norm of the encoder's Jacobian at each example (metric train/jacobian). The norm is
exact if `probes` = 0, and otherwise estimated from `probes` random directions.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 6.94 (6.92 to 6.95), PCA 1.30
    squared norm of the Jacobian 71.5
  mnist,    20 epochs: test/squared_error 3.29 (3.28 to 3.31), PCA 1.08
    squared norm of the Jacobian 80.6
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 256
  config.model.widths = ()  # widths of the hidden layers; (): no hidden layer
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "identity"  # activation of hidden layers; not used, because there are none
  config.model.bottleneck = "sigmoid"
  config.model.tied = True  # tied weights; otherwise the decoder could undo the contraction with larger weights
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  config.objective.name = "contractive"
  config.objective.weight = 0.1  # weight of the penalty, in nats per unit of the squared norm
  config.objective.probes = 1  # number of random directions; 0: exact norm, with one backward pass per latent
  return config

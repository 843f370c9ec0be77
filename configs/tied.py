"""Dense autoencoder with tied weights: the decoder uses the transposed weights of the encoder.

Compared with the dense autoencoder, the model has half the weights and the same number of biases: 210,224 parameters
instead of 419,120.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 6.75 (6.64 to 6.90), PCA 13.91
  mnist,    20 epochs: test/squared_error 3.72 (3.70 to 3.74), PCA 13.19
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (256,)
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"
  config.model.tied = True  # the decoder uses the transposed weights of the encoder, and its own biases
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  return config

"""The lecture's dense autoencoder: 784 -> 256 -> 32 -> 256 -> 784, ReLU, linear code, 419,120 parameters."""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (256,)  # hidden layers of the encoder; the decoder has them in reverse
  config.model.activation = "relu"
  return config

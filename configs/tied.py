"""The dense autoencoder with tied weights: the decoder multiplies by the encoder's matrices, transposed.

210,224 parameters instead of 419,120: weights halve, biases do not. FIGURES
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (256,)
  config.model.decoder_widths = ()  # the encoder's in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"
  config.model.tied = True  # biases stay its own
  return config

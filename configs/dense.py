"""The lecture's dense autoencoder: 784 -> 256 -> 32 -> 256 -> 784, ReLU, linear code, 419,120 parameters.

Shows what one hidden layer and a nonlinearity gain over PCA with as many numbers, which is the same net without them.

Expect, seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 7.26 (7.15 to 7.32), PCA 13.91
  mnist,    20 epochs: test/squared_error 3.60 (3.59 to 3.61), PCA 13.19
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (256,)  # hidden layers of the encoder
  config.model.decoder_widths = ()  # of the decoder; () is the encoder's in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"  # the code: identity, relu, sigmoid, tanh; fsq3 to fsq9: levels; gaussian: a VAE
  config.model.tied = False  # the decoder's weights are the encoder's, transposed
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  return config

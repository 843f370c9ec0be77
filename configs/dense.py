"""Dense autoencoder of the lecture: 784 -> 256 -> 32 -> 256 -> 784, ReLU, linear latent code, 419,120 parameters.

It shows the gain of a hidden layer with a nonlinearity over PCA with the same latent size, which is the optimum of the
same network without them.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

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
  config.model.decoder_widths = ()  # hidden layers of the decoder; (): the encoder's in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"  # identity, relu, sigmoid, tanh, fsq3 to fsq9 (levels) or gaussian (a VAE)
  config.model.tied = False  # use the encoder's weights, transposed, in the decoder
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  return config

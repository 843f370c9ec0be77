"""The lecture's convolutional autoencoder, made right: 28 -> 26 -> 13 -> 11 -> 5 -> 32 numbers -> 5 -> 11 -> 28."""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "cnn"
  config.model.latent = 32
  config.model.channels = (16, 32)  # per stage: convolution, activation, 2x2 max-pooling
  config.model.kernel = 3
  config.model.activation = "relu"
  # The transposed convolutions, first to last. Paddings follow from the sizes to be reached (none at 28x28); a kernel
  # that would not reach the edge of its output is enlarged.
  config.model.decoder_kernels = (3, 8)
  config.model.decoder_strides = (2, 2)
  config.model.decoder_activation = "relu"  # "identity" makes the decoder one affine map, as the lecture's table has it
  config.optimizer.learning_rate = 4e-3
  return config

"""VQ-VAE: the latent code is a 7x7 grid (at 28x28) of vectors from a learned codebook (van den Oord et al. 2017).

`ae_jax.load(workdir).encode_indices(x)` returns the indices of the codebook vectors; test/codebook_perplexity measures
how evenly they are used. The baseline is PCA with components quantised to the same number of bits.

Result on mnist, 8 epochs, seed 0: test/squared_error 1.99, quantised PCA 4.94; perplexity of the codebook 370 of 512.
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 8)
  config.model = ConfigDict()
  config.model.name = "vqvae"
  config.model.latent = 16  # size of a codebook vector
  config.model.channels = (16, 32)  # of each stage: convolution, activation, 2x2 max-pooling
  config.model.kernel = 3
  config.model.activation = "relu"
  config.model.codebook_size = 512  # number of vectors: 9 bits for each cell of the grid
  config.model.commitment = 0.25  # weight of the distance between the encoder's outputs and their codebook vectors
  config.model.decay = 0.99  # of the moving averages that define the codebook
  config.model.revive_below = 0.03  # restart vectors that are used less often than this fraction of the mean; 0: never
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "codebook")
  return config

"""The VQ-VAE: a 7x7 grid (at 28x28) of codes from a learned codebook (van den Oord et al. 2017).

`ae_jax.load(workdir).encode_indices(x)` returns the discrete codes, test/codebook_perplexity how evenly they use the
codebook. The baseline is PCA whose components are quantised to as many bits.

Expect, on mnist, 8 epochs, seed 0: test/squared_error 1.99, quantised PCA 4.94; perplexity of the codebook 370 of 512.
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 8)
  config.model = ConfigDict()
  config.model.name = "vqvae"
  config.model.latent = 16  # numbers of a codebook vector
  config.model.channels = (16, 32)  # per stage: convolution, activation, 2x2 max-pooling
  config.model.kernel = 3
  config.model.activation = "relu"
  config.model.codebook_size = 512  # entries; 9 bits for each code of the grid
  config.model.commitment = 0.25  # weight of the distance between the encoder's vectors and their entries
  config.model.decay = 0.99  # of the moving averages that the codebook is made of
  config.model.revive_below = 0.03  # an entry used less often than this share of the mean restarts; 0: never
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "codebook")
  return config

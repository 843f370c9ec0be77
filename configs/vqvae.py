"""VQ-VAE: the latent code of a 28x28 image is a 7x7 grid of vectors from a codebook (van den Oord et al. 2017).

`ae_jax.load(workdir).encode_indices(x)` returns the indices of the codebook vectors. test/codebook_perplexity measures
how evenly the vectors are used. The baseline is PCA with scores quantised to the same number of bits.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 2.47 (2.40 to 2.52), quantised PCA 4.99; codebook perplexity 408.5 of 512
  mnist,     8 epochs: test/squared_error 1.98 (1.95 to 2.00), quantised PCA 4.94; codebook perplexity 363.9 of 512
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 8)
  config.model = ConfigDict()
  config.model.name = "vqvae"
  config.model.latent = 16  # size of a codebook vector
  config.model.channels = (16, 32)  # channels of each stage (convolution, activation, 2x2 max-pooling)
  config.model.kernel = 3
  config.model.activation = "relu"
  config.model.codebook_size = 512  # number of codebook vectors; 512 vectors take 9 bits per cell of the grid
  config.model.commitment = 0.25  # weight of the squared distance between encoder outputs and codebook vectors
  config.model.decay = 0.99  # decay of the moving averages that define the codebook
  # Codebook vectors that are used less often than this fraction of the mean are restarted. 0: no restarts.
  config.model.revive_below = 0.03
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "codebook")
  return config

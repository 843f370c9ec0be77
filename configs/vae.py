"""Variational autoencoder: a gaussian posterior over the latent code, trained with the negative ELBO in nats.

test/loss is the negative ELBO (beta = 1), test/kl its KL term, and test/active_units the number of latents that carry
information. pictures/samples.png shows digits decoded from samples of the prior.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 10.66 (10.48 to 10.76), PCA 13.91
    negative ELBO 113.4 nats, KL 22.9, active units 32.0
  mnist,    20 epochs: test/squared_error 5.91 (5.84 to 5.98), PCA 13.19
    negative ELBO 99.1 nats, KL 24.5, active units 21.3
"""

from ml_collections import ConfigDict

from ae_jax.config import base
from ae_jax.config.keys import OWN_DATA, OWN_TABLES


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (512, 256)
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "gaussian"
  config.model.tied = False
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  # Linear path beside the network: none, pca (PCA of the training examples, to which the network learns a correction
  # that begins at zero; for the bottlenecks identity and gaussian), or auto (pca if the model can have it).
  config.model.linear_path = "auto" if data in OWN_DATA + OWN_TABLES else "none"
  config.objective.name = "elbo"
  config.objective.beta = 1.0  # weight of the KL term
  config.objective.free_bits = 0.0  # KL per latent, in nats, that is not penalised
  config.objective.noise = 1.0  # standard deviation of the gaussian likelihood; not used by bernoulli
  config.optimizer.learning_rate = 1e-3
  config.evaluators = (*config.evaluators, "posterior")
  return config

"""The variational autoencoder: the code is a gaussian, the loss is the negative ELBO in nats.

test/loss is the bound at beta = 1, test/kl its second term, test/active_units how many of the dimensions carry
anything; pictures/samples.png shows digits drawn from the prior. FIGURES
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (512, 256)
  config.model.decoder_widths = ()  # the encoder's in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "gaussian"
  config.model.tied = False
  config.objective.name = "elbo"
  config.objective.beta = 1.0  # the weight of the KL
  config.objective.free_bits = 0.0  # nats that each dimension has for nothing
  config.objective.noise = 1.0  # standard deviation of the gaussian likelihood; not used by bernoulli
  config.optimizer.learning_rate = 1e-3
  config.evaluators = ("posterior",)
  return config

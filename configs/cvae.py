"""The conditional variational autoencoder: encoder and decoder are told the label (Sohn et al. 2015).

The code needs to hold only what the label does not say. `ae_jax.load(workdir).decode(z, label=7)` draws sevens, and
pictures/samples_by_class.png shows draws of each class.
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "cvae"
  config.model.latent = 32
  config.model.widths = (512, 256)
  config.model.decoder_widths = ()  # the encoder's in reverse
  config.model.activation = "relu"
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  config.objective.name = "elbo"
  config.objective.beta = 1.0  # the weight of the KL
  config.objective.free_bits = 0.0  # nats of KL per dimension that cost nothing
  config.objective.noise = 1.0  # standard deviation of the gaussian likelihood; not used by bernoulli
  config.optimizer.learning_rate = 1e-3
  config.evaluators = (*config.evaluators, "posterior")
  return config

"""Conditional variational autoencoder: the encoder and the decoder also receive the label (Sohn et al. 2015).

The latent code needs to represent only properties that the label does not determine, such as the writing style of a
digit. `ae_jax.load(workdir).decode(z, label=7)` decodes latent codes to sevens. pictures/samples_by_class.png shows
samples of each class.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 10.85 (10.60 to 11.03), PCA 13.91
    negative ELBO 111.3 nats (vae: 113.4), KL 20.4 (22.9)
  mnist,    20 epochs: test/squared_error 6.04 (5.99 to 6.08), PCA 13.19
    negative ELBO 95.5 nats (vae: 99.1), KL 20.9 (24.5)
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "cvae"
  config.model.latent = 32
  config.model.widths = (512, 256)
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "relu"
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.objective.name = "elbo"
  config.objective.beta = 1.0  # weight of the KL term
  config.objective.free_bits = 0.0  # KL per latent, in nats, that is not penalised
  config.objective.noise = 1.0  # standard deviation of the gaussian likelihood; not used by bernoulli
  config.optimizer.learning_rate = 1e-3
  config.evaluators = (*config.evaluators, "posterior")
  return config

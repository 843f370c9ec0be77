"""The contractive autoencoder: a code that is asked to change little when the digit does.

The penalty is the squared norm of the encoder's Jacobian at each example (`train/jacobian`), exact, or with `probes` =
k estimated from k random directions. FIGURES
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 256
  config.model.widths = ()  # no hidden layer
  config.model.decoder_widths = ()  # the encoder's in reverse
  config.model.activation = "identity"  # of hidden layers: there is none
  config.model.bottleneck = "sigmoid"
  config.model.tied = True  # or the decoder could undo any contraction by larger weights
  config.objective.name = "contractive"
  config.objective.weight = 0.1  # nats for a unit of the squared norm
  config.objective.probes = 1  # 0 takes the norm exactly, at a pass backward for each of the code's dimensions
  return config

"""Sparse autoencoder for images of 784 pixels: 1,024 latents, but only a few latents are active for each digit.

The latent code is larger than the example. An L1 penalty on the latents prevents the model from copying its input. With
`--config.model.bottleneck=sigmoid --config.objective.penalty=kl`, the penalty instead keeps the mean activation of each
latent unit close to 0.05.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 4.08 (4.04 to 4.13), PCA 0.00
    fraction of active latents (test/density) 0.105, dead units 290.7
  mnist,    20 epochs: test/squared_error 1.29 (1.28 to 1.29), PCA 0.00
    fraction of active latents (test/density) 0.109, dead units 281.7
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 1024  # latent size; larger than the number of pixels
  config.model.widths = ()
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "relu"  # use "sigmoid" with the penalty "kl"
  config.model.tied = False
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  config.objective.name = "sparse"
  config.objective.penalty = "l1"  # l1: the sum of |z|; kl: KL(target || mean activation of a unit), summed over units
  config.objective.weight = 0.1  # weight of the penalty, in nats per unit of the penalty
  config.objective.target = 0.05  # target mean activation (rho) of the penalty "kl"
  config.evaluators = (*config.evaluators, "sparsity")
  return config

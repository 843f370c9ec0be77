"""Denoising autoencoder: reconstructs a clean digit from a copy whose pixels are masked with probability 0.25.

The model learns to remove noise of this type and level. It is worse at other levels, and hardly removes other types of
noise. The metrics test/psnr_in and test/psnr_out are the PSNR before and after denoising, for six types and levels of
noise. On full MNIST, salt-and-pepper noise of level 0.1 is not removed (13.2 dB before, 13.1 dB after).

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 9.06 (9.04 to 9.07), PCA 13.91
    masking 0.25: PSNR 15.5 -> 19.7 dB
  mnist,    20 epochs: test/squared_error 6.05 (6.04 to 6.07), PCA 13.19
    masking 0.25: PSNR 15.5 -> 21.9 dB
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (512,)
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"
  config.model.tied = False
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  config.objective.name = "denoising"
  config.objective.corruption = "masking"  # type of noise: masking, salt_and_pepper or gaussian
  config.objective.level = 0.25  # probability of masking; for gaussian noise, standard deviation / width of the range
  config.objective.alpha = 1.0  # weight of the corrupted pixels
  config.objective.beta = 1.0  # weight of the uncorrupted pixels
  config.evaluators = (*config.evaluators, "denoising")  # "denoising" is slow: about a dozen passes over the test set
  config.eval_every_epochs = 5
  return config

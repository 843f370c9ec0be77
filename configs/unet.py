"""Skip connections, for denoising: 28 -> 14 -> 7 -> 32 numbers -> 7 -> 14 -> 28, beside them the image at 28 and 14.

A skip at full resolution hands the decoder the image itself. On a clean input that makes the bottleneck useless: the
code may be anybody's and little changes (`UNet.decode_beside`). In denoising, what comes around the code is as noisy
as the image, and the two must be put together: skips help (Dong et al., arXiv 1611.09119).

Expect, seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 30 epochs: test/squared_error 7.61 (6.80 to 8.05), PCA 13.91
    gaussian 0.5: 6.0 -> 19.6 dB
  mnist,     8 epochs: test/squared_error 2.99 (2.90 to 3.10), PCA 13.19
    gaussian 0.5: 6.0 -> 20.4 dB
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.epochs = {"mnist_5k": 30, "mnist": 8}.get(data, config.epochs)
  config.model = ConfigDict()
  config.model.name = "unet"
  config.model.latent = 32
  config.model.channels = (16, 32)  # per stage: convolution that keeps the size, activation, 2x2 max-pooling
  config.model.kernel = 3
  config.model.activation = "relu"
  config.model.skips = "additive"  # additive, concatenated or none
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  config.objective.name = "denoising"
  config.objective.corruption = "gaussian"  # masking, salt_and_pepper or gaussian
  config.objective.level = 0.5  # the standard deviation, in widths of the range; of the others a probability
  config.objective.alpha = 1.0  # how much the touched pixels count
  config.objective.beta = 1.0  # and the others
  config.evaluators = (*config.evaluators, "denoising")  # a dozen passes over the test set, so not every epoch
  config.eval_every_epochs = 4
  return config

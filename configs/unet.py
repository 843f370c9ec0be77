"""U-Net for denoising: 28 -> 14 -> 7 -> 32 latents -> 7 -> 14 -> 28, with skip connections at 28 and 14 pixels.

A skip connection at full resolution passes the image itself to the decoder. With clean inputs, the model then hardly
uses the bottleneck: if the latent code is replaced by the latent code of another image, the output changes little
(`UNet.decode_beside`). In denoising, the skipped features are as noisy as the image, so the decoder must combine them
with the latent code, and skip connections help (Dong et al., arXiv 1611.09119).

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 30 epochs: test/squared_error 7.61 (6.80 to 8.05), PCA 13.91
    gaussian noise 0.5: PSNR 6.0 -> 19.6 dB
  mnist,     8 epochs: test/squared_error 2.99 (2.90 to 3.10), PCA 13.19
    gaussian noise 0.5: PSNR 6.0 -> 20.4 dB
"""

from ml_collections import ConfigDict

from ae_jax.config import base
from ae_jax.config.keys import OWN_DATA


def get_config(data="mnist_5k"):
  config = base(data)
  config.epochs = {"mnist_5k": 30, "mnist": 8}.get(data, config.epochs)
  config.model = ConfigDict()
  config.model.name = "unet"
  config.model.latent = 32
  # Channels of each stage (size-preserving convolution, activation, 2x2 max-pooling). (): chosen from the image size,
  # as 16, 32, 64, 128, 128, ... until the smaller side is at most 8 pixels; (16, 32) for images of 8 to 34 pixels.
  config.model.channels = () if data in OWN_DATA else (16, 32)
  config.model.kernel = 3
  config.model.activation = "relu"
  config.model.skips = "additive"  # type of the skip connections: additive, concatenated or none
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.objective.name = "denoising"
  config.objective.corruption = "gaussian"  # type of noise: masking, salt_and_pepper or gaussian
  config.objective.level = 0.5  # standard deviation / width of the range; for other noise, probability of corruption
  config.objective.alpha = 1.0  # weight of the corrupted pixels
  config.objective.beta = 1.0  # weight of the uncorrupted pixels
  config.evaluators = (*config.evaluators, "denoising")  # "denoising" is slow: about a dozen passes over the test set
  config.eval_every_epochs = 4
  return config

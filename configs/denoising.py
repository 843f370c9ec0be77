"""The denoising autoencoder: the clean digit from one whose pixels were set to black, each with probability 0.25.

It learns to take away this noise, less well more or less of it, and hardly another: test/psnr_in and test/psnr_out tell
of six noises, and on full MNIST salt and pepper of 0.1 comes out no better than it went in (13.2 and 13.1 dB).

Expect, seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 9.06 (9.04 to 9.07), PCA 13.91
    masking 0.25: 15.5 -> 19.7 dB
  mnist,    20 epochs: test/squared_error 6.05 (6.04 to 6.07), PCA 13.19
    masking 0.25: 15.5 -> 21.9 dB
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (512,)
  config.model.decoder_widths = ()  # the encoder's in reverse
  config.model.activation = "relu"
  config.model.bottleneck = "identity"
  config.model.tied = False
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  config.objective.name = "denoising"
  config.objective.corruption = "masking"  # masking, salt_and_pepper or gaussian
  config.objective.level = 0.25  # a probability; of gaussian noise the standard deviation, in widths of the range
  config.objective.alpha = 1.0  # how much the touched pixels count
  config.objective.beta = 1.0  # and the others
  config.evaluators = (*config.evaluators, "denoising")  # a dozen passes over the test set, so not every epoch
  config.eval_every_epochs = 5
  return config

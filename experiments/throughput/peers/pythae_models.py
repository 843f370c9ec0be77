"""pythae: its AE and VAE with the PyTorch modules of this package, and the step of its BaseTrainer without data loader.

pythae's AE supports squared error only and its VAE the cross-entropy of probabilities only, so both losses are
overridden by the cross-entropy of logits.
"""

import dataclasses

import torch
from pythae.models import AE, VAE, AEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from experiments.throughput.peers import pytorch, torch_modules


class Encoder(BaseEncoder):
  """An encoder with pythae's interface."""

  def __init__(self, name):
    super().__init__()
    self.variational, self.module = name == "vae", torch_modules.encoder(name)

  def forward(self, x):
    """Returns the embedding [B, 32] of images and, for the VAE, the log_covariance [B, 32]."""
    output = self.module(x)
    if not self.variational:
      return ModelOutput(embedding=output)
    mean, log_variance = output.chunk(2, 1)
    return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
  """A decoder with pythae's interface."""

  def __init__(self, name):
    super().__init__()
    self.module = torch_modules.decoder(name)

  def forward(self, z):
    """Returns the logits of the reconstructions of latent codes [B, 32]."""
    return ModelOutput(reconstruction=self.module(z))


class LogitAE(AE):
  """pythae's AE with the cross-entropy of logits."""

  def loss_function(self, recon_x, x):
    """Returns the nats [] of images, given logits."""
    return torch_modules.cross_entropy(recon_x, x)


class LogitVAE(VAE):
  """pythae's VAE with the cross-entropy of logits."""

  def loss_function(self, recon_x, x, mu, log_var, z):
    """Returns negative ELBO, nats and KL, [] each."""
    nats, kl = torch_modules.cross_entropy(recon_x, x), torch_modules.gaussian_kl(mu, log_var)
    return nats + kl, nats, kl


def build(name, batch_size, images, steps_per_call, recipe):
  """Builds the contestant of pythae, which does not take part in the race."""
  torch.manual_seed(0)
  model, config = (LogitVAE, VAEConfig) if name == "vae" else (LogitAE, AEConfig)
  shape = pytorch.shaped(name, images[:1]).shape[1:]
  module = model(config(input_dim=shape, latent_dim=32), Encoder(name), Decoder(name))
  module = module.apply(torch_modules.initialise).to(pytorch.DEVICE)
  contestant = pytorch.contestant(name, batch_size, images, recipe, module, lambda x: module({"data": x}).loss)
  return dataclasses.replace(contestant, squared_error=None, epoch=None)

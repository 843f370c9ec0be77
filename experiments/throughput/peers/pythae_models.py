"""pythae: its AE and VAE around the same PyTorch modules, and the step of its BaseTrainer without the data loader.

pythae's own AE has squared error only and its VAE takes the cross-entropy of probabilities; both take the others' here.
"""

import dataclasses

import torch
from pythae.models import AE, VAE, AEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from experiments.throughput.peers import pytorch, torch_modules


class Encoder(BaseEncoder):
  """An encoder as pythae calls it."""

  def __init__(self, name):
    super().__init__()
    self.variational, self.module = name == "vae", torch_modules.encoder(name)

  def forward(self, x):
    """Images -> embedding [B, 32], and the VAE's log_covariance [B, 32]."""
    code = self.module(x)
    if not self.variational:
      return ModelOutput(embedding=code)
    mean, log_variance = code.chunk(2, 1)
    return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
  """A decoder as pythae calls it."""

  def __init__(self, name):
    super().__init__()
    self.module = torch_modules.decoder(name)

  def forward(self, z):
    """Codes [B, 32] -> reconstruction, the logits of the images' shape."""
    return ModelOutput(reconstruction=self.module(z))


class Plain(AE):
  """pythae's AE with cross-entropy."""

  def loss_function(self, recon_x, x):
    """Logits and images -> nats []."""
    return torch_modules.cross_entropy(recon_x, x)


class Variational(VAE):
  """pythae's VAE with the cross-entropy of logits."""

  def loss_function(self, recon_x, x, mu, log_var, z):
    """Logits, images, posterior -> (negative ELBO, nats, KL), [] each."""
    nats, kl = torch_modules.cross_entropy(recon_x, x), torch_modules.gaussian_kl(mu, log_var)
    return nats + kl, nats, kl


def build(name, batch_size, images, steps_per_call, recipe):
  """pythae's contestant; it takes no part in the race."""
  torch.manual_seed(0)
  model, config = (Variational, VAEConfig) if name == "vae" else (Plain, AEConfig)
  shape = pytorch.shaped(name, images[:1]).shape[1:]
  module = model(config(input_dim=shape, latent_dim=32), Encoder(name), Decoder(name))
  module = module.apply(torch_modules.initialise).to(pytorch.DEVICE)
  contestant = pytorch.contestant(name, batch_size, images, recipe, module, lambda x: module({"data": x}).loss)
  return dataclasses.replace(contestant, squared_error=None, epoch=None)

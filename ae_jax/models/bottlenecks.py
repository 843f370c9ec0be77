"""What stands between an encoder and a decoder, and the product of the three.

Every autoencoder module has `encode` (examples -> codes [B, latent]), `decode` (codes -> logits) and `__call__`
(examples -> logits of their reconstructions). Those here are products; `models.dense.Tied` and `models.unet`, whose two
halves share something, are modules of their own.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations


class Autoencoder(nn.Module):
  """Encoder, a deterministic bottleneck, decoder."""

  encoder: nn.Module
  decoder: nn.Module
  code_activation: Callable

  def __call__(self, x):
    return self.decode(self.encode(x))

  def encode(self, x):
    return self.code_activation(self.encoder(x))

  def decode(self, z):
    return self.decoder(z)


class VariationalAutoencoder(nn.Module):
  """An encoder of a gaussian posterior with a diagonal covariance, and a decoder; the code is the posterior's mean."""

  encoder: nn.Module  # -> [B, 2 * latent]: means, then logarithms of variances
  decoder: nn.Module

  def __call__(self, x):
    return self.decode(self.encode(x))

  def encode(self, x):
    return self.posterior(x)[0]

  def posterior(self, x):
    """Examples -> mean and log variance, [B, latent] each."""
    return tuple(jnp.split(self.encoder(x), 2, axis=-1))

  def decode(self, z):
    return self.decoder(z)


DETERMINISTIC = {name: activations.ACTIVATIONS[name] for name in ("identity", "relu", "sigmoid", "tanh")}


def product(name, latent, encoder, decoder, deterministic=Autoencoder):
  """The autoencoder with the bottleneck of a name; `encoder(outputs)` gives an encoder of so many outputs.

  "identity", "relu", "sigmoid" and "tanh" are the activation of the code, in a module of the class `deterministic`;
  "gaussian" is the variational bottleneck.
  """
  errors.check_positive("model.latent", latent)
  if errors.choose({**DETERMINISTIC, "gaussian": None}, name, "model.bottleneck"):
    return deterministic(encoder(latent), decoder, DETERMINISTIC[name])
  return VariationalAutoencoder(encoder(2 * latent), decoder)

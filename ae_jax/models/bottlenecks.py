"""What stands between an encoder and a decoder, and the product of the three.

Every autoencoder module has `encode` (examples -> codes [B, latent]), `decode` (codes -> logits) and `__call__`
(examples -> logits of their reconstructions). Those here are products; `models.dense.Tied` and `models.unet`, whose two
halves share something, are modules of their own.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
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


@dataclasses.dataclass(frozen=True)
class FiniteScalars:
  """Each unit of the code takes one of an odd number of levels, evenly from -1 to 1 (FSQ; Mentzer et al. 2023).

  tanh, then the nearest level; the gradient is tanh's, as if nothing had been rounded. The codebook is all
  combinations: levels ** latent of them.
  """

  levels: int

  def __call__(self, x):
    bounded = jnp.tanh(x)
    return jax.lax.stop_gradient(self.nearest(bounded)) + (bounded - jax.lax.stop_gradient(bounded))

  def nearest(self, x):
    """The levels nearest to numbers from -1 to 1."""
    half = self.levels // 2
    return jnp.round(half * x) / half


DETERMINISTIC = {
  **{name: activations.ACTIVATIONS[name] for name in ("identity", "relu", "sigmoid", "tanh")},
  **{f"fsq{levels}": FiniteScalars(levels) for levels in (3, 5, 7, 9)},
}


def product(name, latent, encoder, decoder, deterministic=Autoencoder):
  """The autoencoder with the bottleneck of a name; `encoder(outputs)` gives an encoder of so many outputs.

  "identity", "relu", "sigmoid", "tanh" and "fsq3" to "fsq9" (quantised, see `FiniteScalars`) are the activation of the
  code, in a module of the class `deterministic`; "gaussian" is the variational bottleneck.
  """
  errors.check_positive("model.latent", latent)
  if errors.choose({**DETERMINISTIC, "gaussian": None}, name, "model.bottleneck"):
    return deterministic(encoder(latent), decoder, DETERMINISTIC[name])
  return VariationalAutoencoder(encoder(2 * latent), decoder)

"""Bottlenecks between an encoder and a decoder, and the autoencoder that the three make."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Gaussian


class Autoencoder(AutoencoderModule):
  """Encoder, a deterministic bottleneck, decoder."""

  encoder: nn.Module
  decoder: nn.Module
  code_activation: Callable
  spec: CodeSpec

  @property
  def code_spec(self):
    return self.spec

  def encode(self, x, given=None, dropout=None):
    return encoding(self.code_activation, self.encoder(x, dropout))

  def decode(self, z, given=None, dropout=None):
    return self.decoder(z, dropout)


class VariationalAutoencoder(AutoencoderModule):
  """An encoder of a gaussian posterior with a diagonal covariance, and a decoder; the code is the posterior's mean."""

  encoder: nn.Module  # -> [B, 2 * latent]: means, then logarithms of variances
  decoder: nn.Module
  spec: CodeSpec

  @property
  def code_spec(self):
    return self.spec

  @property
  def has_posterior(self):
    return True

  def encode(self, x, given=None, dropout=None):
    mean, log_variance = jnp.split(self.encoder(x, dropout), 2, axis=-1)
    return Encoding(mean, Gaussian(mean, log_variance))

  def decode(self, z, given=None, dropout=None):
    return self.decoder(z, dropout)


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

  def index(self, z):
    """The numbers, from 0, of the levels of latents z: int32 of the same shape."""
    return jnp.round((z + 1) * (self.levels // 2)).astype(jnp.int32)


DETERMINISTIC = {
  **{name: activations.ACTIVATIONS[name] for name in ("identity", "relu", "sigmoid", "tanh")},
  **{f"fsq{levels}": FiniteScalars(levels) for levels in (3, 5, 7, 9)},
}
_BOUNDS = {"relu": (0.0, float("inf")), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of the code; others have none


def spec(name, latent) -> CodeSpec:
  """Returns the `CodeSpec` of a vector of `latent` numbers behind the bottleneck of a name."""
  activation = DETERMINISTIC.get(name)
  if isinstance(activation, FiniteScalars):
    return CodeSpec((latent,), low=-1.0, high=1.0, levels=activation.levels, index_shape=(latent,))
  return CodeSpec((latent,), 0, *_BOUNDS.get(name, ()))


def encoding(activation, inputs) -> Encoding:
  """Returns the encoding of a deterministic bottleneck: inputs [B, latent] through its activation."""
  z = activation(inputs)
  indices = activation.index(z) if isinstance(activation, FiniteScalars) else None
  return Encoding(z, indices=indices)


def build_autoencoder(name, latent, encoder, decoder, deterministic=Autoencoder):
  """Returns the autoencoder with the bottleneck of a name; `encoder(outputs)` builds an encoder with that many outputs.

  "identity", "relu", "sigmoid", "tanh" and "fsq3" to "fsq9" (quantised, see `FiniteScalars`) are the activation of the
  code, in a module of the class `deterministic`; "gaussian" is the variational bottleneck.
  """
  errors.check_positive("model.latent", latent)
  if errors.choose({**DETERMINISTIC, "gaussian": None}, name, "model.bottleneck"):
    return deterministic(encoder(latent), decoder, DETERMINISTIC[name], spec(name, latent))
  return VariationalAutoencoder(encoder(2 * latent), decoder, spec(name, latent))

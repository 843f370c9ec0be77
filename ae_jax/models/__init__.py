"""Models: descriptions that are turned into pure functions of (params, arrays).

A model is an encoder and a decoder. `encode` takes images [B, H, W, C] to codes [B, latent], `decode` takes codes to
*logits* [B, H, W, C], before the output activation, which belongs to the likelihood (`ae_jax.losses`).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import convolutional, dense

# Each builds (encoder, decoder) from the image's shape (H, W, C) and the options that config.model gives.
FAMILIES = {"dense": dense.build, "cnn": convolutional.build}

# Rows whose intermediates a processor's cache holds, measured by experiments/throughput; a family that is not here is
# fastest with the whole batch at once.
ROWS_IN_CACHE = {"cnn": 64}


class Autoencoder(nn.Module):
  """Encoder, then decoder."""

  encoder: nn.Module
  decoder: nn.Module

  def __call__(self, x):
    return self.decoder(self.encoder(x))

  def encode(self, x):
    return self.encoder(x)

  def decode(self, z):
    return self.decoder(z)


@dataclasses.dataclass(frozen=True)
class Model:
  """A module as pure functions; frozen and hashable, so that it can be a static argument of compiled functions."""

  module: Autoencoder
  shape: tuple[int, int, int]  # (H, W, C) of an image

  def init(self, key):
    """Parameters: a nested dict of float32 arrays, a function of the key alone."""
    return self.module.init(key, jnp.zeros((1, *self.shape)))["params"]

  def encode(self, params, x):
    """Images [B, H, W, C] in the data's range -> codes [B, latent]."""
    return self.module.apply({"params": params}, x, method="encode")

  def decode(self, params, z):
    """Codes [B, latent] -> logits [B, H, W, C]."""
    return self.module.apply({"params": params}, z, method="decode")

  def parameter_count(self):
    """How many numbers `init` gives; nothing is computed."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0))))


def build(name, shape, **options):
  """The `Model` that `config.model` describes, for images of shape (H, W, C); UserError for what cannot be built."""
  encoder, decoder = errors.call(FAMILIES, "model", name, tuple(shape), **options)
  return Model(Autoencoder(encoder, decoder), tuple(shape))

"""The dense autoencoder: an encoder of fully connected layers and its mirror."""

import math
from collections.abc import Callable

import flax.linen as nn

from ae_jax import errors
from ae_jax.models import activations


class DenseEncoder(nn.Module):
  """[B, H, W, C] -> hidden layers -> codes [B, latent], which are linear."""

  latent: int
  widths: tuple[int, ...]
  activation: Callable

  @nn.compact
  def __call__(self, x):
    h = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    for width in self.widths:
      h = self.activation(nn.Dense(width)(h))
    return nn.Dense(self.latent, name="code")(h)


class DenseDecoder(nn.Module):
  """Codes [B, latent] -> hidden layers -> logits [B, H, W, C]."""

  shape: tuple[int, int, int]
  widths: tuple[int, ...]
  activation: Callable

  @nn.compact
  def __call__(self, z):
    h = z
    for width in self.widths:
      h = self.activation(nn.Dense(width)(h))
    return nn.Dense(math.prod(self.shape), name="logits")(h).reshape(-1, *self.shape)


def build(shape, *, latent, widths, activation):
  """Encoder and decoder with hidden `widths` (the decoder's reversed; () for none) and one activation throughout."""
  errors.check_positive("model.latent", latent)
  if widths != ():
    errors.check_all_positive("model.widths", widths)
  function = activations.choose(activation, "activation")
  return DenseEncoder(latent, widths, function), DenseDecoder(shape, widths[::-1], function)

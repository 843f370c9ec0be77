"""The dense autoencoder: an encoder of fully connected layers and its mirror, perhaps with the same weights."""

import itertools
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec
from ae_jax.ops import losses


class DenseEncoder(nn.Module):
  """[B, ...] -> hidden layers -> [B, outputs], the last layer affine."""

  outputs: int
  widths: tuple[int, ...]
  activation: Callable
  dropout: float

  def setup(self):
    self.hidden = [nn.Dense(width) for width in self.widths]
    self.code = nn.Dense(self.outputs)

  def __call__(self, x, dropout=None):
    return self.code(self.below(x, len(self.widths), dropout))

  def below(self, x, layer, dropout=None):
    """Returns the input of layer number `layer`: [B, ...] -> [B, inputs]."""
    h = losses.flat(x)
    for number, dense in enumerate(self.hidden[:layer]):
      h = drop(self.activation(dense(h)), dropout, self.dropout, number)
    return h

  def up(self, h, layer):
    """Through one layer, its activation included (the last has none): [B, its inputs] -> [B, its outputs]."""
    return self.activation(self.hidden[layer](h)) if layer < len(self.widths) else self.code(h)


class DenseDecoder(nn.Module):
  """Codes [B, latent] -> hidden layers -> logits [B, *shape]."""

  shape: tuple[int, ...]
  widths: tuple[int, ...]
  activation: Callable
  dropout: float

  def setup(self):
    self.hidden = [nn.Dense(width) for width in self.widths]
    self.logits = nn.Dense(math.prod(self.shape))

  def __call__(self, z, dropout=None):
    h = z
    for number, dense in enumerate(self.hidden):
      h = drop(self.activation(dense(h)), dropout, self.dropout, DECODER + number)
    return self.logits(h).reshape(-1, *self.shape)

  def down(self, h, layer):
    """Through one layer, without its activation; layers are counted from the logits: 0 is the last."""
    return self.logits(h) if layer == 0 else self.hidden[-layer](h)


class Stack(bottlenecks.Autoencoder):
  """The autoencoder whose layers can be trained one at a time, each as an autoencoder of the layer below's output."""

  @property
  def layers(self):
    return self.encoder, self.decoder

  def below(self, x, layer):
    """The input of encoder layer `layer` (0 is the lowest): [B, ...] -> [B, features]."""
    return self.encoder.below(x, layer)

  def layer_logits(self, h, layer):
    """Up through encoder layer `layer` and down through the decoder's opposite: [B, features] -> logits of the same."""
    return self.decoder.down(self.encoder.up(h, layer), layer)


class Tied(AutoencoderModule):
  """The dense autoencoder whose decoder has the transposed weights of the encoder, and biases of its own."""

  shape: tuple[int, ...]
  widths: tuple[int, ...]  # of the hidden layers, then of the code
  activation: Callable
  code_activation: Callable
  spec: CodeSpec
  dropout: float

  @property
  def code_spec(self):
    return self.spec

  def setup(self):
    sizes = (math.prod(self.shape), *self.widths)
    init, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros  # as nn.Dense's
    layers = list(enumerate(itertools.pairwise(sizes)))
    self.kernels = [self.param(f"kernel_{i}", init, pair, jnp.float32) for i, pair in layers]
    self.biases = [self.param(f"bias_{i}", zeros, pair[1:], jnp.float32) for i, pair in layers]
    self.decoder_biases = [self.param(f"decoder_bias_{i}", zeros, pair[:1], jnp.float32) for i, pair in layers]

  def encode(self, x, given=None, dropout=None):
    h = losses.flat(x)
    for number, (kernel, bias) in enumerate(zip(self.kernels[:-1], self.biases[:-1], strict=True)):
      h = drop(self.activation(h @ kernel + bias[None]), dropout, self.dropout, number)
    return bottlenecks.encoding(self.code_activation, h @ self.kernels[-1] + self.biases[-1][None])

  def decode(self, z, given=None, dropout=None):
    h = z
    for number, (kernel, bias) in enumerate(zip(self.kernels[:0:-1], self.decoder_biases[:0:-1], strict=True)):
      h = drop(self.activation(h @ kernel.T + bias[None]), dropout, self.dropout, DECODER + number)
    return (h @ self.kernels[0].T + self.decoder_biases[0][None]).reshape(-1, *self.shape)


def build(shape, *, latent, widths, decoder_widths, activation, bottleneck, tied, dropout=0.0):
  """The dense autoencoder with hidden `widths`; () for none. `decoder_widths` may differ, () mirrors the encoder's.

  `tied` ties the decoder's weights to the encoder's, which must then be its mirror. `dropout` is the rate behind each
  hidden layer in training. Raises UserError.
  """
  errors.check_positive("model.latent", latent)
  check_widths(widths, decoder_widths)
  errors.check_flag("model.tied", tied)
  check_rate(dropout)
  function, back = activations.choose(activation, "activation"), decoder_widths or widths[::-1]
  if not tied:
    return bottlenecks.build_autoencoder(
      bottleneck,
      latent,
      lambda outputs: DenseEncoder(outputs, widths, function, dropout),
      DenseDecoder(shape, back, function, dropout),
      deterministic=Stack,
    )
  if back != widths[::-1]:
    raise errors.UserError(
      f"config.model.decoder_widths={decoder_widths}: tied weights need the mirror of config.model.widths={widths}; "
      "leave it () or set config.model.tied=False"
    )
  code = errors.choose(bottlenecks.DETERMINISTIC, bottleneck, "model.bottleneck")
  return Tied(shape, (*widths, latent), function, code, bottlenecks.spec(bottleneck, latent), dropout)


def check_widths(widths, decoder_widths):
  """Raises UserError unless both are tuples of positive integers, or ()."""
  for key, value in {"widths": widths, "decoder_widths": decoder_widths}.items():
    if not isinstance(value, tuple) or value:
      errors.check_all_positive(f"model.{key}", value)

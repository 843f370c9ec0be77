"""The attention autoencoder of series, CAT-AE (Sensors 22(1):123, 2022): states over time, one context vector, a code.

Inside both halves, series are laid out [C, T, B] (see `ae_jax.ops.convolutions`).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.ops import convolutions

_KERNEL_INIT = nn.initializers.lecun_normal()


def concat_attention(states, query, state_kernel, query_kernel, score):
  """Luong's "concat" attention: score^T tanh(W [state; query]), its softmax over time, and the states' weighted mean.

  States are [B, T, D], the query [B, Q]; W comes in its two parts, `state_kernel` [D, A] and `query_kernel` [Q, A];
  `score` is [A]. Returns the context [B, D] and the weights [B, T], each row summing to 1 (Luong, Pham & Manning 2015,
  section 3.1).
  """
  hidden = jnp.tanh(states @ state_kernel[None] + (query @ query_kernel)[:, None])  # [B, T, A]
  weights = jax.nn.softmax((hidden * score[None, None]).sum(-1), axis=-1)  # [B, T]
  return (weights[..., None] * states).sum(1), weights


class AttentionPooling(nn.Module):
  """An encoder: [B, T, C] -> states and query of `body` -> their context by attention -> a dense layer, [B, outputs].

  The weights are sown as "weights" in the collection "attention", [B, 1 (head), 1 (query), states].
  """

  outputs: int
  body: nn.Module  # [B, T, C] -> states [B, states, D], query [B, D]
  width: int  # of the attention's hidden layer

  @nn.compact
  def __call__(self, x, dropout=None):
    states, query = self.body(x, dropout)
    size = (states.shape[-1], self.width)
    kernels = [self.param(f"{name}_kernel", _KERNEL_INIT, size) for name in ("state", "query")]
    score = self.param("score", nn.initializers.normal(self.width**-0.5), (self.width,))
    context, weights = concat_attention(states, query, *kernels, score)
    if self.is_mutable_collection("attention"):
      self.sow("attention", "weights", weights[:, None, None])
    return nn.Dense(self.outputs, name="code")(context)


class GRU(nn.Module):
  """A gated recurrent unit from the state `initial` [width, B] on: [C, T, B] -> its states [width, T, B].

  What comes from the inputs is one product for all times. It is `nn.GRUCell` in `nn.RNN`, but with the batch as the
  contiguous axis and its three gates side by side, in the order reset, update, new.
  """

  width: int

  @nn.compact
  def __call__(self, x, initial):
    channels, length, batch = x.shape
    kernel = self.param("kernel", _KERNEL_INIT, (channels, 3 * self.width))
    bias = self.param("bias", nn.initializers.zeros, (3, self.width))
    recurrent = [self.param(f"recurrent_{gate}", nn.initializers.orthogonal(), (self.width,) * 2) for gate in "run"]
    recurrent = jnp.concatenate(recurrent, axis=1).T  # [3 * width, width]
    recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.width,))
    inputs = (kernel.T @ x.reshape(channels, length * batch)).reshape(3, self.width, length, batch)
    inputs = (inputs + bias[..., None, None]).transpose(2, 0, 1, 3)  # [T, 3, width, B]

    def step(h, inputs):
      of_h = (recurrent @ h).reshape(inputs.shape)
      reset, update = nn.sigmoid(inputs[:2] + of_h[:2])
      new = jnp.tanh(inputs[2] + reset * (of_h[2] + recurrent_bias[:, None]))
      h = new + update * (h - new)
      return h, h

    return lax.scan(step, initial, inputs)[1].swapaxes(0, 1)


class RecurrentBody(nn.Module):
  """Per layer `stride` times become one, a GRU follows: [B, T, C] -> states [B, T', D] and the last of them [B, D]."""

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  dropout: float

  @nn.compact
  def __call__(self, x, dropout=None):
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for number, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h = GRU(width)(fold(h, stride), jnp.zeros((width, x.shape[0]), x.dtype))
      h = drop(h, dropout, self.dropout, number, -1)
    states = h.transpose(2, 1, 0)
    return states, states[:, -1]


class RecurrentDecoder(nn.Module):
  """Per layer a GRU that begins at a state made from the code, each of its states unfolding to `stride` times: logits.

  The first GRU sees the code at every time, the others what the one before unfolded to.
  """

  shape: tuple[int, int]
  widths: tuple[int, ...]
  strides: tuple[int, ...]
  sizes: tuple[int, ...]  # the number of the first GRU's steps, then of the times after each layer
  dropout: float

  @nn.compact
  def __call__(self, z, dropout=None):
    h = jnp.broadcast_to(z.T[:, None], (z.shape[1], self.sizes[0], z.shape[0]))  # [latent, T', B]
    layers = zip(self.widths, (*self.widths[1:], self.shape[1]), self.strides, self.sizes[1:], strict=True)
    for number, (width, features, stride, size) in enumerate(layers):
      h = GRU(width)(h, jnp.tanh(nn.Dense(width)(z)).T)
      h = drop(h, dropout, self.dropout, DECODER + number, -1)
      h = unfold(Conv(features * stride, 1)(h), stride)[:, :size]
    return h.transpose(2, 1, 0)


class Conv(nn.Module):
  """A convolution with bias that keeps the length, the ends padded with zeros: [C, T, B] -> [features, T, B]."""

  features: int
  kernel: int

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", _KERNEL_INIT, (self.kernel, 1, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    before = (self.kernel - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, self.kernel - 1 - before), (0, 0)))
    return convolutions.conv(x[:, :, None], kernel)[:, :, 0] + bias[:, None, None]


class ConvolutionalBody(nn.Module):
  """Per stage `stride` times become one, a convolution follows: [B, T, C] -> states [B, T', D] and their mean [B, D].

  Stage by stage T becomes ceil(T / stride). A learned vector for each of the T' places makes the states of different
  places different, so that their mean can hold all of the series.
  """

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x, dropout=None):
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h = Conv(width, self.kernel)(fold(h, stride))
      if stage == len(self.widths) - 1:
        h = h + self.param("place", nn.initializers.normal(1.0), h.shape[:2])[..., None]
      h = drop(self.activation(h), dropout, self.dropout, stage, -1)
    states = h.transpose(2, 1, 0)
    return states, states.mean(1)


class ConvolutionalDecoder(nn.Module):
  """The body's mirror: a dense layer, then per stage a convolution whose channels unfold to `stride` times: logits."""

  shape: tuple[int, int]
  widths: tuple[int, ...]  # of the shortest series, then of the output of each stage but the last
  strides: tuple[int, ...]
  sizes: tuple[int, ...]  # the shortest length, then that of the output of each stage
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, z, dropout=None):
    shortest = (self.widths[0], self.sizes[0])
    h = nn.Dense(math.prod(shortest))(z).T.reshape(*shortest, z.shape[0])  # [C, T', B]
    stages = zip((*self.widths[1:], self.shape[1]), self.strides, self.sizes[1:], strict=True)
    for number, (width, stride, size) in enumerate(stages):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = unfold(Conv(width * stride, self.kernel)(h), stride)[:, :size]
    return h.transpose(2, 1, 0)


def fold(x, stride):
  """`stride` successive times become one with their channels: [C, T, B] -> [C * stride, ceil(T / stride), B]."""
  channels, length, batch = x.shape
  x = jnp.pad(x, ((0, 0), (0, -length % stride), (0, 0)))
  x = x.reshape(channels, -1, stride, batch).swapaxes(1, 2)
  return x.reshape(channels * stride, -1, batch)


def unfold(x, stride):
  """The inverse of `fold`: [C * stride, T, B] -> [C, T * stride, B]."""
  channels, length, batch = x.shape
  x = x.reshape(channels // stride, stride, length, batch).swapaxes(1, 2)
  return x.reshape(channels // stride, length * stride, batch)


def _recurrent(shape, widths, strides, sizes, kernel, function, dropout):
  del kernel, function  # of convolutions
  decoder = RecurrentDecoder(shape, widths[::-1], strides[::-1], sizes[::-1], dropout)
  return RecurrentBody(widths, strides, dropout), decoder


def _convolutional(shape, widths, strides, sizes, kernel, function, dropout):
  decoder = ConvolutionalDecoder(shape, widths[::-1], strides[::-1], sizes[::-1], kernel, function, dropout)
  return ConvolutionalBody(widths, strides, kernel, function, dropout), decoder


# (shape, widths, strides, lengths before and after each stride, kernel, activation, rate of dropout) -> (body of the
# encoder, decoder)
CELLS = {"convolutional": _convolutional, "recurrent": _recurrent}


def build(shape, *, latent, cell, widths, strides, kernel, activation, attention_width, bottleneck, dropout=0.0):
  """CAT-AE for series [T, C] of any length, by the `cell` "convolutional" or "recurrent" (GRUs).

  Each of the layers with so many `widths` first makes one time of `strides` of them. `kernel` and `activation` are of
  the convolutional cell only, whose kernels span `kernel * stride` times. `dropout` is the rate behind each layer
  in training. Raises UserError.
  """
  errors.check_all_positive("model.widths", widths)
  errors.check_all_positive("model.strides", strides)
  check_rate(dropout)
  wanted = f"one number for each of the {len(widths)} layers of model.widths={widths}"
  errors.check(len(strides) == len(widths), "model.strides", strides, wanted)
  for key, value in {"kernel": kernel, "attention_width": attention_width}.items():
    errors.check_positive(f"model.{key}", value)
  errors.check_reach("model.kernel", kernel, shape[:1])
  function = activations.choose(activation, "activation")
  sizes = [shape[0]]
  for stride in strides:
    sizes.append(-(-sizes[-1] // stride))
  make = errors.choose(CELLS, cell, "model.cell")
  body, decoder = make(shape, widths, strides, tuple(sizes), kernel, function, dropout)
  return bottlenecks.build_autoencoder(
    bottleneck, latent, lambda outputs: AttentionPooling(outputs, body, attention_width), decoder
  )

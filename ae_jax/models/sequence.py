"""CAT-AE, an autoencoder of series with attention pooling (Sensors 22(1):123, 2022).

The encoder computes a sequence of states, pools the states to one context vector by attention, and maps the context
vector to the latents. The layers take series in the layout [C, T, B] (see `ae_jax.ops.convolutions`).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, Latents, Logits
from ae_jax.ops import convolutions
from ae_jax.types import AnyArray, Keys

Series = Float[AnyArray, "batch time channels"]
Signals = Float[AnyArray, "channels time batch"]  # series in the layout that the layers take
OutputSignals = Float[AnyArray, "features new_time batch"]
StatesAndQuery = tuple[Float[Array, "batch states features"], Float[Array, "batch features"]]

_KERNEL_INIT = nn.initializers.lecun_normal()


def concat_attention(
  states: Float[AnyArray, "batch time features"],
  query: Float[AnyArray, "batch query_features"],
  state_kernel: Float[AnyArray, "features width"],
  query_kernel: Float[AnyArray, "query_features width"],
  score: Float[AnyArray, " width"],
) -> tuple[Float[Array, "batch features"], Float[Array, "batch time"]]:
  """Computes "concat" attention (Luong, Pham & Manning 2015, section 3.1).

  The attention weights are the softmax over time of score^T tanh(W [state; query]), where W consists of `state_kernel`
  and `query_kernel`. The context vector is the weighted sum of the states.

  Returns:
    The context vectors [B, D] and the attention weights [B, T].
  """
  hidden = jnp.tanh(states @ state_kernel[None] + (query @ query_kernel)[:, None])  # [B, T, A]
  weights = jax.nn.softmax((hidden * score[None, None]).sum(-1), axis=-1)  # [B, T]
  return (weights[..., None] * states).sum(1), weights


class AttentionPooling(nn.Module):
  """An encoder that pools the states of `body` by attention: [B, T, C] -> [B, states, D] -> [B, D] -> [B, outputs].

  `concat_attention` pools the states to one vector, and a dense layer maps this vector to the outputs. If the Flax
  collection "attention" is mutable, the attention weights [B, 1 (head), 1 (query), states] are sown in it as "weights".
  """

  outputs: int
  body: nn.Module  # [B, T, C] -> (states [B, states, D], query [B, D])
  width: int  # width of the hidden layer that computes the attention scores

  @nn.compact
  def __call__(self, x: Series, dropout: Keys | None = None) -> Float[Array, "batch outputs"]:
    states, query = self.body(x, dropout)
    size = (states.shape[-1], self.width)
    state_kernel, query_kernel = (self.param(f"{name}_kernel", _KERNEL_INIT, size) for name in ("state", "query"))
    score = self.param("score", nn.initializers.normal(self.width**-0.5), (self.width,))
    context, weights = concat_attention(states, query, state_kernel, query_kernel, score)
    if self.is_mutable_collection("attention"):
      self.sow("attention", "weights", weights[:, None, None])
    return nn.Dense(self.outputs, name="code")(context)


class GRU(nn.Module):
  """A gated recurrent unit (GRU) with the initial state `initial` [width, B]: [C, T, B] -> states [width, T, B].

  The result is the same as that of `nn.RNN(nn.GRUCell)`. Here the batch is the contiguous axis, and one matrix product
  multiplies the inputs of all time steps. The parameters of the three gates are in the order reset, update, new.
  """

  width: int

  @nn.compact
  def __call__(self, x: Signals, initial: Float[AnyArray, "width batch"]) -> Float[Array, "width time batch"]:
    channels, length, batch = x.shape
    kernel = self.param("kernel", _KERNEL_INIT, (channels, 3 * self.width))
    bias = self.param("bias", nn.initializers.zeros, (3, self.width))
    recurrent = [self.param(f"recurrent_{gate}", nn.initializers.orthogonal(), (self.width,) * 2) for gate in "run"]
    recurrent = jnp.concatenate(recurrent, axis=1).T  # [3 * width, width]
    recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.width,))
    inputs = (kernel.T @ x.reshape(channels, length * batch)).reshape(3, self.width, length, batch)
    inputs = (inputs + bias[..., None, None]).transpose(2, 0, 1, 3)  # [T, 3, width, B]

    def step(h, inputs):
      from_state = (recurrent @ h).reshape(inputs.shape)
      reset, update = nn.sigmoid(inputs[:2] + from_state[:2])
      new = jnp.tanh(inputs[2] + reset * (from_state[2] + recurrent_bias[:, None]))
      h = new + update * (h - new)
      return h, h

    return lax.scan(step, initial, inputs)[1].swapaxes(0, 1)


class RecurrentBody(nn.Module):
  """Layers that each apply `fold` and then a GRU: [B, T, C] -> (states [B, T', D], query [B, D]).

  The query is the last state. A layer with stride s shortens T to ceil(T / s).
  """

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  dropout: float

  @nn.compact
  def __call__(self, x: Series, dropout: Keys | None = None) -> StatesAndQuery:
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for number, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h = GRU(width)(fold(h, stride), jnp.zeros((width, x.shape[0]), x.dtype))
      h = drop(h, dropout, self.dropout, number, -1)
    states = h.transpose(2, 1, 0)
    return states, states[:, -1]


class RecurrentDecoder(nn.Module):
  """Recurrent layers: [B, latent] -> logits [B, T, C].

  Each layer applies a GRU, an affine map of each time step, and `unfold`. For each GRU, a dense layer maps the latents
  to the initial state. The input of the first GRU is the latents, repeated at every time step. The input of each later
  GRU is the output of the previous layer.
  """

  shape: tuple[int, int]
  widths: tuple[int, ...]
  strides: tuple[int, ...]
  sizes: tuple[int, ...]  # length of the series in the first GRU, then after each layer
  dropout: float

  @nn.compact
  def __call__(self, z: Latents, dropout: Keys | None = None) -> Logits:
    h = jnp.broadcast_to(z.T[:, None], (z.shape[1], self.sizes[0], z.shape[0]))  # [latent, T', B]
    layers = zip(self.widths, (*self.widths[1:], self.shape[1]), self.strides, self.sizes[1:], strict=True)
    for number, (width, features, stride, size) in enumerate(layers):
      h = GRU(width)(h, jnp.tanh(nn.Dense(width)(z)).T)
      h = drop(h, dropout, self.dropout, DECODER + number, -1)
      h = unfold(Conv(features * stride, 1)(h), stride)[:, :size]
    return h.transpose(2, 1, 0)


class Conv(nn.Module):
  """A convolution with bias and zero padding that keeps the length: [C, T, B] -> [features, T, B]."""

  features: int
  kernel: int

  @nn.compact
  def __call__(self, x: Signals) -> Float[Array, "features time batch"]:
    kernel = self.param("kernel", _KERNEL_INIT, (self.kernel, 1, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    before = (self.kernel - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, self.kernel - 1 - before), (0, 0)))
    return convolutions.conv(x[:, :, None], kernel)[:, :, 0] + bias[:, None, None]


class ConvolutionalBody(nn.Module):
  """Stages of `fold`, convolution and activation: [B, T, C] -> (states [B, T', D], query [B, D]).

  The query is the mean of the states. A stage with stride s shortens T to ceil(T / s). The last stage adds a learned
  position embedding to each state, so that the mean of the states can represent the whole series.
  """

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x: Series, dropout: Keys | None = None) -> StatesAndQuery:
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h = Conv(width, self.kernel)(fold(h, stride))
      if stage == len(self.widths) - 1:
        h = h + self.param("place", nn.initializers.normal(1.0), h.shape[:2])[..., None]
      h = drop(self.activation(h), dropout, self.dropout, stage, -1)
    states = h.transpose(2, 1, 0)
    return states, states.mean(1)


class ConvolutionalDecoder(nn.Module):
  """A dense layer, then stages of activation, convolution and `unfold`: [B, latent] -> logits [B, T, C]."""

  shape: tuple[int, int]
  widths: tuple[int, ...]  # channels of the shortest series, then of the output of each stage except the last
  strides: tuple[int, ...]
  sizes: tuple[int, ...]  # length of the shortest series, then of the output of each stage
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, z: Latents, dropout: Keys | None = None) -> Logits:
    shortest = (self.widths[0], self.sizes[0])
    h = nn.Dense(math.prod(shortest))(z).T.reshape(*shortest, z.shape[0])  # [C, T', B]
    stages = zip((*self.widths[1:], self.shape[1]), self.strides, self.sizes[1:], strict=True)
    for number, (width, stride, size) in enumerate(stages):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = unfold(Conv(width * stride, self.kernel)(h), stride)[:, :size]
    return h.transpose(2, 1, 0)


def fold(x: Signals, stride: int) -> OutputSignals:
  """Concatenates the channels of `stride` successive time steps: [C, T, B] -> [C * stride, ceil(T / stride), B]."""
  channels, length, batch = x.shape
  x = jnp.pad(x, ((0, 0), (0, -length % stride), (0, 0)))
  x = x.reshape(channels, -1, stride, batch).swapaxes(1, 2)
  return x.reshape(channels * stride, -1, batch)


def unfold(x: Signals, stride: int) -> OutputSignals:
  """Inverts `fold`: [C * stride, T, B] -> [C, T * stride, B]."""
  channels, length, batch = x.shape
  x = x.reshape(channels // stride, stride, length, batch).swapaxes(1, 2)
  return x.reshape(channels // stride, length * stride, batch)


def _recurrent(shape, widths, strides, sizes, kernel, function, dropout):
  del kernel, function  # used only by the convolutional cell
  decoder = RecurrentDecoder(shape, widths[::-1], strides[::-1], sizes[::-1], dropout)
  return RecurrentBody(widths, strides, dropout), decoder


def _convolutional(shape, widths, strides, sizes, kernel, function, dropout):
  decoder = ConvolutionalDecoder(shape, widths[::-1], strides[::-1], sizes[::-1], kernel, function, dropout)
  return ConvolutionalBody(widths, strides, kernel, function, dropout), decoder


# config.model.cell -> function (shape, widths, strides, sizes, kernel, activation, dropout rate) that returns (encoder
# body, decoder). `sizes` holds the length of the series, then the length after each layer of the encoder.
CELLS = {"convolutional": _convolutional, "recurrent": _recurrent}


def build(
  shape: tuple[int, ...],
  *,
  latent: Any,
  cell: Any,
  widths: Any,
  strides: Any,
  kernel: Any,
  activation: Any,
  attention_width: Any,
  bottleneck: Any,
  dropout: Any = 0.0,
) -> AutoencoderModule:
  """Builds the CAT-AE for series [T, C].

  `cell` is a key of `CELLS`. `widths` and `strides` have one number per layer. Only the convolutional cell uses
  `activation` and `kernel`; a kernel spans `kernel * stride` time steps. `dropout` is the dropout rate after each layer
  in training.

  Raises:
    UserError: An option is invalid.
  """
  errors.check_all_positive("model.widths", widths)
  errors.check_all_positive("model.strides", strides)
  check_rate(dropout)
  wanted = f"one number for each of the {len(widths)} layers of config.model.widths={widths}"
  errors.check(len(strides) == len(widths), "model.strides", strides, wanted)
  for key, value in {"kernel": kernel, "attention_width": attention_width}.items():
    errors.check_positive(f"model.{key}", value)
  errors.check_kernel_size("model.kernel", kernel, shape[:1])
  function = activations.choose(activation, "activation")
  sizes = [shape[0]]
  for stride in strides:
    sizes.append(-(-sizes[-1] // stride))
  build_cell = errors.choose(CELLS, cell, "model.cell")
  body, decoder = build_cell(shape, widths, strides, tuple(sizes), kernel, function, dropout)
  return bottlenecks.build_autoencoder(
    bottleneck, latent, lambda outputs: AttentionPooling(outputs, body, attention_width), decoder
  )

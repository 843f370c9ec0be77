"""CAT-AE, an autoencoder of series with attention pooling (Sensors 22(1):123, 2022).

The encoder computes a sequence of states, pools the states to one context vector by attention, and maps the context
vector to the latents. The layers expect series in the layout [C, T, B] (see `ae_jax.models.signals`).

If the data have a mask, e.g. because the series have unequal lengths, the encoder ignores the steps without an observed
value: they change neither the states nor the latents.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, Latents, Logits
from ae_jax.models.signals import GRU, KERNEL_INIT, Conv, Steps, fold, folded, observed_only, unfold
from ae_jax.types import AnyArray, Keys

Series = Float[AnyArray, "batch time channels"]
# (states, query, mask of the states that contain an observed step; the mask is None if the data have no mask)
ObservedStates = Bool[AnyArray, "states batch"]
StatesAndQuery = tuple[Float[Array, "batch states features"], Float[Array, "batch features"], ObservedStates | None]


def concat_attention(
  states: Float[AnyArray, "batch time features"],
  query: Float[AnyArray, "batch query_features"],
  state_kernel: Float[AnyArray, "features width"],
  query_kernel: Float[AnyArray, "query_features width"],
  score: Float[AnyArray, " width"],
  mask: Bool[AnyArray, "batch time"] | None = None,
) -> tuple[Float[Array, "batch features"], Float[Array, "batch time"]]:
  """Computes "concat" attention (Luong, Pham & Manning 2015, section 3.1).

  The attention weights are the softmax over time of score^T tanh(W [state; query]), where W consists of `state_kernel`
  and `query_kernel`. The context vector is the weighted sum of the states. States whose `mask` is False have weight 0.

  Returns:
    The context vectors [B, D] and the attention weights [B, T].
  """
  hidden = jnp.tanh(states @ state_kernel[None] + (query @ query_kernel)[:, None])  # [B, T, A]
  scores = (hidden * score[None, None]).sum(-1)
  if mask is not None:
    least = jnp.asarray(jnp.finfo(scores.dtype).min / 2, scores.dtype)  # finite: no NaN even if all states are masked
    scores = jnp.where(mask, scores, least)
  weights = jax.nn.softmax(scores, axis=-1)  # [B, T]
  return (weights[..., None] * states).sum(1), weights


class AttentionPooling(nn.Module):
  """An encoder that pools the states of `body` by attention: [B, T, C] -> [B, states, D] -> [B, D] -> [B, outputs].

  `concat_attention` pools the states to one vector, and a dense layer maps this vector to the outputs. If the Flax
  collection "attention" is mutable, the attention weights [B, 1 (head), 1 (query), states] are sown in it as "weights".
  """

  outputs: int
  body: nn.Module  # ([B, T, C], dropout, steps or None) -> `StatesAndQuery`
  width: int  # width of the hidden layer that computes the attention scores

  @nn.compact
  def __call__(
    self, x: Series, dropout: Keys | None = None, mask: Float[AnyArray, "batch time channels"] | None = None
  ) -> Float[Array, "batch outputs"]:
    steps = None if mask is None else (mask > 0).any(-1).T  # [T, B]
    x = x if mask is None else jnp.where(mask > 0, x, jnp.zeros((), x.dtype))
    states, query, steps = self.body(x, dropout, steps)
    observed = None if steps is None else steps.T
    size = (states.shape[-1], self.width)
    state_kernel, query_kernel = (self.param(f"{name}_kernel", KERNEL_INIT, size) for name in ("state", "query"))
    score = self.param("score", nn.initializers.normal(self.width**-0.5), (self.width,))
    context, weights = concat_attention(states, query, state_kernel, query_kernel, score, observed)
    if self.is_mutable_collection("attention"):
      self.sow("attention", "weights", weights[:, None, None])
    return nn.Dense(self.outputs, name="code")(context)


class RecurrentBody(nn.Module):
  """Layers that each apply `fold` and then a GRU: [B, T, C] -> (states [B, T', D], query [B, D], steps [T', B]).

  The query is the last state. A layer with stride s shortens T to ceil(T / s).
  """

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  dropout: float

  @nn.compact
  def __call__(self, x: Series, dropout: Keys | None = None, steps: Steps | None = None) -> StatesAndQuery:
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for number, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h, steps = fold(observed_only(h, steps), stride), folded(steps, stride)
      h = GRU(width)(h, jnp.zeros((width, x.shape[0]), x.dtype), steps)
      h = drop(h, dropout, self.dropout, number, -1)
    states = h.transpose(2, 1, 0)
    return states, states[:, -1], steps


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


class ConvolutionalBody(nn.Module):
  """Stages of `fold`, convolution and activation: [B, T, C] -> (states [B, T', D], query [B, D], steps [T', B]).

  The query is the mean of the states. If `steps` are given, states without an observed step are 0 and are omitted from
  the mean. A stage with stride s shortens T to ceil(T / s). The last stage adds a learned position embedding to each
  state, so that the mean of the states can represent the whole series.
  """

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x: Series, dropout: Keys | None = None, steps: Steps | None = None) -> StatesAndQuery:
    h = x.transpose(2, 1, 0)  # [C, T, B]
    for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
      h, steps = Conv(width, self.kernel)(fold(h, stride)), folded(steps, stride)
      if stage == len(self.widths) - 1:
        h = h + self.param("place", nn.initializers.normal(1.0), h.shape[:2])[..., None]
      h = observed_only(drop(self.activation(h), dropout, self.dropout, stage, -1), steps)
    states = h.transpose(2, 1, 0)
    if steps is None:
      return states, states.mean(1), None
    return states, states.sum(1) / jnp.maximum(steps.sum(0), 1)[:, None].astype(states.dtype), steps


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
  masked: bool,
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
  in training. If `masked`, the encoder also reads the column "mask".

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
    bottleneck, latent, lambda outputs: AttentionPooling(outputs, body, attention_width), decoder, masked=masked
  )

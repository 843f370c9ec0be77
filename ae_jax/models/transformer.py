"""The attention autoencoder: a transformer whose tokens are patches of an image, or groups of steps of a series.

In the encoder, a few learned queries pool the patch tokens by cross-attention, and a dense layer maps the result to the
latents. In the decoder, a dense layer maps the latents to a few memory tokens, and one learned query per patch attends
to the memory tokens.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, attention, bottlenecks, layouts
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, Examples, Latents, Logits
from ae_jax.types import AnyArray, Keys

_UNROLLED = 4  # blocks per iteration of the compiled loop; 4 or fewer blocks compile without a loop

Tokens = Float[AnyArray, "batch tokens width"]

_SMALL, _UNIT = nn.initializers.normal(0.02), nn.initializers.normal(1.0)


@dataclasses.dataclass(frozen=True)
class Layers:
  """Hyperparameters shared by all layers of a model."""

  width: int  # number of features of a token
  hidden: int  # width of the hidden layer of a block
  activation: Callable
  heads: int
  scaled: bool
  qk_norm: bool
  dropout: float

  def attention(self, name: str) -> attention.MultiHeadAttention:
    """Returns an attention layer whose Flax module is called `name`."""
    return attention.MultiHeadAttention(self.width, self.heads, self.scaled, self.qk_norm, name=name)


class Block(nn.Module):
  """A pre-norm transformer block, [B, N, width] -> [B, N, width]: self-attention, then a two-layer perceptron.

  Self-attention and the perceptron each have an RMS norm of the input and a residual connection. Dropout is applied to
  their outputs before the residual sum (Vaswani et al. 2017, section 5.4).
  """

  layers: Layers

  @nn.compact
  def __call__(self, h: Tokens, dropout: Keys | None = None, number: int | jax.Array = 0) -> Tokens:
    rate = self.layers.dropout
    h = h + drop(self.layers.attention("attention")(nn.RMSNorm()(h)), dropout, rate, 2 * number)
    hidden = self.layers.activation(attention.Dense(self.layers.hidden)(nn.RMSNorm()(h)))
    return h + drop(attention.Dense(self.layers.width)(hidden), dropout, rate, 2 * number + 1)


def blocks(layers: Layers, depth: int, first: int = 0) -> Callable[[Tokens, Keys | None], Tokens]:
  """Returns a function (tokens, dropout keys) -> tokens that applies `depth` blocks.

  The blocks have stacked parameters, so the size of the compiled program does not grow with `depth`. Blocks are
  numbered from `first`; each number gives different dropout masks.
  """

  def body(block, h, number, dropout):
    return block(h, dropout, number), None

  scanned = nn.scan(
    body,
    variable_axes={"params": 0, "attention": 0},
    split_rngs={"params": True},
    in_axes=(0, nn.broadcast),
    length=depth,
    unroll=_UNROLLED,
  )
  stack = Block(layers, name="blocks")
  return lambda h, dropout: scanned(stack, h, first + jnp.arange(depth), dropout)[0]


class AttentionEncoder(nn.Module):
  """An encoder of images [B, H, W, C] or series [B, T, C] -> [B, outputs].

  It embeds the patches, adds learned position embeddings, and applies `depth` blocks. Then `queries` learned queries
  pool the tokens by cross-attention, and a dense layer maps the concatenated results to the outputs.
  """

  outputs: int
  patch: int
  depth: int
  queries: int
  layers: Layers

  @nn.compact
  def __call__(self, x: Examples, dropout: Keys | None = None) -> Float[Array, "batch outputs"]:
    patches, width = patchify(x, self.patch), self.layers.width
    positions = self.param("positions", _SMALL, (patches.shape[1], width))
    h = attention.Dense(width, name="embedding")(patches) + positions[None]
    h = blocks(self.layers, self.depth)(h, dropout)
    queries = self.param("queries", _UNIT, (self.queries, width))
    pooled = self.layers.attention("pool")(queries[None], nn.RMSNorm()(h))
    return nn.Dense(self.outputs, name="code")(pooled.reshape(x.shape[0], self.queries * width))


class AttentionDecoder(nn.Module):
  """A decoder of latents [B, latent] -> logits [B, *shape].

  A dense layer maps the latents to `memory` tokens, and one learned query per patch attends to these tokens. Then
  `depth` blocks are applied, and a dense layer maps each token to the values of its patch.
  """

  shape: tuple[int, ...]
  patch: int
  depth: int
  memory: int
  layers: Layers

  @nn.compact
  def __call__(self, z: Latents, dropout: Keys | None = None) -> Logits:
    size, patches = self.layers.width, patch_count(self.shape, self.patch)
    values = math.prod(layouts.square(self.patch, self.shape)) * self.shape[-1]
    memory = nn.Dense(self.memory * size, name="memory")(z).reshape(z.shape[0], self.memory, size)
    positions = self.param("positions", _UNIT, (patches, size))[None]
    h = positions + self.layers.attention("unpool")(positions, memory)
    h = blocks(self.layers, self.depth, DECODER)(h, dropout)
    return unpatchify(attention.Dense(values, name="logits")(nn.RMSNorm()(h)), self.shape, self.patch)


def patch_count(shape: tuple[int, ...], patch: int) -> int:
  """Returns the number of patches of an image (H, W, C) or of a series (T, C)."""
  return math.prod(-(-side // patch) for side in shape[:-1])


def patchify(x: Examples, patch: int) -> Float[AnyArray, "batch patches values"]:
  """Splits images into square patches, row by row: [B, H, W, C] -> [B, patches, patch**2 * C].

  Images whose sides are not multiples of `patch` are padded with zeros at the right and the lower edge. Series are
  split into groups of `patch` steps, with zeros after the last step: [B, T, C] -> [B, patches, patch * C].
  """
  batch, *sides, channels = x.shape
  if any(side % patch for side in sides):
    x = jnp.pad(x, [(0, 0), *((0, -side % patch) for side in sides), (0, 0)])
  if x.ndim == 3:
    return x.reshape(batch, -1, patch * channels)
  rows, columns = x.shape[1] // patch, x.shape[2] // patch
  squares = x.reshape(batch, rows, patch, columns, patch, channels).swapaxes(2, 3)
  return squares.reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(patches: Float[AnyArray, "batch patches values"], shape: tuple[int, ...], patch: int) -> Examples:
  """Inverts `patchify`: returns the images or series [B, *shape] without the padding."""
  if len(shape) == 2:
    return patches.reshape(patches.shape[0], -1, shape[1])[:, : shape[0]]
  height, width, channels = shape
  rows, columns = -(-height // patch), -(-width // patch)
  squares = patches.reshape(-1, rows, columns, patch, patch, channels).swapaxes(2, 3)
  images = squares.reshape(-1, rows * patch, columns * patch, channels)
  return images if images.shape[1:3] == (height, width) else images[:, :height, :width]


def build(
  shape: tuple[int, ...],
  *,
  latent: Any,
  patch: Any,
  width: Any,
  hidden: Any,
  heads: Any,
  depth: Any,
  decoder_depth: Any,
  queries: Any,
  memory: Any,
  activation: Any,
  scaled: Any,
  qk_norm: Any,
  bottleneck: Any,
  dropout: Any = 0.0,
) -> AutoencoderModule:
  """Builds the attention autoencoder for images [H, W, C] or series [T, C].

  `patch` is the side of a patch in pixels; images whose sides are not multiples of it are padded inside the model. For
  series, it is the number of time steps of a patch. `heads` must divide `width`, the number of features of a token. The
  encoder has `depth` blocks and `queries` learned queries. The decoder has `memory` memory tokens and `decoder_depth`
  blocks. `scaled` and `qk_norm` are options of `attention.MultiHeadAttention`. `dropout` is the dropout rate in
  training.

  Raises:
    UserError: An option is invalid.
  """
  positive = {"patch": patch, "width": width, "hidden": hidden, "depth": depth, "decoder_depth": decoder_depth}
  for key, value in {**positive, "queries": queries, "memory": memory}.items():
    errors.check_positive(f"model.{key}", value)
  for key, value in {"scaled": scaled, "qk_norm": qk_norm}.items():
    errors.check_flag(f"model.{key}", value)
  attention.check_heads(width, heads)
  check_rate(dropout)
  longest = max(shape[:-1])
  name = "the longer side" if len(shape) == 3 else "the number of steps of a series"
  errors.check(patch <= longest, "model.patch", patch, f"at most {name}, {longest}")
  layers = Layers(width, hidden, activations.choose(activation, "activation"), heads, scaled, qk_norm, dropout)
  decoder = AttentionDecoder(shape, patch, decoder_depth, memory, layers)
  return bottlenecks.build_autoencoder(
    bottleneck, latent, lambda outputs: AttentionEncoder(outputs, patch, depth, queries, layers), decoder
  )

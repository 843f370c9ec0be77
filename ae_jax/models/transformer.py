"""The attention autoencoder: patches of an image are tokens, and all that passes between them passes by attention.

A few learned latent queries gather the code from the tokens of the patches; on the way back a learned query of each
patch gathers the patch from a few tokens that the code is unfolded to.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations, attention, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop

_UNROLLED = 4  # blocks that are compiled one after the other; more of them are a loop

_SMALL, _UNIT = nn.initializers.normal(0.02), nn.initializers.normal(1.0)


@dataclasses.dataclass(frozen=True)
class Layers:
  """What all layers of a model have in common."""

  width: int  # of a token
  hidden: int
  activation: Callable
  heads: int
  scaled: bool
  qk_norm: bool
  dropout: float

  def attention(self, name):
    """A layer of attention; the path of its weights ends with its name."""
    return attention.MultiHeadAttention(self.width, self.heads, self.scaled, self.qk_norm, name=name)


class Block(nn.Module):
  """Self-attention, then a hidden layer, each behind a norm and beside a residual: [B, N, width] -> the same.

  Dropout acts on the output of both before it is added (Vaswani et al. 2017, section 5.4).
  """

  layers: Layers

  @nn.compact
  def __call__(self, h, dropout=None, number=0):
    rate = self.layers.dropout
    h = h + drop(self.layers.attention("attention")(nn.RMSNorm()(h)), dropout, rate, 2 * number)
    hidden = self.layers.activation(attention.Dense(self.layers.hidden)(nn.RMSNorm()(h)))
    return h + drop(attention.Dense(self.layers.width)(hidden), dropout, rate, 2 * number + 1)


def blocks(layers, depth, first=0):
  """Returns a function of `depth` blocks, whose parameters are stacked, so that one block is traced and compiled.

  `first` is the number of the first block, by which dropout tells the blocks of a model apart.
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
  """[B, H, W, C] -> patches and their positions -> blocks -> the latent queries look at them -> [B, outputs]."""

  outputs: int
  patch: int
  depth: int
  queries: int
  layers: Layers

  @nn.compact
  def __call__(self, x, dropout=None):
    patches, width = patchify(x, self.patch), self.layers.width
    positions = self.param("positions", _SMALL, (patches.shape[1], width))
    h = attention.Dense(width, name="embedding")(patches) + positions[None]
    h = blocks(self.layers, self.depth)(h, dropout)
    queries = self.param("queries", _UNIT, (self.queries, width))
    pooled = self.layers.attention("pool")(queries[None], nn.RMSNorm()(h))
    return nn.Dense(self.outputs, name="code")(pooled.reshape(x.shape[0], self.queries * width))


class AttentionDecoder(nn.Module):
  """Codes [B, latent] -> memory tokens -> a query of each patch looks at them -> blocks -> logits [B, *shape]."""

  shape: tuple[int, int, int]
  patch: int
  depth: int
  memory: int
  layers: Layers

  @nn.compact
  def __call__(self, z, dropout=None):
    (height, width, channels), size = self.shape, self.layers.width
    memory = nn.Dense(self.memory * size, name="memory")(z).reshape(z.shape[0], self.memory, size)
    positions = self.param("positions", _UNIT, (height * width // self.patch**2, size))[None]
    h = positions + self.layers.attention("unpool")(positions, memory)
    h = blocks(self.layers, self.depth, DECODER)(h, dropout)
    patches = attention.Dense(self.patch**2 * channels, name="logits")(nn.RMSNorm()(h))
    return unpatchify(patches, self.shape, self.patch)


def patchify(x, patch):
  """Images [B, H, W, C] -> their squares, row by row: [B, H * W / patch**2, patch**2 * C]."""
  batch, height, width, channels = x.shape
  rows, columns = height // patch, width // patch
  squares = x.reshape(batch, rows, patch, columns, patch, channels).swapaxes(2, 3)
  return squares.reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(patches, shape, patch):
  """The images [B, *shape] that `patchify` cut into these patches."""
  height, width, channels = shape
  squares = patches.reshape(-1, height // patch, width // patch, patch, patch, channels)
  return squares.swapaxes(2, 3).reshape(-1, *shape)


def build(
  shape,
  *,
  latent,
  patch,
  width,
  hidden,
  heads,
  depth,
  decoder_depth,
  queries,
  memory,
  activation,
  scaled,
  qk_norm,
  bottleneck,
  dropout=0.0,
):
  """The attention autoencoder of images whose sides `patch` divides, with blocks of `heads` dividing `width`.

  The encoder has `depth` blocks and `queries` latent queries, the decoder `memory` tokens and `decoder_depth` blocks;
  `dropout` is the rate in training. Raises UserError.
  """
  positive = {"patch": patch, "width": width, "hidden": hidden, "depth": depth, "decoder_depth": decoder_depth}
  for key, value in {**positive, "queries": queries, "memory": memory}.items():
    errors.check_positive(f"model.{key}", value)
  for key, value in {"scaled": scaled, "qk_norm": qk_norm}.items():
    errors.check_flag(f"model.{key}", value)
  attention.check_heads(width, heads)
  check_rate(dropout)
  divides = all(side % patch == 0 for side in shape[:2])
  common = math.gcd(*shape[:2])
  known = ", ".join(str(side) for side in range(1, common + 1) if common % side == 0)
  errors.check(divides, "model.patch", patch, f"a divisor of both sides of an image of {shape[0]}x{shape[1]}: {known}")
  layers = Layers(width, hidden, activations.choose(activation, "activation"), heads, scaled, qk_norm, dropout)
  decoder = AttentionDecoder(shape, patch, decoder_depth, memory, layers)
  return bottlenecks.build_autoencoder(
    bottleneck, latent, lambda outputs: AttentionEncoder(outputs, patch, depth, queries, layers), decoder
  )

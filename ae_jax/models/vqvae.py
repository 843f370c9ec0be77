"""The VQ-VAE: a grid of codes from a learned codebook (van den Oord et al. 2017).

Inside, images are laid out [C, H, W, B] (see `ae_jax.ops.convolutions`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations, unet
from ae_jax.models.convolutional import Conv, conv_pool, down
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding
from ae_jax.models.upsampling import ResizeConv
from ae_jax.ops import convolutions

_SMOOTHING = 1e-5  # Laplace smoothing of the counts, so that no count is 0
_REVIVAL = 0x5E  # folded into an example's key for the choice of candidates


class GridEncoder(nn.Module):
  """Per stage convolution, 2x2 max-pooling, activation; then two convolutions: [B, H, W, C] -> [B, h, w, latent]."""

  latent: int
  channels: tuple[int, ...]
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x, dropout=None):
    h = x.transpose(3, 1, 2, 0)  # [C, H, W, B]
    h = down(h, self, conv_same_pool, dropout)
    h = self.activation(Conv(self.channels[-1], self.kernel, convolutions.conv_same)(h))
    return Conv(self.latent, 1, convolutions.conv_same, name="code")(h).transpose(3, 1, 2, 0)


class GridDecoder(nn.Module):
  """A convolution; then per stage enlarging (nearest pixel) and a convolution: [B, h, w, latent] -> logits."""

  shape: tuple[int, int, int]
  channels: tuple[int, ...]  # the encoder's
  sizes: tuple[tuple[int, int], ...]  # of the image and after each pooling
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, z, dropout=None):
    h = z.transpose(3, 1, 2, 0)  # [latent, h, w, B]
    h = Conv(self.channels[-1], self.kernel, convolutions.conv_same)(h)
    stages = zip((self.shape[2], *self.channels[:-1]), self.sizes[:-1], strict=True)
    for number, (features, size) in enumerate(reversed(list(stages))):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = ResizeConv(features, (self.kernel, self.kernel), size, "nearest")(h)
    return h.transpose(3, 1, 2, 0)


def conv_same_pool(h, kernel):
  """A convolution that keeps the size, then 2x2 max-pooling: [C, H, W, B] -> [C', H // 2, W // 2, B]."""
  return conv_pool(convolutions.pad_same(h, kernel.shape[:2]), kernel)


class VQVAE(AutoencoderModule):
  """An encoder to a grid of vectors, each replaced by the nearest of a codebook, and a decoder of the grid.

  The gradient passes the codebook unchanged (straight-through). The codebook is a state: the moving average of the
  vectors that were assigned to each entry (appendix A.1 of the paper). An entry whose moving count falls below
  `revive_below` times the mean is dead: it restarts at a vector of the batch, with a count of 1.
  """

  encoder: nn.Module
  decoder: nn.Module
  grid: tuple[int, int]
  latent: int  # numbers of a codebook vector
  codebook_size: int
  commitment: float  # weight of the squared distance between the encoder's vectors and their codebook entries
  decay: float
  revive_below: float

  @property
  def code_spec(self):
    shape, size = (*self.grid, self.latent), self.codebook_size
    return CodeSpec(shape, None, levels=size, index_shape=self.grid, shared_codebook=True)

  def setup(self):
    shape = (self.codebook_size, self.latent)
    self.codebook = self.variable("state", "codebook", lambda: jax.random.normal(self.make_rng("params"), shape))
    self.variable("state", "counts", lambda: jnp.ones(shape[:1]))
    self.variable("state", "sums", lambda: self.codebook.value)
    self.examples = self.variable("state", "examples", lambda: jnp.ones(()))

  def encode(self, x, given=None, dropout=None):
    vectors = self.encoder(x, dropout).astype(jnp.float32)  # [B, h, w, latent]
    indices = self._nearest(vectors)
    codes = self.lookup(indices)
    distance = jnp.square(vectors - jax.lax.stop_gradient(codes)).reshape(len(x), -1).sum(1)  # [B]
    z = jax.lax.stop_gradient(codes) + (vectors - jax.lax.stop_gradient(vectors))  # codes, bit for bit
    statistics = self._statistics(jax.lax.stop_gradient(vectors), indices, given, dropout)
    return Encoding(z, None, indices, {"commitment": self.commitment * distance}, statistics)

  def decode(self, z, given=None, dropout=None):
    return self.decoder(z, dropout)

  def nearest_codes(self, z):
    return self.lookup(self._nearest(z.astype(jnp.float32)))

  def lookup(self, indices):
    return self.codebook.value[indices]

  def _nearest(self, vectors):
    """The entries nearest to vectors [..., latent]: int32 [...]."""
    codebook = self.codebook.value
    flat = vectors.reshape(-1, self.latent)
    distances = jnp.square(codebook).sum(1)[None] - 2 * flat @ codebook.T  # less the square of the vector
    return distances.argmin(1).astype(jnp.int32).reshape(vectors.shape[:-1])

  def _statistics(self, vectors, indices, given, keys):
    """Sums over the examples: how often and to which vectors each entry was assigned, and candidates for dead ones.

    For each entry every example offers one of its vectors with probability 1 / examples. An entry that exactly one
    example offers to has a candidate. So the choice is a sum over examples, and depends on no division of the batch.
    """
    weight = jnp.ones(len(vectors)) if given is None or "weight" not in given else given["weight"].astype(jnp.float32)
    positions = self.grid[0] * self.grid[1]
    flat, rows = vectors.reshape(-1, self.latent), jnp.repeat(weight, positions)
    assigned = jax.nn.one_hot(indices.reshape(-1), self.codebook_size) * rows[:, None]  # [B * positions, entries]
    found = {"counts": assigned.sum(0), "sums": assigned.T @ flat, "examples": weight.sum()}
    offered = jnp.zeros((len(vectors), self.codebook_size))
    chosen = vectors[:, 0, 0]
    if keys is not None:
      draw = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, _REVIVAL)))(keys)  # [B, 2]
      where = jax.vmap(lambda key: jax.random.randint(key, (), 0, positions))(draw[:, 0])
      chosen = jax.vmap(lambda grid, place: grid.reshape(positions, -1)[place])(vectors, where)
      share = 1.0 / jnp.maximum(self.examples.value, 1.0)
      offered = jax.vmap(lambda key: jax.random.uniform(key, (self.codebook_size,)))(draw[:, 1]) < share
      offered = offered.astype(jnp.float32) * weight[:, None]
    return {**found, "offers": offered.sum(0), "candidates": offered.T @ chosen}

  @nn.nowrap
  def update_state(self, state, sums):
    """Returns the state after a step: moving averages, and dead entries restarted at their candidates."""
    average = lambda old, new: self.decay * old + (1.0 - self.decay) * new
    counts, totals = average(state["counts"], sums["counts"]), average(state["sums"], sums["sums"])
    dead = counts < self.revive_below * counts.mean()
    restarted = dead & (jnp.round(sums["offers"]) == 1.0)
    counts = jnp.where(restarted, 1.0, counts)
    totals = jnp.where(restarted[:, None], sums["candidates"], totals)
    smoothed = (counts + _SMOOTHING) / (counts.sum() + self.codebook_size * _SMOOTHING) * counts.sum()
    codebook = jnp.where(restarted[:, None], sums["candidates"], totals / smoothed[:, None])
    return {"codebook": codebook, "counts": counts, "sums": totals, "examples": sums["examples"]}


def build(
  shape,
  *,
  latent,
  channels,
  kernel,
  activation,
  codebook_size,
  commitment,
  decay,
  revive_below,
  dropout=0.0,
):
  """Returns the VQ-VAE of images, whose grid of codes is halved once for each number of `channels`.

  `latent` is the length of a codebook vector. Raises UserError, also for an image too small.
  """
  for key, value in {"latent": latent, "kernel": kernel}.items():
    errors.check_positive(f"model.{key}", value)
  errors.check_reach("model.kernel", kernel, shape[:2])
  errors.check_all_positive("model.channels", channels)
  large = isinstance(codebook_size, int) and not isinstance(codebook_size, bool) and 2 <= codebook_size <= 2**20
  errors.check(large, "model.codebook_size", codebook_size, f"an integer from 2 to {2**20}")
  errors.check_not_negative("model.commitment", commitment)
  for key, value in {"decay": decay, "revive_below": revive_below}.items():
    errors.check(errors.is_number(value) and 0 <= value < 1, f"model.{key}", value, "a number from 0 to below 1")
  check_rate(dropout)
  sizes = unet.stage_sizes(shape[:2], len(channels))
  function = activations.choose(activation, "activation")
  encoder = GridEncoder(latent, channels, kernel, function, dropout)
  decoder = GridDecoder(shape, channels, sizes, kernel, function, dropout)
  return VQVAE(encoder, decoder, sizes[-1], latent, codebook_size, commitment, decay, revive_below)

"""The VQ-VAE: the latent code is a grid of vectors from a learned codebook (van den Oord et al. 2017).

The layers expect images in the layout [C, H, W, B] (see `ae_jax.ops.convolutions`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ae_jax import errors
from ae_jax.models import activations, layouts, stage_sizes
from ae_jax.models.convolutional import Conv, conv_pool, down
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Logits
from ae_jax.models.upsampling import Maps, OutputMaps, ResizeConv
from ae_jax.ops import convolutions
from ae_jax.types import AnyArray, Columns, Keys

Grid = Float[AnyArray, "batch rows columns latent"]
GridIndices = Int[AnyArray, "batch rows columns"]

_SMOOTHING = 1e-5  # Laplace smoothing of the counts, so that no count is 0
_REVIVAL = 0x5E  # folded into an example's key to draw vectors that can replace dead codebook entries


class GridEncoder(nn.Module):
  """Stages of convolution, 2x2 max-pooling and activation, then two convolutions: [B, H, W, C] -> [B, h, w, latent].

  The last convolution has a 1x1 kernel and no activation.
  """

  latent: int
  channels: tuple[int, ...]
  kernel: tuple[int, int]
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x: Examples, dropout: Keys | None = None) -> Float[Array, "batch rows columns latent"]:
    h = x.transpose(3, 1, 2, 0)  # [C, H, W, B]
    h = down(h, self, conv_same_pool, dropout)
    h = self.activation(Conv(self.channels[-1], self.kernel, convolutions.conv_same)(h))
    return Conv(self.latent, (1, 1), convolutions.conv_same, name="code")(h).transpose(3, 1, 2, 0)


class GridDecoder(nn.Module):
  """A convolution, then stages of activation, upsampling and convolution: [B, h, w, latent] -> [B, H, W, C].

  Upsampling is nearest-neighbour interpolation.
  """

  shape: tuple[int, int, int]
  channels: tuple[int, ...]  # channels of the encoder stages
  sizes: tuple[tuple[int, int], ...]  # (height, width) of the image, then after each pooling
  kernel: tuple[int, int]
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, z: Grid, dropout: Keys | None = None) -> Logits:
    h = z.transpose(3, 1, 2, 0)  # [latent, h, w, B]
    h = Conv(self.channels[-1], self.kernel, convolutions.conv_same)(h)
    stages = zip((self.shape[2], *self.channels[:-1]), self.sizes[:-1], strict=True)
    for number, (features, size) in enumerate(reversed(list(stages))):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = ResizeConv(features, self.kernel, size, "nearest")(h)
    return h.transpose(3, 1, 2, 0)


def conv_same_pool(h: Maps, kernel: Float[AnyArray, "kh kw channels features"]) -> OutputMaps:
  """Applies a size-preserving convolution and 2x2 max-pooling: [C, H, W, B] -> [features, H // 2, W // 2, B]."""
  return conv_pool(convolutions.pad_same(h, kernel.shape[:2]), kernel)


class VQVAE(AutoencoderModule):
  """The VQ-VAE: encoder [B, H, W, C] -> grid [B, h, w, latent], nearest codebook entries, decoder -> [B, H, W, C].

  The gradient passes through the quantisation unchanged (straight-through estimator). The codebook is part of the state
  and has no gradient: each entry is the exponential moving average of the encoder's vectors assigned to the entry
  (appendix A.1 of the paper). The count of an entry is the moving average of its number of assigned vectors. An entry
  is dead if its count is below `revive_below` times the mean count. A dead entry is replaced by an encoder vector of
  the batch, and its count is set to 1.
  """

  encoder: nn.Module
  decoder: nn.Module
  grid: tuple[int, int]
  latent: int  # length of a codebook vector
  codebook_size: int
  commitment: float  # weight of the squared distance between the encoder's vectors and their codebook entries
  decay: float  # decay of the moving averages
  revive_below: float

  @property
  def code_spec(self) -> CodeSpec:
    shape, size = (*self.grid, self.latent), self.codebook_size
    return CodeSpec(shape, None, levels=size, index_shape=self.grid, shared_codebook=True)

  def setup(self) -> None:
    shape = (self.codebook_size, self.latent)
    self.codebook = self.variable("state", "codebook", lambda: jax.random.normal(self.make_rng("params"), shape))
    self.variable("state", "counts", lambda: jnp.ones(shape[:1]))
    self.variable("state", "sums", lambda: self.codebook.value)
    self.examples = self.variable("state", "examples", lambda: jnp.ones(()))

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    vectors = self.encoder(x, dropout).astype(jnp.float32)  # [B, h, w, latent]
    indices = self._nearest(vectors)
    quantised = jax.lax.stop_gradient(self.lookup(indices))
    distance = jnp.square(vectors - quantised).reshape(x.shape[0], -1).sum(1)  # [B]; len() refuses a symbolic size
    z = quantised + (vectors - jax.lax.stop_gradient(vectors))  # bitwise equal to the codebook entries
    statistics = self._statistics(jax.lax.stop_gradient(vectors), indices, batch, dropout)
    return Encoding(z.astype(x.dtype), None, indices, {"commitment": self.commitment * distance}, statistics)

  def decode(self, z: Grid, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    return self.decoder(z, dropout)

  def nearest_codes(self, z: Grid) -> Grid:
    return self.lookup(self._nearest(z.astype(jnp.float32)))

  def lookup(self, indices: GridIndices) -> Grid:
    return self.codebook.value[indices]

  def _nearest(self, vectors: Grid) -> GridIndices:
    """Returns the int32 index of the nearest codebook entry for each vector."""
    codebook = self.codebook.value
    flat = vectors.reshape(-1, self.latent)
    # Squared distances minus the squared norm of the vector, which does not change the nearest entry.
    distances = jnp.square(codebook).sum(1)[None] - 2 * flat @ codebook.T
    return distances.argmin(1).astype(jnp.int32).reshape(vectors.shape[:-1])

  def _statistics(
    self, vectors: Grid, indices: GridIndices, batch: Columns | None, keys: Keys | None
  ) -> dict[str, Array]:
    """Returns sums over the examples, from which `update_state` updates the codebook.

    The sums contain the vectors assigned to each entry, and candidates that can replace dead entries. Each example
    offers one of its vectors to each entry with probability 1 / (number of examples in the previous step). If an entry
    receives exactly one offer, the offered vector is its candidate. Sums of offers do not depend on how the batch is
    split.
    """
    count = vectors.shape[0]
    weight = jnp.ones(count) if batch is None or "weight" not in batch else batch["weight"].astype(jnp.float32)
    positions = self.grid[0] * self.grid[1]
    flat, rows = vectors.reshape(-1, self.latent), jnp.repeat(weight, positions)
    assigned = jax.nn.one_hot(indices.reshape(-1), self.codebook_size) * rows[:, None]  # [B * positions, entries]
    assignments = {"counts": assigned.sum(0), "sums": assigned.T @ flat, "examples": weight.sum()}
    offered = jnp.zeros((count, self.codebook_size))
    chosen = vectors[:, 0, 0]
    if keys is not None:
      draw = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, _REVIVAL)))(keys)  # [B, 2]
      position = jax.vmap(lambda key: jax.random.randint(key, (), 0, positions))(draw[:, 0])
      chosen = jax.vmap(lambda grid, index: grid.reshape(positions, -1)[index])(vectors, position)
      share = 1.0 / jnp.maximum(self.examples.value, 1.0)
      offered = jax.vmap(lambda key: jax.random.uniform(key, (self.codebook_size,)))(draw[:, 1]) < share
      offered = offered.astype(jnp.float32) * weight[:, None]
    return {**assignments, "offers": offered.sum(0), "candidates": offered.T @ chosen}

  @nn.nowrap
  def update_state(self, state: PyTree, sums: PyTree) -> PyTree:
    """Returns the state after a step: updated moving averages, and dead entries replaced by their candidates."""
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
  shape: tuple[int, ...],
  *,
  latent: Any,
  channels: Any,
  kernel: Any,
  activation: Any,
  codebook_size: Any,
  commitment: Any,
  decay: Any,
  revive_below: Any,
  dropout: Any = 0.0,
) -> VQVAE:
  """Builds the VQ-VAE for images [H, W, C].

  `latent` is the length of a codebook vector. `channels` has one number per encoder stage; each stage halves both sides
  of the image. `dropout` is the dropout rate after each hidden layer in training. For the options from `codebook_size`
  to `revive_below`, see `VQVAE`.

  Raises:
    UserError: An option is invalid, or the images are too small for the stages.
  """
  for key, value in {"latent": latent, "kernel": kernel}.items():
    errors.check_positive(f"model.{key}", value)
  errors.check_kernel_size("model.kernel", kernel, shape[:2])
  errors.check_all_positive("model.channels", channels)
  valid = isinstance(codebook_size, int) and not isinstance(codebook_size, bool) and 2 <= codebook_size <= 2**20
  errors.check(valid, "model.codebook_size", codebook_size, f"an integer from 2 to {2**20}")
  errors.check_not_negative("model.commitment", commitment)
  for key, value in {"decay": decay, "revive_below": revive_below}.items():
    errors.check(errors.is_number(value) and 0 <= value < 1, f"model.{key}", value, "a number in [0, 1)")
  check_rate(dropout)
  sizes = stage_sizes.halved(shape, len(channels))
  function = activations.choose(activation, "activation")
  kernel = layouts.square(kernel, shape)
  encoder = GridEncoder(latent, channels, kernel, function, dropout)
  decoder = GridDecoder(shape, channels, sizes, kernel, function, dropout)
  return VQVAE(encoder, decoder, sizes[-1], latent, codebook_size, commitment, decay, revive_below)

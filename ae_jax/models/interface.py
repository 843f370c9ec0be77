"""The interface of every autoencoder module, and the values that it takes and returns."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax.ops import losses

Columns = dict[str, jax.Array]
_NONE: dict = {}


class Variables(NamedTuple):
  """The arrays of a model: what gradients train, and what `update_state` changes instead."""

  params: Any
  state: Any = _NONE  # a pytree of arrays, {} for most models


class Gaussian(NamedTuple):
  """A gaussian with a diagonal covariance for each example, [B, *code shape] each."""

  mean: jax.Array
  log_variance: jax.Array


class CodeSpec(NamedTuple):
  """The shape and the kind of the latent code of a model.

  A code is a real array, or (`levels` is set) an array of discrete latents of `index_shape`, each of which has one of
  `levels` values. `size_axis` is the axis that a sweep over latent sizes pads with unused units; with None each latent
  size is compiled by itself.
  """

  shape: tuple[int, ...]  # of z, without the batch
  size_axis: int | None = 0
  low: float = -math.inf  # bounds of each number of z
  high: float = math.inf
  levels: int | None = None
  index_shape: tuple[int, ...] = ()
  shared_codebook: bool = False  # whether all discrete latents take their values from one codebook of vectors

  @property
  def numbers(self) -> int:
    """Returns how many numbers a code has: the budget of a baseline such as PCA."""
    return math.prod(self.shape)

  @property
  def bits(self) -> float | None:
    """Returns the size in bits of a discrete code; None for a real one."""
    return None if self.levels is None else math.prod(self.index_shape) * math.log2(self.levels)

  @property
  def is_vector(self) -> bool:
    """Returns whether the code is one vector, not a grid or a sequence."""
    return len(self.shape) == 1


class Encoding(NamedTuple):
  """The output of an encoder for a batch."""

  z: jax.Array  # [B, *code shape]: what `decode` takes
  posterior: Gaussian | None = None
  indices: jax.Array | None = None  # int32 [B, *index_shape] of a discrete code
  penalties: Columns = _NONE  # {name: [B]}: terms that are added to the loss of each example
  statistics: Any = _NONE  # a pytree of sums over the examples of the batch, which `update_state` takes


class AutoencoderModule(nn.Module):
  """The interface of a Flax module that is an autoencoder, with the defaults of what is optional.

  `given` holds the other columns of the batch: those that `columns` names, and perhaps `weight`, 0 for padding.
  `dropout` holds a random key for each example in training; None switches dropout off.
  """

  @property
  def code_spec(self) -> CodeSpec:
    """The shape and the kind of the latent code."""
    raise NotImplementedError

  @property
  def columns(self) -> tuple[str, ...]:
    """The columns of a batch, besides x, that encoder or decoder need: "label" for one."""
    return ()

  @property
  def labels(self) -> tuple[int, ...]:
    """The labels that the column "label" numbers, in this order."""
    return ()

  @property
  def has_posterior(self) -> bool:
    """True if `encode` returns a posterior."""
    return False

  @property
  def has_projection(self) -> bool:
    """True if `project` changes the parameters."""
    return False

  @property
  def has_skips(self) -> bool:
    """True if the module has `decode_beside`, a decoder that also receives skip connections of an example."""
    return False

  @property
  def layers(self) -> tuple:
    """The (encoder, decoder) of a model that can be trained layer by layer; () for others."""
    return ()

  def __call__(self, x, given=None, dropout=None) -> tuple[Encoding, jax.Array]:
    """Returns the encoding of examples [B, ...] and the logits of their reconstructions."""
    encoding = self.encode(x, given, dropout)
    return encoding, self.decode(encoding.z, given, dropout)

  def encode(self, x, given=None, dropout=None) -> Encoding:
    """Returns the encoding of examples [B, ...]."""
    raise NotImplementedError

  def decode(self, z, given=None, dropout=None) -> jax.Array:
    """Returns logits [B, ...] of codes [B, *code shape]."""
    raise NotImplementedError

  def nearest_codes(self, z) -> jax.Array:
    """Returns the codes nearest to z [B, *code shape] that `encode` can output; z itself if the code is real."""
    spec = self.code_spec
    if spec.levels is None:
      return z
    return self.lookup(jnp.round((z - spec.low) / (spec.high - spec.low) * (spec.levels - 1)))

  def lookup(self, indices) -> jax.Array:
    """Returns the code z [B, *code shape] of discrete latents int [B, *index_shape]."""
    spec = self.code_spec
    middle, steps = (spec.low + spec.high) / 2, (spec.levels - 1) / 2  # steps from the middle to a bound
    return middle + (spec.high - spec.low) / 2 * ((indices.astype(jnp.float32) - steps) / steps)

  def log_prior(self, z) -> jax.Array:
    """Returns the log density [B] in nats of the prior at codes; the standard normal unless overridden."""
    return -0.5 * (jnp.square(z) + math.log(2 * math.pi)).reshape(z.shape[0], -1).sum(-1)

  def sample_prior(self, key, count) -> jax.Array:
    """Returns `count` codes from the prior."""
    return jax.random.normal(key, (count, *self.code_spec.shape))

  def kl_to_prior(self, posterior, z) -> jax.Array:
    """Returns the KL divergence in nats [B, ...] of a posterior from the prior, by dimension.

    `z` is a sample of the posterior, for priors without a closed form: log q(z) - log p(z) is an estimate [B, 1]. A
    module with such a prior needs a code without `size_axis`, since masks of latent units apply by dimension.
    """
    del z
    return losses.gaussian_kl(posterior.mean, posterior.log_variance)

  @nn.nowrap
  def update_state(self, state, sums) -> Any:
    """Returns the next state from the sums of `Encoding.statistics` over all examples of a step."""
    del sums
    return state

  @nn.nowrap
  def project(self, params) -> Any:
    """Returns the parameters after an update, projected onto a constraint set."""
    return params

"""The interface of every autoencoder module, and the types that its methods take and return."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns, Keys, Params

_EMPTY: dict = {}

Examples = Float[AnyArray, "batch *shape"]  # images [B, H, W, C] or series [B, T, C]
Latents = Float[AnyArray, "batch *latent"]
Logits = Float[AnyArray, "batch *shape"]  # of reconstructions, before the output activation


class Variables(NamedTuple):
  """The arrays of a model."""

  params: Params  # trained by gradients
  state: PyTree = _EMPTY  # changed by `update_state` instead; {} for most models


class Gaussian(NamedTuple):
  """One Gaussian distribution with a diagonal covariance per example."""

  mean: Latents
  log_variance: Latents


class CodeSpec(NamedTuple):
  """Shape and kind of the latent code z of a model.

  A latent code is real or, if `levels` is set, an array of discrete latents of shape `index_shape` that take `levels`
  values each. `size_axis` is the axis that a sweep over latent sizes pads with unused units; None compiles each latent
  size by itself.
  """

  shape: tuple[int, ...]  # of z, without the batch
  size_axis: int | None = 0
  low: float = -math.inf  # bounds of each element of z
  high: float = math.inf
  levels: int | None = None
  index_shape: tuple[int, ...] = ()
  shared_codebook: bool = False  # whether all discrete latents take their values from one codebook of vectors

  @property
  def size(self) -> int:
    """The number of elements of z, which is the budget of a baseline such as PCA."""
    return math.prod(self.shape)

  @property
  def bits(self) -> float | None:
    """The size of a discrete latent code in bits; None for a real one."""
    return None if self.levels is None else math.prod(self.index_shape) * math.log2(self.levels)

  @property
  def is_vector(self) -> bool:
    """True if the latent code is a vector, False if it is a grid or a sequence of vectors."""
    return len(self.shape) == 1


class Encoding(NamedTuple):
  """The output of an encoder for a batch."""

  z: Latents  # which `decode` takes
  posterior: Gaussian | None = None
  indices: Int[Array, " batch *index_shape"] | None = None  # int32, of a discrete latent code
  penalties: dict[str, Float[Array, " batch"]] = _EMPTY  # named terms that are added to the loss of each example
  statistics: PyTree = _EMPTY  # sums over the examples of the batch, which `update_state` takes


class AutoencoderModule(nn.Module):
  """The interface of a Flax module that is an autoencoder, with defaults for its optional parts.

  A module defines `code_spec`, `encode` and `decode`. `batch` holds the other columns of the batch: those named by
  `columns` and, where the batch is padded, `weight`, which is 0 for padding. `dropout` holds one random key per example
  in training; None switches dropout off.
  """

  @property
  def code_spec(self) -> CodeSpec:
    """The shape and kind of the latent code."""
    raise NotImplementedError

  @property
  def columns(self) -> tuple[str, ...]:
    """The columns of a batch that the encoder or the decoder needs besides x, such as "label"."""
    return ()

  @property
  def labels(self) -> tuple[int, ...]:
    """The distinct labels; the column "label" holds positions in this tuple."""
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
    """True if the module has `decode_beside`, a decoder that also receives the skip connections of an example."""
    return False

  @property
  def layers(self) -> tuple:
    """The (encoder, decoder) of a model that can be trained layer by layer; () for others."""
    return ()

  def __call__(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> tuple[Encoding, Logits]:
    """Returns the encoding of examples and the logits of their reconstructions."""
    encoding = self.encode(x, batch, dropout)
    return encoding, self.decode(encoding.z, batch, dropout)

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    """Returns the encoding of examples."""
    raise NotImplementedError

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    """Returns the logits of latents."""
    raise NotImplementedError

  def nearest_codes(self, z: Latents) -> Latents:
    """Returns the latent codes nearest to z that `encode` can output; z itself if the latent code is real."""
    spec = self.code_spec
    if spec.levels is None:
      return z
    return self.lookup(jnp.round((z - spec.low) / (spec.high - spec.low) * (spec.levels - 1)))

  def lookup(self, indices: Num[AnyArray, " batch *index_shape"]) -> Latents:
    """Returns the latents z of discrete latents, given as whole numbers from 0 to `levels` - 1."""
    spec = self.code_spec
    middle, half_range = (spec.low + spec.high) / 2, (spec.levels - 1) / 2  # half_range: levels from middle to bound
    return middle + (spec.high - spec.low) / 2 * ((indices.astype(jnp.float32) - half_range) / half_range)

  def log_prior(self, z: Latents) -> Float[Array, " batch"]:
    """Returns the log density of the prior at z in nats; the default prior is the standard normal distribution."""
    return -0.5 * (jnp.square(z) + math.log(2 * math.pi)).reshape(z.shape[0], -1).sum(-1)

  def sample_prior(self, key: Key[Array, ""], count: int) -> Float[Array, " count *latent"]:
    """Returns `count` latent codes drawn from the prior."""
    return jax.random.normal(key, (count, *self.code_spec.shape))

  def kl_to_prior(self, posterior: Gaussian, z: Latents) -> Float[Array, "batch ..."]:
    """Returns the KL divergence of a posterior from the prior in nats, by dimension [B, *latent].

    `z` is a sample of the posterior, for priors without a closed form: the estimate log q(z) - log p(z) has shape
    [B, 1]. A module with such a prior needs a latent code without `size_axis`, since the masks of latent units apply by
    dimension.
    """
    del z
    return losses.gaussian_kl(posterior.mean, posterior.log_variance)

  @nn.nowrap
  def update_state(self, state: PyTree, sums: PyTree) -> PyTree:
    """Returns the next state, from the sums of `Encoding.statistics` over all examples of a step."""
    del sums
    return state

  @nn.nowrap
  def project(self, params: Params) -> Params:
    """Returns the parameters projected onto the model's constraint set, after an update."""
    return params

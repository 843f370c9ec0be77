"""The base class of all autoencoder modules, and the types of the arguments and results of its methods."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns, Keys, Params

_EMPTY: dict = {}

Examples = Float[AnyArray, "batch *shape"]  # images [B, H, W, C] or series [B, T, C]
Latents = Float[AnyArray, "batch *latent"]
Logits = Float[AnyArray, "batch *shape"]  # reconstructions before the output activation


class Variables(NamedTuple):
  """The parameters and the state of a model."""

  params: Params  # trained by gradients
  state: PyTree = _EMPTY  # changed by `update_state`, not by gradients; {} for most models


class Gaussian(NamedTuple):
  """A Gaussian distribution with diagonal covariance for each example of a batch."""

  mean: Latents
  log_variance: Latents


class CodeSpec(NamedTuple):
  """Shape, bounds and kind (real or discrete) of the latent code z of a model.

  If `levels` is None, the latent code is real. Otherwise it consists of discrete latents in an array of shape
  `index_shape`, and each discrete latent has `levels` possible values.

  A sweep over latent sizes pads axis `size_axis` of z with unused units, so that all sizes share one compiled program.
  If `size_axis` is None, each latent size is compiled separately.
  """

  shape: tuple[int, ...]  # shape of z, without the batch axis
  size_axis: int | None = 0
  low: float = -math.inf  # bounds of each element of z
  high: float = math.inf
  levels: int | None = None
  index_shape: tuple[int, ...] = ()
  shared_codebook: bool = False  # whether all discrete latents are indices into one codebook of vectors

  @property
  def size(self) -> int:
    """The number of elements of z; baselines such as PCA use the same number of components."""
    return math.prod(self.shape)

  @property
  def bits(self) -> float | None:
    """The size of a discrete latent code in bits; None for a real latent code."""
    return None if self.levels is None else math.prod(self.index_shape) * math.log2(self.levels)

  @property
  def is_vector(self) -> bool:
    """True if the latent code is a vector, False if it is a grid or a sequence of vectors."""
    return len(self.shape) == 1


class Encoding(NamedTuple):
  """The output of an encoder for a batch."""

  z: Latents  # input of `decode`
  posterior: Gaussian | None = None
  indices: Int[Array, " batch *index_shape"] | None = None  # int32 indices of a discrete latent code
  penalties: dict[str, Float[Array, " batch"]] = _EMPTY  # named terms that are added to the loss of each example
  statistics: PyTree = _EMPTY  # sums over the examples of the batch, for `update_state`


class AutoencoderModule(nn.Module):
  """Base class of all autoencoder modules, with default implementations of the optional methods.

  Subclasses must define `code_spec`, `encode` and `decode`. In all methods, `batch` is {column: array [B, ...]}: it has
  the columns named by `columns` and, if the batch is padded, `weight`, which is 0 for padding examples. `dropout` holds
  one random key per example; None disables dropout.
  """

  @property
  def code_spec(self) -> CodeSpec:
    """The shape, bounds and kind (real or discrete) of the latent code."""
    raise NotImplementedError

  @property
  def columns(self) -> tuple[str, ...]:
    """The names of the columns that the encoder or the decoder reads besides "x", e.g. ("label",)."""
    return ()

  @property
  def labels(self) -> tuple[int, ...]:
    """The distinct labels, () for a model without labels. The column "label" holds indices into this tuple."""
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
    """True if the decoder also takes skip connections; the module then defines `decode_beside(z, x)` like `UNet`."""
    return False

  @property
  def principal_components(self) -> int:
    """Number of principal components that `fit_state` needs; 0 if `fit_state` does not change the state."""
    return 0

  @property
  def layers(self) -> tuple:
    """(encoder, decoder) if the model supports layer-wise training, otherwise ()."""
    return ()

  def __call__(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> tuple[Encoding, Logits]:
    """Returns the encoding of examples and the logits of their reconstructions."""
    encoding = self.encode(x, batch, dropout)
    return encoding, self.decode(encoding.z, batch, dropout)

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    """Returns the encoding of examples."""
    raise NotImplementedError

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    """Returns the logits decoded from latents."""
    raise NotImplementedError

  def nearest_codes(self, z: Latents) -> Latents:
    """Rounds z to the nearest latent codes that `encode` can output; returns z if the latent code is real."""
    spec = self.code_spec
    if spec.levels is None:
      return z
    return self.lookup(jnp.round((z - spec.low) / (spec.high - spec.low) * (spec.levels - 1)))

  def lookup(self, indices: Num[AnyArray, " batch *index_shape"]) -> Latents:
    """Returns the codebook vectors z for the given codebook indices, whole numbers in [0, levels)."""
    spec = self.code_spec
    middle, half_range = (spec.low + spec.high) / 2, (spec.levels - 1) / 2  # half_range is measured in levels
    return middle + (spec.high - spec.low) / 2 * ((indices.astype(jnp.float32) - half_range) / half_range)

  def log_prior(self, z: Latents) -> Float[Array, " batch"]:
    """Returns the log density of the prior at z in nats; the default prior is the standard normal distribution."""
    return -0.5 * (jnp.square(z) + math.log(2 * math.pi)).reshape(z.shape[0], -1).sum(-1)

  def sample_prior(self, key: Key[Array, ""], count: int) -> Float[Array, " count *latent"]:
    """Returns `count` latent codes drawn from the prior."""
    return jax.random.normal(key, (count, *self.code_spec.shape))

  def kl_to_prior(self, posterior: Gaussian, z: Latents) -> Float[Array, "batch ..."]:
    """Returns KL(posterior || prior) in nats for each latent dimension, [B, *latent].

    If the KL divergence has no closed form, subclasses return the estimate log q(z) - log p(z) with shape [B, 1], where
    `z` is a sample of the posterior. They must set `size_axis=None` in `code_spec`, because masks of latent units need
    one KL divergence per dimension.
    """
    del z
    return losses.gaussian_kl(posterior.mean, posterior.log_variance)

  @nn.nowrap
  def fit_state(self, state: PyTree, principal: Any) -> PyTree:
    """Returns the initial model state; `principal` holds the principal components of the training examples."""
    del principal
    return state

  @nn.nowrap
  def update_state(self, state: PyTree, sums: PyTree) -> PyTree:
    """Returns the model state after a training step.

    `sums` is `Encoding.statistics` summed over all examples of the step.
    """
    del sums
    return state

  @nn.nowrap
  def project(self, params: Params) -> Params:
    """Projects updated parameters onto the model's constraint set."""
    return params

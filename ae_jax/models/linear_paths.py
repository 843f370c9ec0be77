"""A linear path beside an autoencoder: PCA of the training examples, to which the network adds a correction.

The PCA is fitted before training, and training does not change it. The output layers of the network are initialised
with zeros, so the untrained model gives the reconstructions of PCA.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ae_jax import errors
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Gaussian, Latents, Logits
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns, Keys

_LECUN_NORMAL = nn.initializers.lecun_normal()
LINEAR_PATHS = {"none": False, "pca": True}  # config.model.linear_path -> whether the model has a linear path
_BOTTLENECKS = ("identity", "gaussian")  # bottlenecks with unbounded latents
_MARGIN = 1e-3  # PCA outputs are clipped to at least this distance from the bounds of the range
_LEAST_VARIANCE = 1e-4  # smallest initial posterior variance of a latent unit; the prior variance is 1
# From this `residual_fraction` on, the correction is not scaled. The first steps of Adam change each parameter by the
# learning rate, no matter how small the residuals are, and the output layers are sums over many parameters. Therefore,
# an unscaled correction to PCA of nearly linear data has several times the error of PCA in the first epochs.
_UNSCALED = 0.2
_LEAST_SCALE = 0.01  # the residuals of the training examples are 0 if PCA is exact, but not those of a noisy input

# config.data.range -> function that maps values inside the range to logits: the inverse of the output activation.
_LINKS = {
  "unit": lambda x: jax.scipy.special.logit(jnp.clip(x, _MARGIN, 1 - _MARGIN)),
  "symmetric": lambda x: jnp.arctanh(jnp.clip(x, -1 + _MARGIN, 1 - _MARGIN)),
  "real": lambda x: x,
}


class PrincipalComponents(NamedTuple):
  """PCA of the training examples; if they have fewer than `latent` components, the other components are zero."""

  mean: Float[AnyArray, " elements"]
  directions: Float[AnyArray, "latent elements"]  # orthonormal rows
  deviations: Float[AnyArray, " latent"]  # standard deviation of each score
  residual_variance: float  # mean variance of the examples along the directions orthogonal to all components
  residual_fraction: float  # root mean square of the residuals of all elements, divided by `element_deviation`
  element_deviation: float  # root mean square of the deviations of all elements from their means


class LinearPath(AutoencoderModule):
  """The sum of PCA and an autoencoder `network`; both use the same latent code.

  The latents are the whitened PCA scores plus the latents of the network. The logits are the logits of the PCA
  reconstruction plus the logits of the network. If the residuals of PCA are small, the latents and the logits of the
  network are multiplied by `correction_scale`, which is proportional to the residuals and at most 1. In a bounded
  range, the PCA reconstruction is clipped to the inside of the range, so that its logits are finite.

  With a gaussian bottleneck, the initial posterior is the posterior of probabilistic PCA (Tipping & Bishop 1999) in the
  limit of a small residual: the mean is the whitened PCA score, and the variance is s / l, where l is the variance of
  the score and s is the mean residual variance.

  The state holds the PCA, which `fit_state` fits. The network receives examples that are centred and divided by
  `element_deviation`. If the range is "real", the logits of the network are multiplied by `element_deviation`.
  """

  network: AutoencoderModule
  shape: tuple[int, ...]
  value_range: str  # a key of _LINKS
  masked: bool = False  # whether the data have a mask; elements that were not observed are replaced by their mean
  batch_last: bool = False  # whether the network computes with the batch as the last axis

  @property
  def code_spec(self) -> CodeSpec:
    return self.network.code_spec

  @property
  def columns(self) -> tuple[str, ...]:
    return (*self.network.columns, "mask") if self.masked else self.network.columns

  @property
  def has_posterior(self) -> bool:
    return self.network.has_posterior

  @property
  def principal_components(self) -> int:
    return self.code_spec.size

  def setup(self) -> None:
    zeros = zero_state(self)
    self.pca = {name: self.variable("state", name, lambda value=value: value) for name, value in zeros.items()}

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    pca = {name: variable.value for name, variable in self.pca.items()}
    centred = losses.flat(x).astype(jnp.float32) - pca["mean"][None]
    if self.masked:
      centred = centred * losses.flat(batch["mask"])
    scaled = (centred / pca["element_deviation"][None]).astype(x.dtype).reshape(x.shape)
    added = self.network.encode(scaled, batch, dropout)
    z = _sum(centred @ pca["encoder"], pca["correction_scale"][0] * added.z.astype(jnp.float32), x.dtype)
    if added.posterior is None:
      return added._replace(z=z)
    log_variance = _sum(pca["log_variance"][None], added.posterior.log_variance, x.dtype)
    return added._replace(z=z, posterior=Gaussian(z, log_variance))

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    pca = {name: variable.value for name, variable in self.pca.items()}
    latents, mean, added = z.astype(jnp.float32), pca["mean"], self.network.decode(z, batch, dropout)
    if self.batch_last:  # all products and sums are computed in the layout of the network and of the loss
      added = jnp.moveaxis(added, 0, -1)
      reconstructed = (mean[:, None] + pca["decoder"].T @ latents.T).reshape(*self.shape, -1)
    else:
      reconstructed = (mean[None] + latents @ pca["decoder"]).reshape(-1, *self.shape)
    scale = pca["correction_scale"][0]
    if self.value_range == "real":
      scale = scale * pca["element_deviation"][0]
    added = added * scale.astype(added.dtype)
    # The sum is float32 even if the network computes in bfloat16, which would round a mean far from 0.
    logits = _sum(_LINKS[self.value_range](reconstructed), added, jnp.float32)
    return jnp.moveaxis(logits, -1, 0) if self.batch_last else logits

  @nn.nowrap
  def fit_state(self, state: PyTree, principal: PrincipalComponents) -> PyTree:
    spread = principal.element_deviation
    used = principal.deviations > 1e-6 * spread  # components of constant data have no direction
    deviations = np.where(used, principal.deviations, np.inf)
    variance = np.clip(principal.residual_variance / np.square(deviations), _LEAST_VARIANCE, 1.0)
    fitted = {
      "mean": principal.mean,
      "encoder": principal.directions.T / deviations,
      "decoder": principal.directions * np.where(used, deviations, 0.0)[:, None],
      "log_variance": np.where(used, np.log(variance), 0.0),
      "element_deviation": np.array([spread or 1.0]),
      "correction_scale": np.clip([principal.residual_fraction / _UNSCALED], _LEAST_SCALE, 1.0),
    }
    return state | {name: value.astype(np.float32) for name, value in fitted.items()}


def default_init(key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32) -> Float[Array, "..."]:
  """Initialises a kernel like nn.Dense and nn.Conv, but can be pickled, unlike their initialiser."""
  return _LECUN_NORMAL(key, shape, dtype)


def zero_state(module: LinearPath) -> dict[str, Float[Array, "..."]]:
  """Returns the state of a linear path before `fit_state`: a PCA whose mean and components are zero."""
  elements, latent = math.prod(module.shape), module.code_spec.size
  shapes = {"mean": (elements,), "encoder": (elements, latent), "decoder": (latent, elements)}
  zeros = {name: jnp.zeros(shape) for name, shape in (shapes | {"log_variance": (latent,)}).items()}
  return zeros | {name: jnp.ones((1,)) for name in ("element_deviation", "correction_scale")}


def beside(
  network: AutoencoderModule, shape: tuple[int, ...], *, value_range: str, masked: bool, groups: Any, batch_last: bool
) -> LinearPath:
  """Returns the `LinearPath` with a network that was built with `output_init`; see `models.build` for the arguments."""
  if groups:
    raise errors.UserError(
      "config.model.linear_path='pca': does not work with config.objective.likelihood='mixed'; use "
      "config.model.name='table', which has a linear path of its own"
    )
  return LinearPath(network, shape, value_range, masked, batch_last)


def _sum(first: Float[AnyArray, "..."], second: Float[AnyArray, "..."], dtype: Any) -> Float[Array, "..."]:
  """Returns the sum, computed in float32, of PCA values and network values; the sum is rounded to `dtype`."""
  return (first + second.astype(jnp.float32)).astype(dtype)


def resolved(options: Mapping[str, Any], is_possible: bool = True) -> dict[str, Any]:
  """Returns the options of `config.model`; linear_path="auto" becomes "pca" if the model can have a linear path.

  Args:
    options: `config.model`.
    is_possible: Whether the objective permits a linear path.
  """
  if options.get("linear_path") != "auto":
    return dict(options)
  is_tied = bool(options.get("tied")) or options.get("decoder") == "tied"
  can_have = options.get("bottleneck") in _BOTTLENECKS and not is_tied and is_possible
  return dict(options) | {"linear_path": "pca" if can_have else "none"}


def output_init(linear_path: Any, bottleneck: Any, untie: str) -> nn.initializers.Initializer:
  """Returns the initialiser of the output layers of an encoder and a decoder: zeros if the model has a linear path.

  If the decoder has tied weights, `untie` is the change of `config.model` that unties them, otherwise "".

  Raises:
    UserError: `linear_path` is not a key of `LINEAR_PATHS`, or a model with these options cannot have a linear path.
  """
  if not errors.choose(LINEAR_PATHS, linear_path, "model.linear_path"):
    return default_init
  wanted = "identity or gaussian if config.model.linear_path='pca'"
  errors.check(bottleneck in _BOTTLENECKS, "model.bottleneck", bottleneck, wanted)
  if untie:
    raise errors.UserError(
      "config.model.linear_path='pca': needs a decoder output layer of its own, which models with tied weights lack; "
      f"set config.model.{untie} or config.model.linear_path='none'"
    )
  return nn.initializers.zeros

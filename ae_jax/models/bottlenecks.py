"""Bottlenecks between an encoder and a decoder, and the autoencoders that use them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ae_jax import errors
from ae_jax.models import activations
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Gaussian, Latents, Logits
from ae_jax.types import AnyArray, Columns, Keys


class Autoencoder(AutoencoderModule):
  """The deterministic autoencoder: [B, *shape] -> latents [B, latent] -> logits [B, *shape].

  `code_activation` maps the outputs of the encoder to the latents.
  """

  encoder: nn.Module
  decoder: nn.Module
  code_activation: Callable
  spec: CodeSpec
  masked: bool = False  # whether the encoder also reads the column "mask"

  @property
  def columns(self) -> tuple[str, ...]:
    return ("mask",) if self.masked else ()

  @property
  def code_spec(self) -> CodeSpec:
    return self.spec

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    return encoding(self.code_activation, _encoded(self, x, batch, dropout))

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    return self.decoder(z, dropout)


class VariationalAutoencoder(AutoencoderModule):
  """The variational autoencoder (Kingma & Welling 2014): the encoder outputs a Gaussian posterior over the latents.

  The posterior has a diagonal covariance. The latent code of an example is its posterior mean [B, latent].
  """

  encoder: nn.Module  # outputs [B, 2 * latent]: means, then log variances
  decoder: nn.Module
  spec: CodeSpec
  masked: bool = False  # whether the encoder also reads the column "mask"

  @property
  def columns(self) -> tuple[str, ...]:
    return ("mask",) if self.masked else ()

  @property
  def code_spec(self) -> CodeSpec:
    return self.spec

  @property
  def has_posterior(self) -> bool:
    return True

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    mean, log_variance = jnp.split(_encoded(self, x, batch, dropout), 2, axis=-1)
    return Encoding(mean, Gaussian(mean, log_variance))

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    return self.decoder(z, dropout)


def _encoded(
  module: Autoencoder | VariationalAutoencoder, x: Examples, batch: Columns | None, dropout: Keys | None
) -> Any:
  """Returns the outputs of the encoder, which also takes the mask if the module is `masked`."""
  return module.encoder(x, dropout, batch["mask"]) if module.masked else module.encoder(x, dropout)


@dataclasses.dataclass(frozen=True)
class FiniteScalars:
  """Finite scalar quantisation (FSQ; Mentzer et al. 2023): each unit takes one of `levels` values in [-1, 1].

  `levels` is odd, and the values are evenly spaced. The forward pass rounds tanh(x) to the nearest value. The gradient
  ignores the rounding (straight-through estimator). The implicit codebook has levels ** latent entries.
  """

  levels: int

  def __call__(self, x: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Returns tanh(x), rounded to the nearest of the `levels` values."""
    bounded = jnp.tanh(x)
    return jax.lax.stop_gradient(self.nearest(bounded)) + (bounded - jax.lax.stop_gradient(bounded))

  def nearest(self, x: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Rounds x, in [-1, 1], to the nearest of the `levels` values."""
    half = self.levels // 2
    return jnp.round(half * x) / half

  def index(self, z: Float[AnyArray, "*shape"]) -> Int[Array, "*shape"]:
    """Returns the int32 index, in [0, levels), of each element of quantised latents z."""
    return jnp.round((z + 1) * (self.levels // 2)).astype(jnp.int32)


DETERMINISTIC = {
  **{name: activations.ACTIVATIONS[name] for name in ("identity", "relu", "sigmoid", "tanh")},
  **{f"fsq{levels}": FiniteScalars(levels) for levels in (3, 5, 7, 9)},
}
# Bounds (low, high) of the latents; latents of the bottlenecks "identity" and "gaussian" are unbounded.
_BOUNDS = {"relu": (0.0, float("inf")), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def spec(name: str, latent: int) -> CodeSpec:
  """Returns the `CodeSpec` of the bottleneck called `name` with `latent` units."""
  activation = DETERMINISTIC.get(name)
  if isinstance(activation, FiniteScalars):
    return CodeSpec((latent,), low=-1.0, high=1.0, levels=activation.levels, index_shape=(latent,))
  return CodeSpec((latent,), 0, *_BOUNDS.get(name, ()))


def encoding(activation: Callable, inputs: Latents) -> Encoding:
  """Returns the `Encoding` with latents activation(inputs), where `inputs` is the output of the encoder."""
  z = activation(inputs)
  indices = activation.index(z) if isinstance(activation, FiniteScalars) else None
  return Encoding(z, indices=indices)


def build_autoencoder(
  name: Any,
  latent: Any,
  encoder: Callable[[int], nn.Module],
  decoder: nn.Module,
  deterministic: type[Autoencoder] = Autoencoder,
  *,
  masked: bool = False,
) -> AutoencoderModule:
  """Builds the autoencoder with the bottleneck called `name`.

  Args:
    name: "identity", "relu", "sigmoid" or "tanh"; "fsq3", "fsq5", "fsq7" or "fsq9" for quantised latents (see
      `FiniteScalars`); or "gaussian" for the variational autoencoder.
    latent: Latent size.
    encoder: Function that returns the encoder module with the given number of outputs.
    decoder: Decoder module.
    deterministic: Class of the autoencoder for all bottlenecks except "gaussian".
    masked: Whether the encoder also takes the column "mask", as its third argument.

  Raises:
    UserError: `name` is unknown, or `latent` is not a positive integer.
  """
  errors.check_positive("model.latent", latent)
  if errors.choose({**DETERMINISTIC, "gaussian": None}, name, "model.bottleneck"):
    return deterministic(encoder(latent), decoder, DETERMINISTIC[name], spec(name, latent), masked)
  return VariationalAutoencoder(encoder(2 * latent), decoder, spec(name, latent), masked)

"""The evidence lower bound (ELBO) of variational autoencoders."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax import errors, models
from ae_jax.objectives import base
from ae_jax.ops import losses
from ae_jax.types import Batch, Keys, Number, Scalar

_NOISE = (1e-12, 1e12)  # bounds of the standard deviation; its square must not underflow or overflow in float32


def sample(posterior: models.Gaussian, keys: Keys) -> Float[Array, " batch *latent"]:
  """Returns one sample of the posterior of each example, drawn with the key of the example."""
  mean, log_variance = posterior
  normal = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], mean.dtype))(keys)
  return mean + jnp.exp(0.5 * log_variance) * normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elbo(base.Objective):
  """Negative evidence lower bound in nats, estimated from one posterior sample per example (Kingma & Welling 2014).

  With beta = 1 and free_bits = 0 this is the standard ELBO. Other values modify the KL term.
  """

  # standard deviation of the gaussian likelihood, in units of the data
  noise: Number = dataclasses.field(metadata=base.NUMERIC)
  # weight of the KL divergence (Higgins et al. 2017)
  beta: Number = dataclasses.field(metadata=base.NUMERIC)
  # lower bound of the KL term of each latent dimension (mean over the batch) in nats (Kingma et al. 2016, equation 15)
  free_bits: Number = dataclasses.field(metadata=base.NUMERIC)
  samples_posterior: ClassVar[bool] = True

  @property
  def needs_whole_batch(self) -> bool:
    return not self.is_zero("free_bits")

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    super().check(model, value_range, options)
    if not model.has_posterior:
      raise errors.UserError("config.objective.name='elbo' needs config.model.bottleneck='gaussian'")
    noise, (least, most) = options["noise"], _NOISE
    valid = errors.is_number(noise) and least <= noise <= most
    errors.check(valid, "objective.noise", noise, f"a positive number from {least:g} to {most:g}")
    unused = options["likelihood"] == "mixed" and noise != 1.0
    errors.check(not unused, "objective.noise", noise, "1.0 for the likelihood 'mixed'")
    for key in ("beta", "free_bits"):
      errors.check_not_negative(f"objective.{key}", options[key])

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> base.ExampleStatistics:
    encoding = model.encode(variables, batch["x"], batch, keys=keys, train=train)
    z = sample(encoding.posterior, keys)
    logits = model.decode(variables, z, batch, keys=keys, train=train)
    nats = self.reconstruction_term(model, logits, *base.compared(batch))
    if self.likelihood == "gaussian":
      observed = losses.flat(batch["mask"]).sum(1) if "mask" in batch else math.prod(model.shape)
      nats = losses.gaussian_nats(nats, observed, self.noise)
    kl = model.kl_to_prior(variables, encoding.posterior, z)
    return base.example_statistics({"nats": nats, "kl": kl}, encoding)  # [B], [B, latent]

  def combine(self, model: models.Model, means: base.Statistics) -> tuple[Scalar, base.Statistics]:
    nats, kl = means["nats"], means["kl"]
    penalty = (model.latent_mask * jnp.maximum(kl, self.free_bits)).sum()
    return nats + self.beta * penalty, {"nats": nats, "kl": kl.sum()}

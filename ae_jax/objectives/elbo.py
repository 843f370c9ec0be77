"""The evidence lower bound of variational autoencoders."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.objectives import base
from ae_jax.ops import losses

_NOISE = (1e-12, 1e12)  # bounds of the gaussian likelihood's deviation: its square must be a float32


def sample(posterior, keys):
  """Returns a sample of the posterior of each example [B, ...], drawn with its key."""
  mean, log_variance = posterior
  normal = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], mean.dtype))(keys)
  return mean + jnp.exp(0.5 * log_variance) * normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elbo(base.Objective):
  """Negative evidence lower bound in nats, from one sample of the posterior (Kingma & Welling 2014).

  `noise` is the standard deviation of the gaussian likelihood in the unit of the data (unused by "bernoulli"). The KL
  counts `beta` times (Higgins et al. 2017), and the mean KL of each latent dimension at least `free_bits` nats (Kingma
  et al. 2016, equation 15). The bound itself is beta = 1, free_bits = 0.
  """

  noise: float = base.number()
  beta: float = base.number()
  free_bits: float = base.number()
  samples_posterior: ClassVar[bool] = True

  @property
  def needs_whole_batch(self):
    return not self.is_zero("free_bits")

  def check(self, model):
    super().check(model)
    if not model.has_posterior:
      raise errors.UserError("config.objective.name='elbo' needs config.model.bottleneck='gaussian'")
    least, most = _NOISE
    good = errors.is_number(self.noise) and least <= self.noise <= most
    errors.check(good, "objective.noise", self.noise, f"a positive number from {least:g} to {most:g}")
    for key in ("beta", "free_bits"):
      errors.check_not_negative(f"objective.{key}", getattr(self, key))

  def statistics(self, model, variables, batch, keys, train=False):
    encoding = model.encode(variables, batch["x"], batch, keys=keys, train=train)
    z = sample(encoding.posterior, keys)
    logits = model.decode(variables, z, batch, keys=keys, train=train)
    nats = self.mismatch(model, logits, batch["x"])
    if self.likelihood == "gaussian":
      nats = losses.gaussian_nats(nats, math.prod(model.shape), self.noise)
    kl = model.kl_to_prior(variables, encoding.posterior, z)
    return base.measured({"nats": nats, "kl": kl}, encoding)  # [B], [B, latent]

  def combine(self, model, means):
    nats, kl = means["nats"], means["kl"]
    penalty = (model.latent_mask * jnp.maximum(kl, self.free_bits)).sum()
    return nats + self.beta * penalty, {"nats": nats, "kl": kl.sum()}

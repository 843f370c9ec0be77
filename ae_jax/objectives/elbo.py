"""The evidence lower bound of variational autoencoders."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ae_jax import errors, losses
from ae_jax.objectives import base

_NOISE = (1e-12, 1e12)  # bounds of the gaussian likelihood's deviation: its square must be a float32


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

  @property
  def needs_whole_batch(self):
    return not self.is_zero("free_bits")

  def check(self, model):
    super().check(model)
    if not model.can("posterior"):
      raise errors.UserError("config.objective.name='elbo' needs config.model.bottleneck='gaussian'")
    least, most = _NOISE
    good = errors.is_number(self.noise) and least <= self.noise <= most
    errors.check(good, "objective.noise", self.noise, f"a positive number from {least:g} to {most:g}")
    for key in ("beta", "free_bits"):
      errors.check_not_negative(f"objective.{key}", getattr(self, key))

  def statistics(self, model, params, batch, keys):
    centre, log_variance = model.apply("posterior", params, batch["x"])
    normal = jax.vmap(lambda key: jax.random.normal(key, centre.shape[1:], centre.dtype))(keys)
    logits = model.decode(params, centre + jnp.exp(0.5 * log_variance) * normal)
    nats = self.mismatch(model, logits, batch["x"])
    if self.likelihood == "gaussian":
      elements = math.prod(model.shape)
      nats = 0.5 * nats / self.noise**2 + elements * (0.5 * math.log(2 * math.pi) + jnp.log(self.noise))
    return {"nats": nats, "kl": losses.gaussian_kl(centre, log_variance)}  # [B], [B, latent]

  def combine(self, model, means):
    nats, kl = means["nats"], means["kl"]
    penalty = (model.units * jnp.maximum(kl, self.free_bits)).sum()
    return nats + self.beta * penalty, {"nats": nats, "kl": kl.sum()}

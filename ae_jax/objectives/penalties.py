"""Objectives that add a penalty on the latent code to the reconstruction loss."""

import dataclasses

import jax.numpy as jnp

from ae_jax import errors
from ae_jax.objectives import base
from ae_jax.ops import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sparse(base.Objective):
  """Reconstruction and `weight` times the activity of the latent code.

  The penalty "l1" is the sum of |z|; "kl" is the sum over units of KL(target || mean activation over the batch), for
  latents in (0, 1), as the bottleneck "sigmoid" gives (Ng 2011). "l1" does not use `target` (rho, often 0.05).
  """

  penalty: str  # l1 or kl
  weight: float = base.number()
  target: float = base.number()

  @property
  def needs_whole_batch(self):
    return self.penalty == "kl"

  def check(self, model):
    super().check(model)
    errors.check_not_negative("objective.weight", self.weight)
    good = errors.is_number(self.target) and 0 < self.target < 1
    errors.check(good, "objective.target", self.target, "between 0 and 1")
    errors.choose(dict.fromkeys(("l1", "kl")), self.penalty, "objective.penalty")
    if self.penalty == "kl" and (model.code.low, model.code.high) != (0.0, 1.0):
      raise errors.UserError("config.objective.penalty='kl' needs config.model.bottleneck='sigmoid'; or use 'l1'")

  def statistics(self, model, variables, batch, keys, train=False):
    encoding, logits = model.autoencode(variables, batch["x"], batch, keys=keys, train=train)
    z = encoding.z.reshape(encoding.z.shape[0], -1)
    activity = {"activation": z} if self.penalty == "kl" else {"l1": jnp.abs(z).sum(-1)}
    return base.measured({self.unit: self.mismatch(model, logits, batch["x"]), **activity}, encoding)

  def combine(self, model, means):
    loss, terms = super().combine(model, means)
    if self.penalty == "l1":
      name, activity = "l1", means["l1"]
    else:
      name, activity = "sparsity_kl", (model.latent_mask * losses.bernoulli_kl(self.target, means["activation"])).sum()
    return loss + self.weight * activity, {**terms, name: activity}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contractive(base.Objective):
  """Reconstruction and `weight` times the squared Frobenius norm of the encoder's Jacobian (Rifai et al. 2011).

  `probes` = 0 computes it exactly with `latent` backward passes; k >= 1 estimates it without bias from k random probes.
  """

  probes: int
  weight: float = base.number()

  def check(self, model):
    super().check(model)
    errors.check_not_negative("objective.weight", self.weight)
    whole = isinstance(self.probes, int) and not isinstance(self.probes, bool)
    good = whole and 0 <= self.probes <= errors.LARGEST_COUNT
    errors.check(good, "objective.probes", self.probes, "an integer, 0 (exact) or more")

  def statistics(self, model, variables, batch, keys, train=False):
    def encode(x):
      return losses.flat(model.encode(variables, x, batch, keys=keys, train=train).z)

    x = batch["x"]
    norm = (
      losses.jacobian_norm_estimate(encode, x, keys, self.probes) if self.probes else losses.jacobian_norm(encode, x)
    )
    found = super().statistics(model, variables, batch, keys, train)
    return found._replace(values={**found.values, "jacobian": norm})

  def combine(self, model, means):
    loss, terms = super().combine(model, means)
    return loss + self.weight * means["jacobian"], {**terms, "jacobian": means["jacobian"]}

"""Objectives that add a penalty on the latent code to the reconstruction loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ae_jax import errors, models
from ae_jax.objectives import base
from ae_jax.ops import losses
from ae_jax.types import Batch, Keys, Number, Scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sparse(base.Objective):
  """Reconstruction loss plus `weight` times a penalty that makes the latent code sparse.

  The penalty "l1" is the sum of |z| over the latent units. The penalty "kl" is KL(target || mean activation over the
  batch), summed over the latent units (Ng 2011). "kl" needs the bottleneck "sigmoid", whose latents are in (0, 1).
  """

  penalty: str  # "l1" or "kl"
  weight: Number = dataclasses.field(metadata=base.NUMERIC)
  target: Number = dataclasses.field(metadata=base.NUMERIC)  # rho of the penalty "kl", often 0.05; not used by "l1"

  @property
  def needs_whole_batch(self) -> bool:
    return self.penalty == "kl"

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    super().check(model, value_range, options)
    errors.check_not_negative("objective.weight", options["weight"])
    valid = errors.is_number(options["target"]) and 0 < options["target"] < 1
    errors.check(valid, "objective.target", options["target"], "a number in (0, 1)")
    errors.choose(dict.fromkeys(("l1", "kl")), options["penalty"], "objective.penalty")
    if options["penalty"] == "kl" and (model.code.low, model.code.high) != (0.0, 1.0):
      raise errors.UserError(
        "config.objective.penalty='kl' needs config.model.bottleneck='sigmoid'; set this bottleneck, or use "
        "penalty 'l1'"
      )

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> base.ExampleStatistics:
    encoding, logits = model.autoencode(variables, batch["x"], batch, keys=keys, train=train)
    z = encoding.z.reshape(encoding.z.shape[0], -1)
    activity = {"activation": z} if self.penalty == "kl" else {"l1": jnp.abs(z).sum(-1)}
    return base.example_statistics(
      {self.unit: self.reconstruction_term(model, logits, *base.compared(batch)), **activity}, encoding
    )

  def combine(self, model: models.Model, means: base.Statistics) -> tuple[Scalar, base.Statistics]:
    loss, terms = super().combine(model, means)
    if self.penalty == "l1":
      name, activity = "l1", means["l1"]
    else:
      name, activity = "sparsity_kl", (model.latent_mask * losses.bernoulli_kl(self.target, means["activation"])).sum()
    return loss + self.weight * activity, {**terms, name: activity}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contractive(base.Objective):
  """Reconstruction loss plus `weight` times the squared Frobenius norm of the encoder's Jacobian (Rifai et al. 2011).

  With `probes` = 0 the norm is exact and takes one backward pass per latent. Otherwise `probes` random directions
  give an unbiased estimate of the squared norm.
  """

  probes: int  # number of random directions; 0 for the exact norm
  weight: Number = dataclasses.field(metadata=base.NUMERIC)

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    super().check(model, value_range, options)
    errors.check_not_negative("objective.weight", options["weight"])
    probes = options["probes"]
    valid = isinstance(probes, int) and not isinstance(probes, bool) and 0 <= probes <= errors.LARGEST_COUNT
    errors.check(valid, "objective.probes", probes, "an integer of at least 0 (0 computes the exact penalty)")

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> base.ExampleStatistics:
    def encode(x):
      if "mask" in batch:  # the values of elements that were not observed are constants, not inputs
        x = jnp.where(batch["mask"] > 0, x, jax.lax.stop_gradient(x))
      return losses.flat(model.encode(variables, x, batch, keys=keys, train=train).z)

    x = batch["x"]
    norm = (
      losses.jacobian_norm_estimate(encode, x, keys, self.probes) if self.probes else losses.jacobian_norm(encode, x)
    )
    reconstruction = super().statistics(model, variables, batch, keys, train)
    return reconstruction._replace(values={**reconstruction.values, "jacobian": norm})

  def combine(self, model: models.Model, means: base.Statistics) -> tuple[Scalar, base.Statistics]:
    loss, terms = super().combine(model, means)
    return loss + self.weight * means["jacobian"], {**terms, "jacobian": means["jacobian"]}

"""Objectives: frozen dataclasses that are called as pure functions (model, variables, batch, keys) -> (loss, aux).

A batch holds `x` [B, ...], normalised, `weight` [B], which is 0 for padding, and the columns that the model declares;
`keys` [B] holds a random key for each example. An objective computes `statistics` per example, their means over the
batch, and `combine`s the means into the loss. Every term is summed over the elements of an example, in nats or in
squared error. The same object serves training and evaluation; the loss of a test set combines the means over the whole
set, so that it does not depend on the batches.
"""

import dataclasses
import math

from ae_jax import errors
from ae_jax.data import ranges
from ae_jax.objectives.base import LIKELIHOODS, Aux, Objective, batch_mean, batch_sum
from ae_jax.objectives.denoising import Denoising, Layerwise
from ae_jax.objectives.elbo import Elbo
from ae_jax.objectives.penalties import Contractive, Sparse

__all__ = ["LIKELIHOODS", "OBJECTIVES", "Aux", "Objective", "batch_mean", "batch_sum", "build", "check_bottleneck"]

OBJECTIVES = {
  "reconstruction": Objective,
  "denoising": Denoising,
  "layerwise": Layerwise,
  "sparse": Sparse,
  "contractive": Contractive,
  "elbo": Elbo,
}


def build(name, model, value_range, span=None, schedules=(), **options) -> Objective:
  """Returns the objective that `config.objective` describes; UserError for what does not fit the model or the range.

  Args:
    name: a key of OBJECTIVES.
    model: the `models.Model` that it will train.
    value_range: range of the data, a key of ranges.INTERVALS.
    span: `ranges.Span` of the data; None: that of the range.
    schedules: what `schedules.build` returns.
    **options: the keyword-only fields of the objective's class.
  """
  objective = errors.call(OBJECTIVES, "objective", name, value_range, span or ranges.SPANS[value_range], **options)
  objective.check(model)
  for scheduled, _ in schedules:
    if scheduled not in objective.numbers():
      known = errors.nearest(scheduled, objective.numbers())
      raise errors.UserError(f"config.schedules: objective.{scheduled} is no number of the objective {name!r}; {known}")
  numbers = objective.numbers()  # floats: a large integer overflows JAX's int32
  return dataclasses.replace(objective, schedules=tuple(schedules), **numbers)


def check_bottleneck(name, code, shape) -> None:
  """Raises UserError if the latent code is larger than the example and nothing else prevents an identity mapping.

  A code on a grid, or a discrete one, is limited by its shape or its codebook.
  """
  elements = math.prod(shape)
  if name == "reconstruction" and code.is_vector and code.numbers > elements:
    raise errors.UserError(
      f"config.model.latent={code.numbers}: larger than the data, {elements} numbers, is no bottleneck and can copy; "
      f"use at most {elements}, or an objective that regularises (sparse, contractive, denoising, elbo)"
    )

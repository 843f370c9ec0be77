"""Objectives: frozen dataclasses that are called as pure functions (model, variables, batch, keys) -> (loss, aux).

A batch holds `x` [B, ...], normalised, `weight` [B], which is 0 for padding, and the columns that the model declares;
`keys` [B] holds a random key for each example. An objective computes `statistics` of each example, takes their means
over the batch, and `combine`s the means into the loss. Every term is summed over the elements of an example, in nats or
in squared error. The same object serves training and evaluation; the loss of a test set combines the means over the
whole set, so that it does not depend on the batches.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ae_jax import errors, models
from ae_jax.data import ranges
from ae_jax.objectives.base import LIKELIHOODS, Aux, Objective, batch_mean, batch_sum
from ae_jax.objectives.denoising import Denoising, Layerwise
from ae_jax.objectives.elbo import Elbo
from ae_jax.objectives.penalties import Contractive, Sparse
from ae_jax.objectives.schedules import Schedule

__all__ = ["LIKELIHOODS", "OBJECTIVES", "Aux", "Objective", "batch_mean", "batch_sum", "build", "check_bottleneck"]

OBJECTIVES: dict[str, type[Objective]] = {
  "reconstruction": Objective,
  "denoising": Denoising,
  "layerwise": Layerwise,
  "sparse": Sparse,
  "contractive": Contractive,
  "elbo": Elbo,
}


def build(
  name: str,
  model: models.Model,
  value_range: str,
  span: ranges.Span | None = None,
  schedules: Sequence[tuple[str, Schedule]] = (),
  **options: Any,
) -> Objective:
  """Returns the objective that `config.objective` describes.

  Args:
    name: A key of OBJECTIVES.
    model: The model that it will train.
    value_range: Range of the data, a key of ranges.INTERVALS.
    span: Span of the data; None for that of the range.
    schedules: The result of `schedules.build`.
    **options: The keyword-only fields of the objective's class.

  Raises:
    UserError: If an option is invalid, or does not fit the model or the range.
  """
  constructors = {known: _checked(objective_class, model) for known, objective_class in OBJECTIVES.items()}
  objective = errors.call(constructors, "objective", name, value_range, span or ranges.SPANS[value_range], **options)
  for scheduled, _ in schedules:
    if scheduled not in objective.numbers():
      known = errors.list_known(scheduled, objective.numbers())
      raise errors.UserError(
        f"config.schedules: objective.{scheduled} is no numeric option of the objective {name!r}; {known}"
      )
  return dataclasses.replace(objective, schedules=tuple(schedules))


def _checked(objective_class: type[Objective], model: models.Model) -> Callable[..., Objective]:
  """Returns a constructor that checks the options first, as a config may hold anything."""

  @functools.wraps(objective_class, assigned=(), updated=())  # `errors.call` reads the options from the signature
  def construct(value_range, span, **options):
    objective_class.check(model, value_range, options)
    floats = {name: float(options[name]) for name in objective_class.numeric_fields()}  # a large int overflows int32
    return objective_class(value_range, span, **options | floats)

  return construct


def check_bottleneck(name: str, code: models.CodeSpec, shape: Sequence[int]) -> None:
  """Raises UserError if the latent code is larger than the example and nothing else prevents an identity mapping.

  The shape of a grid code, or the codebook of a discrete code, limits it anyway.

  Args:
    name: A key of OBJECTIVES.
    code: The latent code of the model.
    shape: Shape of an example.
  """
  elements = math.prod(shape)
  if name == "reconstruction" and code.is_vector and code.size > elements:
    raise errors.UserError(
      f"config.model.latent={code.size}: larger than the example of {elements} elements, so that the model can copy "
      f"it; use at most {elements}, or an objective that regularises (sparse, contractive, denoising, elbo)"
    )

"""Objectives: frozen dataclasses that are called as pure functions (model, variables, batch, keys) -> (loss, aux).

`batch` holds the examples `x` [B, ...] in the data range, `weight` [B], which is 0 for padding, and the other columns
that the model and the data have (`data.split_columns`). Reconstructions are compared with the column `target` if there
is one, otherwise with `x`. Elements whose `mask` is 0 are ignored. `keys` [B] holds one random key per example.

An objective computes `statistics` of each example, averages them over the batch, and passes the means to `combine`,
which returns the loss. Each term of the loss is summed over the elements of an example; its unit is nats or squared
error. The same objective is used in training and evaluation. The loss of a test set is computed from the means over
the whole set, so it does not depend on the batches.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ae_jax import errors, models
from ae_jax.data import ranges
from ae_jax.objectives.base import LIKELIHOODS, Aux, Objective, batch_mean, batch_sum, compared
from ae_jax.objectives.denoising import Denoising, Layerwise
from ae_jax.objectives.elbo import Elbo
from ae_jax.objectives.penalties import Contractive, Sparse
from ae_jax.objectives.schedules import Schedule

__all__ = [
  "LIKELIHOODS",
  "OBJECTIVES",
  "Aux",
  "Objective",
  "batch_mean",
  "batch_sum",
  "build",
  "check_bottleneck",
  "compared",
]

OBJECTIVES: dict[str, type[Objective]] = {
  "reconstruction": Objective,
  "denoising": Denoising,
  "layerwise": Layerwise,
  "sparse": Sparse,
  "contractive": Contractive,
  "elbo": Elbo,
}
_WITHOUT_SPAN = {Objective, Sparse, Contractive, Elbo}  # objectives that do not read `span`


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
    model: Model to train.
    value_range: Value range of the data, a key of ranges.INTERVALS.
    span: Smallest, largest and missing value of the data; None for `ranges.SPANS[value_range]`.
    schedules: Schedules of numeric options, as returned by `schedules.build`.
    **options: Values of the keyword-only fields of the objective's class.

  Raises:
    UserError: If an option is invalid, or not compatible with the model or the value range.
  """
  constructors = {known: _checked(objective_class, model) for known, objective_class in OBJECTIVES.items()}
  objective = errors.call(constructors, "objective", name, value_range, span or ranges.SPANS[value_range], **options)
  for scheduled, _ in schedules:
    if scheduled not in objective.numbers():
      known = errors.list_known(scheduled, objective.numbers())
      raise errors.UserError(
        f"config.schedules: objective.{scheduled} is not a numeric option of the objective {name!r}; {known}"
      )
  return dataclasses.replace(objective, schedules=tuple(schedules))


def _checked(objective_class: type[Objective], model: models.Model) -> Callable[..., Objective]:
  """Returns a constructor of the class that first checks the options."""

  @functools.wraps(objective_class, assigned=(), updated=())  # `errors.call` reads the options from the signature
  def construct(value_range, span, **options):
    objective_class.check(model, value_range, options)
    floats = {name: float(options[name]) for name in objective_class.numeric_fields()}  # a large int overflows int32
    # An objective that does not read the span gets a default, so that different data can share a compiled program.
    span = ranges.SPANS[value_range] if objective_class in _WITHOUT_SPAN else span
    return objective_class(value_range, span, **options | floats)

  return construct


def check_bottleneck(name: str, code: models.CodeSpec, shape: Sequence[int]) -> None:
  """Raises UserError if the latent code is so large that the model can copy its input.

  Only the objective "reconstruction" with a latent vector is checked: other objectives regularise the model.

  Args:
    name: A key of OBJECTIVES.
    code: The latent code of the model.
    shape: Shape of an example.
  """
  elements = math.prod(shape)
  if code.is_vector and (suggested := narrower_latent(name, code.size, shape)):
    raise errors.UserError(
      f"config.model.latent={code.size}: larger than the {elements} elements of an example, so the model can copy its "
      f"input; use at most {elements}, such as latent={suggested}, or a regularised "
      "objective (sparse, contractive, denoising, elbo)"
    )


def narrower_latent(name: str, latent: int, shape: Sequence[int]) -> int | None:
  """Returns a latent size for examples with fewer elements than `latent`: a third of the elements.

  None is returned if the latent size needs no change; see `check_bottleneck` for the arguments and the rule.
  """
  elements = math.prod(shape)
  return max(1, elements // 3) if name == "reconstruction" and latent > elements else None

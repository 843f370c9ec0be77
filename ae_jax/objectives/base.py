"""The plain reconstruction objective, and the parts that the other objectives share."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.data import ranges
from ae_jax.objectives.schedules import Schedule
from ae_jax.ops import losses, remat

Statistics = dict[str, jax.Array]
_NONE: dict = {}


class Measured(NamedTuple):
  """Values for each example, from which the loss is computed, and sums, which update the model's state."""

  values: Statistics  # leaves [B, ...], for each example
  penalties: Statistics = _NONE  # {name: [B]}: terms of the model, see `models.Encoding`
  sums: Any = _NONE  # `models.Encoding.statistics`


class Aux(NamedTuple):
  """What an objective returns besides the loss."""

  terms: Statistics  # {name: []}
  statistics: Any  # the model's statistics, as means over the examples of the batch


def batch_sum(values: Statistics, weight: jax.Array) -> Statistics:
  """Returns the weighted sums over a batch: leaves [B, ...] -> [...]."""
  return jax.tree.map(lambda leaf: jnp.tensordot(weight, leaf, 1), values)


def batch_mean(values: Statistics, weight: jax.Array) -> Statistics:
  """Returns the means over the examples that are not padding, 0 if all are: leaves [B, ...] -> [...]."""
  count = jnp.maximum(weight.sum(), 1.0)
  return jax.tree.map(lambda total: total / count, batch_sum(values, weight))


def _bernoulli(logits, x, activation):
  del activation  # the loss applies the sigmoid itself
  return losses.binary_cross_entropy_with_logits(logits, x)


def _gaussian(logits, x, activation):
  return jnp.square(activation(logits) - x)


# The reconstruction term of each element, and its unit, which is also the name of the term.
LIKELIHOODS = {"bernoulli": _bernoulli, "gaussian": _gaussian}
_UNITS = {"bernoulli": "nats", "gaussian": "squared_error"}


def number() -> Any:
  """Returns a numeric field that may differ between sweep members that share a compiled program."""
  return dataclasses.field(metadata={"numeric": True})


@dataclasses.dataclass(frozen=True)
class Objective:
  """Reconstruction loss: "bernoulli" in nats (needs the range "unit"), "gaussian" in squared error.

  The keyword-only fields of a subclass are its options in `config.objective`.
  """

  value_range: str  # a key of losses.OUTPUT_ACTIVATIONS
  span: ranges.Span  # of the data
  remat: bool = False  # recompute most intermediates for the gradient
  schedules: tuple[tuple[str, Schedule], ...] = ()  # names of `numbers`, and their way to the values here
  _: dataclasses.KW_ONLY
  likelihood: str  # a key of LIKELIHOODS
  samples_posterior: ClassVar[bool] = False  # whether the model's posterior is trained towards its prior

  @property
  def needs_whole_batch(self) -> bool:
    """True if `combine` is nonlinear; the loss of a batch then differs from the mean loss of its microbatches."""
    return False

  @property
  def unit(self) -> str:
    """Name and unit of the reconstruction term."""
    return _UNITS[self.likelihood]

  def numbers(self) -> dict[str, float]:
    """Returns the fields that may differ between sweep members that share a compiled program."""
    numeric = [field.name for field in dataclasses.fields(self) if field.metadata.get("numeric")]
    return {name: float(getattr(self, name)) for name in numeric}

  def at(self, step: jax.Array) -> "Objective":
    """Returns the objective with the numbers that its schedules give at a step int32 []."""
    return dataclasses.replace(self, **{name: schedule(step, getattr(self, name)) for name, schedule in self.schedules})

  def is_zero(self, name: str) -> bool:
    """Returns whether a number is 0 throughout the training; not if a schedule or a sweep varies it."""
    value = getattr(self, name)
    return name not in dict(self.schedules) and isinstance(value, float) and value == 0.0

  def check(self, model) -> None:
    """Raises UserError if an option is invalid or does not fit the model."""
    del model
    check_likelihood(self.likelihood, self.value_range)

  def statistics(self, model, variables, batch, keys, train=False) -> Measured:
    """Returns what the loss is computed from, for each example."""
    encoding, logits = model.autoencode(variables, batch["x"], batch, keys=keys, train=train)
    return measured({self.unit: self.mismatch(model, logits, batch["x"])}, encoding)

  def combine(self, model, means: Statistics) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss [] and its terms from the means of the statistics."""
    del model
    loss = means[self.unit]
    return loss, {self.unit: loss}

  def loss(self, model, values: Statistics, penalties: Statistics) -> tuple[jax.Array, Statistics]:
    """Returns the loss [] and its terms from the means of what `statistics` returns."""
    loss, terms = self.combine(model, values)
    for penalty in penalties.values():
      loss = loss + penalty
    return loss, {**terms, **penalties}

  def __call__(self, model, variables, batch, keys, *, train=False, mean=batch_mean) -> tuple[jax.Array, Aux]:
    """Returns the loss [] of a batch, its terms and the model's statistics.

    `train` switches dropout on; `mean` averages what is measured of examples, as `batch_mean` does.
    """

    def compute(variables, batch, keys):
      return self.statistics(model, variables, batch, keys, train)

    values, penalties, sums = (remat.in_segments(compute) if self.remat else compute)(variables, batch, keys)
    loss, terms = self.loss(model, *mean((values, penalties), batch["weight"]))
    count = jnp.maximum(batch["weight"].sum(), 1.0)
    return loss, Aux(terms, jax.tree.map(lambda total: jax.lax.stop_gradient(total / count), sums))

  def mismatch(self, model, logits, x, *emphasis):
    """Returns the reconstruction term [B] of logits; elements count `emphasis` [B, ...] times if it is given."""
    return mismatch(model, self.likelihood, losses.OUTPUT_ACTIVATIONS[self.value_range], logits, x, *emphasis)


def measured(values: Statistics, encoding) -> Measured:
  """Returns the `Measured` of values for each example, with what the `models.Encoding` adds to the loss."""
  return Measured(values, encoding.penalties, encoding.statistics)


def mismatch(model, likelihood, activation, logits, x, *emphasis):
  """Returns the reconstruction term [B] of a likelihood; elements count `emphasis` [B, ...] times if it is given."""

  def term(logits, x, *emphasis):
    return math.prod(emphasis, start=LIKELIHOODS[likelihood](logits, x, activation))

  return losses.sum_over_elements(term, logits, x, *emphasis, batch_last=model.batch_last)


def check_likelihood(likelihood, value_range):
  """Raises UserError if a likelihood is unknown or does not fit the range of the data."""
  errors.choose(LIKELIHOODS, likelihood, "objective.likelihood")
  if likelihood == "bernoulli" and value_range != "unit":
    raise errors.UserError(
      f"config.objective.likelihood='bernoulli' needs config.data.range='unit', not {value_range!r}; use 'gaussian'"
    )

"""The plain reconstruction objective, and the parts that the other objectives share."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from ae_jax import errors, losses, remat
from ae_jax.data import ranges
from ae_jax.schedules import Schedule

Statistics = dict[str, jax.Array]


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


def number() -> float:
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

  def statistics(self, model, params, batch, keys) -> Statistics:
    """Returns what the loss is computed from, for each example: leaves [B, ...]."""
    del keys
    return {self.unit: self.mismatch(model, model.reconstruct(params, batch["x"]), batch["x"])}

  def combine(self, model, means: Statistics) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss [] and its terms from the means of the statistics."""
    del model
    loss = means[self.unit]
    return loss, {self.unit: loss}

  def __call__(self, model, params, batch, keys, mean=batch_mean) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss [] of a batch and its terms; `mean` averages the statistics, as `batch_mean` does."""
    compute = functools.partial(self.statistics, model)
    compute = remat.in_segments(compute) if self.remat else compute
    return self.combine(model, mean(compute(params, batch, keys), batch["weight"]))

  def mismatch(self, model, logits, x, *emphasis):
    """Returns the reconstruction term [B] of logits; elements count `emphasis` [B, ...] times if it is given."""
    return mismatch(model, self.likelihood, losses.OUTPUT_ACTIVATIONS[self.value_range], logits, x, *emphasis)


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

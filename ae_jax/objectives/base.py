"""The reconstruction objective, which is the base class of all objectives, and functions that objectives share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ae_jax import errors, models
from ae_jax.data import ranges
from ae_jax.objectives.schedules import Schedule
from ae_jax.ops import losses, remat
from ae_jax.types import LEAST_WEIGHT, AnyArray, Batch, Keys, Scalar

Statistics = dict[str, Array]  # arrays by name
_EMPTY: dict = {}


class ExampleStatistics(NamedTuple):
  """Statistics per example, from which the loss is computed, and sums that update the state of the model."""

  values: Statistics  # {name: [B, ...]}
  penalties: Statistics = _EMPTY  # {name: [B]}: loss terms of the model, see `models.Encoding`
  sums: Any = _EMPTY  # sums over the batch, see `models.Encoding.statistics`


class Aux(NamedTuple):
  """Values that an objective returns in addition to the loss."""

  terms: Statistics  # {name: []}: terms of the loss
  statistics: Any  # `models.Encoding.statistics`, averaged over the examples of the batch


def batch_sum(values: PyTree, weight: Float[AnyArray, " batch"]) -> PyTree:
  """Returns the weighted sums over a batch: leaves [B, ...] -> [...]."""
  return jax.tree.map(lambda leaf: jnp.tensordot(weight, leaf, 1), values)


def batch_mean(values: PyTree, weight: Float[AnyArray, " batch"]) -> PyTree:
  """Returns the weighted means over all examples except padding: leaves [B, ...] -> [...]; 0 if all are padding."""
  count = jnp.maximum(weight.sum(), LEAST_WEIGHT)
  return jax.tree.map(lambda total: total / count, batch_sum(values, weight))


def _bernoulli(logits, x, activation, groups):
  del activation, groups  # the loss applies the sigmoid itself
  return losses.binary_cross_entropy_with_logits(logits, x)


def _gaussian(logits, x, activation, groups):
  del groups
  return jnp.square(activation(logits) - x)


def _mixed(logits, x, activation, groups):
  del activation
  return losses.mixed_nats(logits, x, groups)


# Name -> function (logits, x, output activation, groups of a table) -> reconstruction term of each element.
LIKELIHOODS: dict[str, Callable] = {"bernoulli": _bernoulli, "gaussian": _gaussian, "mixed": _mixed}
_UNITS = {
  "bernoulli": "nats",
  "gaussian": "squared_error",
  "mixed": "nats",
}  # name of the reconstruction term, which is also its unit


# Metadata of the numeric fields. Their values may differ between sweep members that share a compiled program.
NUMERIC = {"numeric": True}


@dataclasses.dataclass(frozen=True)
class Objective:
  """Reconstruction loss: cross-entropy in nats for the likelihood "bernoulli", squared error for "gaussian".

  "bernoulli" needs the value range "unit". "mixed" is for tables in the range "real" and is measured in nats: numbers
  have a Gaussian likelihood with standard deviation 1, categories and booleans a cross-entropy. The keyword-only fields
  of an objective are its options in `config.objective`.
  """

  value_range: str  # a key of losses.OUTPUT_ACTIVATIONS
  span: ranges.Span  # smallest, largest and missing value of the data
  remat: bool = False  # recompute most intermediates in the backward pass
  schedules: tuple[tuple[str, Schedule], ...] = ()  # (name of a numeric field, its schedule)
  _: dataclasses.KW_ONLY
  likelihood: str  # a key of LIKELIHOODS
  samples_posterior: ClassVar[bool] = False  # whether the loss trains the model's posterior to match its prior

  @property
  def needs_whole_batch(self) -> bool:
    """True if `combine` is nonlinear; the loss of a batch then differs from the mean loss of its microbatches."""
    return False

  @property
  def unit(self) -> str:
    """Unit of the reconstruction term, also used as its name: "nats" or "squared_error"."""
    return _UNITS[self.likelihood]

  @classmethod
  def numeric_fields(cls) -> list[str]:
    """Returns the names of the fields with the metadata `NUMERIC`."""
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("numeric")]

  def numbers(self) -> dict[str, float]:
    """Returns {name: value} of the numeric fields."""
    return {name: float(getattr(self, name)) for name in self.numeric_fields()}

  def at(self, step: Any) -> "Objective":
    """Returns the objective with its schedules evaluated at `step` (int32 scalar)."""
    return dataclasses.replace(self, **{name: schedule(step, getattr(self, name)) for name, schedule in self.schedules})

  def is_zero(self, name: str) -> bool:
    """Returns whether a numeric field is 0 throughout training; False if a schedule or a sweep changes it."""
    value = getattr(self, name)
    return name not in dict(self.schedules) and isinstance(value, float) and value == 0.0

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    """Raises UserError if an option of `config.objective` is invalid or not compatible with the model or the data."""
    check_likelihood(options["likelihood"], value_range, len(model.shape))

  def check_columns(self, columns: Collection[str]) -> list[str]:
    """Returns notes about options that have no effect on data with the given columns (see `loss_columns.NAMES`).

    Raises:
      UserError: The objective cannot be used for data with one of the columns.
    """
    del columns
    return []

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> ExampleStatistics:
    """Returns the statistics per example from which the loss is computed."""
    encoding, logits = model.autoencode(variables, batch["x"], batch, keys=keys, train=train)
    return example_statistics({self.unit: self.reconstruction_term(model, logits, *compared(batch))}, encoding)

  def combine(self, model: models.Model, means: Statistics) -> tuple[Scalar, Statistics]:
    """Computes the loss [] and its terms from `means`, the means of `ExampleStatistics.values`."""
    del model
    loss = means[self.unit]
    return loss, {self.unit: loss}

  def loss(self, model: models.Model, values: Statistics, penalties: Statistics) -> tuple[Scalar, Statistics]:
    """Computes the loss [] and its terms from the means of `values` and `penalties` (see `ExampleStatistics`)."""
    loss, terms = self.combine(model, values)
    for penalty in penalties.values():
      loss = loss + penalty
    return loss, {**terms, **penalties}

  def __call__(
    self,
    model: models.Model,
    variables: models.Variables,
    batch: Batch,
    keys: Keys | None,
    *,
    train: bool = False,
    mean: Callable[[PyTree, Array], PyTree] = batch_mean,
  ) -> tuple[Scalar, Aux]:
    """Returns the loss [] of a batch, and an `Aux` with the terms of the loss and the model's statistics.

    `train` enables dropout. `mean` averages the statistics over the batch and has the signature of `batch_mean`.
    """

    def compute(variables, batch, keys):
      return self.statistics(model, variables, batch, keys, train)

    values, penalties, sums = (remat.in_segments(compute) if self.remat else compute)(variables, batch, keys)
    loss, terms = self.loss(model, *mean((values, penalties), batch["weight"]))
    count = jnp.maximum(batch["weight"].sum(), LEAST_WEIGHT)
    return loss, Aux(terms, jax.tree.map(lambda total: jax.lax.stop_gradient(total / count), sums))

  def reconstruction_term(
    self,
    model: models.Model,
    logits: Float[AnyArray, " batch *shape"],
    x: Float[AnyArray, " batch *shape"],
    *emphasis: Float[AnyArray, " batch *shape"],
  ) -> Float[Array, " batch"]:
    """Returns the reconstruction term [B]; each optional `emphasis` holds a factor for each element of `x`."""
    outputs = functools.partial(model.outputs, value_range=self.value_range)
    return reconstruction_term(model, self.likelihood, outputs, logits, x, *emphasis)


def compared(batch: Batch) -> tuple[Float[AnyArray, " batch *shape"], ...]:
  """Returns (targets,) or, if the batch has a mask, (targets, mask).

  If the batch has no targets, its examples are the targets. The mask is 1 for observed elements and 0 for elements that
  the loss ignores.
  """
  return batch.get("target", batch["x"]), *([batch["mask"]] if "mask" in batch else [])


def example_statistics(values: Statistics, encoding: models.Encoding) -> ExampleStatistics:
  """Combines `values` with the penalties and the statistics of `encoding`."""
  return ExampleStatistics(values, encoding.penalties, encoding.statistics)


def reconstruction_term(
  model: models.Model,
  likelihood: str,
  activation: Callable,
  logits: Float[AnyArray, " batch *shape"],
  x: Float[AnyArray, " batch *shape"],
  *emphasis: Float[AnyArray, " batch *shape"],
) -> Float[Array, " batch"]:
  """Returns the reconstruction term [B]; each optional `emphasis` holds a factor for each element of `x`."""

  def term(logits, x, *emphasis):
    return math.prod(emphasis, start=LIKELIHOODS[likelihood](logits, x, activation, model.groups))

  return losses.sum_over_elements(term, logits, x, *emphasis, batch_last=model.batch_last)


def check_likelihood(likelihood: Any, value_range: str, axes: int) -> None:
  """Raises UserError if a likelihood is unknown, or not compatible with the value range or the number of axes."""
  errors.choose(LIKELIHOODS, likelihood, "objective.likelihood")
  if likelihood == "bernoulli" and value_range != "unit":
    raise errors.UserError(
      f"config.objective.likelihood='bernoulli' needs config.data.range='unit', but the range is {value_range!r}; set "
      "config.data.range='unit', or use likelihood 'gaussian'"
    )
  if likelihood == "mixed" and (value_range != "real" or axes != 1):
    raise errors.UserError(
      "config.objective.likelihood='mixed' needs a table and config.data.range='real'; use likelihood 'gaussian'"
    )

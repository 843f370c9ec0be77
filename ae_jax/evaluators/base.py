"""Declaration of an evaluator: its functions, and the properties of the model and the data set that they require."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ae_jax import data, errors, models
from ae_jax.evaluators import context as contexts


@dataclasses.dataclass(frozen=True)
class Need:
  """A property of the model or the data set that an evaluator can require."""

  is_met: Callable[[models.Model, data.Dataset], bool]
  text: str  # end of the message "'NAME' needs ...": the property and how to get it; may contain {dataset}


def _has_integer_labels(model: Any, dataset: data.Dataset) -> bool:
  """Returns whether the training and test examples have integer labels."""
  del model
  return all(contexts.integer_labels(labels) is not None for labels in (dataset.train_labels, dataset.test_labels))


def _has_factors(model: Any, dataset: data.Dataset) -> bool:
  """Returns whether the data contain the generating factors of the training and test examples."""
  del model
  return dataset.train_factors is not None and dataset.test_factors is not None


# To add a requirement, add an entry here and name it in the `needs` of an evaluator or an `Analysis`.
NEEDS: dict[str, Need] = {
  "anomalies": Need(
    lambda model, dataset: bool(np.any(dataset.anomalous)),
    "normal and anomalous test examples; with config.data.one_class={dataset.one_class_name} there are no anomalies: "
    "use a test set with several labels",
  ),
  "complete": Need(
    lambda model, dataset: "mask" not in dataset.column_names,
    "examples of which all elements are observed, but these data have masks",
  ),
  "discrete_code": Need(
    lambda model, dataset: model.code.levels is not None,
    "a discrete latent code; set config.model.name='vqvae' or config.model.bottleneck='fsq5'",
  ),
  "factors": Need(_has_factors, "examples with known generating factors; set config.data.name='factors'"),
  "labels": Need(
    _has_integer_labels,
    "class labels of the training and the test examples; at least one of these two sets has none",
  ),
  "normal_examples": Need(
    lambda model, dataset: not np.all(dataset.anomalous),
    "normal and anomalous test examples; with config.data.one_class={dataset.one_class_name} there are no normal "
    "examples: choose a label of the test set",
  ),
  "one_class": Need(
    lambda model, dataset: dataset.anomalous is not None,
    "config.data.one_class (the label of the normal examples) and labels of the test examples",
  ),
  "posterior": Need(lambda model, dataset: model.has_posterior, "a posterior; set config.model.bottleneck='gaussian'"),
  "no_targets": Need(
    lambda model, dataset: "target" not in dataset.column_names,
    "a model that reconstructs its input, but these data have targets",
  ),
  "unit_range": Need(
    lambda model, dataset: dataset.value_range == "unit", "data in [0, 1]; set config.data.range='unit'"
  ),
}


@dataclasses.dataclass(frozen=True)
class Analysis:
  """An analysis of a trained model.

  An evaluator declares several analyses if they have different requirements.
  """

  function: Callable[[contexts.EvalContext], Iterable[tuple[str, Any]]]  # yields (name, value)
  needs: tuple[str, ...] = ()  # keys of NEEDS; if one is not met, a note replaces the results
  remark: str = "remark"  # name of the note that replaces the results

  def __post_init__(self):
    _check_function("Analysis", "function", self.function)
    _check_needs("Analysis", self.needs)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """A named group of measurements of a model. At least one of its functions must be declared.

  `per_example` and `metrics` are called at each evaluation of the test set during training, and `baselines` once per
  run. `analyses` are called for the trained model.
  """

  name: str  # used in `config.evaluators`, and the prefix of the names of the analyses' results
  needs: tuple[str, ...] = ()  # keys of NEEDS; `check` raises for the first one that is not met
  # Keys of NEEDS; if one is not met, the evaluator is skipped, and a note replaces its results.
  skipped_without: tuple[str, ...] = ()
  # Maps (model, variables, batch, keys, value_range, span) to {name: [B, ...]} on the device.
  per_example: Callable[..., dict] | None = None
  uses_span: bool = True  # whether `per_example` reads the span; if no evaluator does, its argument is None
  # Maps ({name: [N, ...]}, dataset) to pairs (name, value). The arrays hold the results of `per_example` for all N test
  # examples, in the order of the data.
  metrics: Callable[..., Iterable[tuple[str, Any]]] | None = None
  # Maps (dataset, models.CodeSpec) to pairs (name, value); baselines do not use the trained model.
  baselines: Callable[..., Iterable[tuple[str, Any]]] | None = None
  # Each value of an analysis is a number, a figure (see `figures`) or a note, which is a sentence (str).
  analyses: tuple[Analysis, ...] = ()

  def __post_init__(self):
    if not isinstance(self.name, str) or not self.name.isidentifier():
      raise ValueError(
        f"Evaluator(name={errors.format_value(self.name)}): the name must be a Python identifier, such as 'latent'"
      )
    where = f"Evaluator({self.name!r})"
    _check_needs(where, self.needs)
    _check_needs(where, self.skipped_without)
    functions = {"per_example": self.per_example, "metrics": self.metrics, "baselines": self.baselines}
    for field, function in functions.items():
      if function is not None:
        _check_function(where, field, function)
    if not isinstance(self.analyses, tuple) or not all(isinstance(analysis, Analysis) for analysis in self.analyses):
      raise TypeError(
        f"{where}: analyses={errors.format_value(self.analyses)} must be a tuple of Analysis, such as (Analysis(f),)"
      )
    if not self.analyses and not any(functions.values()):
      raise ValueError(f"{where} has no function; declare `analyses`, `baselines`, or both `per_example` and `metrics`")
    if self.per_example and not self.metrics:
      raise ValueError(f"{where} has per_example but no metrics, so its values would be dropped; declare metrics")
    remarks = [analysis.remark for analysis in self.analyses if analysis.needs]
    repeated = [remark for remark in remarks if remarks.count(remark) > 1]
    if repeated:
      raise ValueError(
        f"{where}: two analyses with `needs` have remark={repeated[0]!r}; give each of them a different `remark`"
      )

  def check(self, model: Any, dataset: data.Dataset) -> None:
    """Raises UserError if the `models.Model` or the data set does not meet one of `needs`."""
    unmet = self._unmet_need(self.needs, model, dataset)
    if unmet:
      raise errors.UserError(f"config.evaluators: {unmet}")

  def unless_skipped(self, model: Any, dataset: data.Dataset) -> "Evaluator":
    """Returns the evaluator or, if one of `skipped_without` is not met, an evaluator that only yields a note."""
    unmet = self._unmet_need(self.skipped_without, model, dataset)
    if not unmet:
      return self
    return Evaluator(self.name, analyses=(Analysis(lambda context: [("remark", f"skipped: {unmet}")]),))

  def is_able(self, model: Any, dataset: data.Dataset) -> bool:
    """Returns whether the `models.Model` and the data set meet all of `needs`."""
    return not self._unmet_need(self.needs, model, dataset)

  def analyze(self, context: contexts.EvalContext) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of all analyses; a note replaces the results if requirements are not met."""
    for analysis in self.analyses:
      unmet = self._unmet_need(analysis.needs, context.run.model, context.dataset)
      if unmet:
        yield analysis.remark, unmet
      else:
        yield from analysis.function(context)

  def _unmet_need(self, needs: tuple[str, ...], model: Any, dataset: data.Dataset) -> str:
    """Returns a message about the first requirement that is not met; "" if all are met."""
    for need in needs:
      if not NEEDS[need].is_met(model, dataset):
        return f"{self.name!r} needs {NEEDS[need].text.format(dataset=dataset)}"
    return ""


def _check_needs(where: str, needs: Any) -> None:
  if not isinstance(needs, tuple):
    raise TypeError(f"{where}: needs={errors.format_value(needs)} must be a tuple, such as ('labels',)")
  for need in needs:
    if need not in NEEDS:
      raise ValueError(
        f"{where}: the requirement {errors.format_value(need)} in `needs` is unknown; {errors.list_known(need, NEEDS)}"
      )


def _check_function(where: str, field: str, function: Any) -> None:
  if not callable(function):
    raise TypeError(f"{where}: {field}={errors.format_value(function)} must be a function")

"""Evaluators: measurements of a model, registered by the names that `config.evaluators` uses.

Each evaluator has a module. Its constant `EVALUATOR` declares the functions and the requirements of the evaluator (see
`base.Evaluator`).
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np

from ae_jax import data, errors, models
from ae_jax.data import ranges
from ae_jax.evaluators import (
  anomaly,
  codebook,
  denoising,
  disentanglement,
  display,
  generation,
  latent,
  logistic_pca,
  posterior,
  probe,
  reconstruction,
  robustness,
  sparsity,
)
from ae_jax.evaluators.base import Analysis, Evaluator
from ae_jax.evaluators.context import EvalContext
from ae_jax.types import AnyArray

__all__ = [
  "EVALUATORS",
  "Analysis",
  "Evaluator",
  "analyses",
  "baselines",
  "build",
  "metrics",
  "metrics_of_splits",
  "register",
  "statistics",
]

EVALUATORS: dict[str, Evaluator] = {}


def register(evaluator: Evaluator) -> None:
  """Registers an evaluator, so that `config.evaluators` can contain its name.

  Raises:
    TypeError: The argument is not an `Evaluator`, but for example a module.
    ValueError: Another evaluator has the same name.
  """
  if not isinstance(evaluator, Evaluator):
    raise TypeError(
      f"register: {errors.format_value(evaluator)} is not an Evaluator; pass the EVALUATOR object of a module"
    )
  if evaluator.name in EVALUATORS:
    raise ValueError(f"register: another evaluator has the name {evaluator.name!r}; choose another name")
  EVALUATORS[evaluator.name] = evaluator


for _evaluator in (
  anomaly.EVALUATOR,
  codebook.EVALUATOR,
  denoising.EVALUATOR,
  disentanglement.EVALUATOR,
  generation.EVALUATOR,
  latent.EVALUATOR,
  logistic_pca.EVALUATOR,
  posterior.EVALUATOR,
  probe.EVALUATOR,
  reconstruction.EVALUATOR,
  robustness.EVALUATOR,
  sparsity.EVALUATOR,
):
  register(_evaluator)


def build(names: Iterable[str], model: Any, dataset: data.Dataset) -> tuple[Evaluator, ...]:
  """Returns the evaluator `reconstruction`, which every run has, followed by the evaluators in `names`.

  Args:
    names: Keys of EVALUATORS. Repeated names are ignored.
    model: A `models.Model`.
    dataset: Training and test data of the model.

  Raises:
    UserError: A name is unknown, or the model or the data set does not meet a requirement of an evaluator.
  """
  chosen = [reconstruction.EVALUATOR, *(errors.choose(EVALUATORS, name, "evaluators") for name in names)]
  chosen = list(dict.fromkeys(chosen))
  for evaluator in chosen:
    evaluator.check(model, dataset)
  return tuple(evaluator.unless_skipped(model, dataset) for evaluator in chosen)


def statistics(
  evaluators: Sequence[Evaluator], value_range: str, span: ranges.Span | None
) -> Callable[..., dict[str, AnyArray]]:
  """Returns the function with which `training.evaluation.evaluate` computes the per-example values of one batch.

  Args:
    evaluators: Evaluators of the run.
    value_range: Range of the data, a key of `data.ranges.SPANS`.
    span: Smallest, largest and missing value of the data.

  Returns:
    A function (model, variables, batch, keys) -> {name: [B, ...]}, which calls `per_example` of all evaluators.
  """
  span = span if any(each.per_example and each.uses_span for each in evaluators) else None
  return functools.partial(_per_example, evaluators=evaluators, value_range=value_range, span=span)


def _per_example(model, variables, batch, keys, *, evaluators, value_range, span):
  results = {}
  for evaluator in evaluators:
    if evaluator.per_example:
      values = evaluator.per_example(model, variables, batch, keys, value_range, span)
      _check_new(values, results, evaluator)
      results |= values
  return results


def metrics(
  evaluators: Sequence[Evaluator],
  loss: SupportsFloat,
  values: Mapping[str, AnyArray],
  weights: AnyArray,
  dataset: data.Dataset,
) -> Iterator[tuple[str, Any]]:
  """Yields (name, value) of the test metrics of all evaluators.

  Args:
    evaluators: Evaluators of the run.
    loss: Mean test loss.
    values: Per-example values {name: [batches, B, ...]} from `training.evaluation.evaluate`.
    weights: Example weights [batches, B], which are 0 for padding.
    dataset: Data set whose test examples were evaluated.
  """
  present = np.asarray(weights) > 0
  evaluation_batches = {name: np.asarray(rows)[present] for name, rows in values.items()}
  yield "test/loss", float(loss)
  pairs = [(evaluator, evaluator.metrics(evaluation_batches, dataset)) for evaluator in evaluators if evaluator.metrics]
  yield from _distinct(pairs, {"test/loss"})


def metrics_of_splits(
  evaluators: Sequence[Evaluator],
  model: Any,
  results: Mapping[str, tuple[SupportsFloat, Mapping[str, AnyArray]]],
  weights: Mapping[str, AnyArray],
  dataset: data.Dataset,
) -> dict[str, Any]:
  """Returns the metrics of the test set, "test/...", and of the validation set if there is one, "validation/...".

  If the validation set does not meet the requirements of an evaluator, e.g. if it has no anomalies for "anomaly", it
  has no metrics of this evaluator.

  Args:
    evaluators: Evaluators of the run.
    model: The `models.Model`.
    results: {split: (mean loss, per-example values)}, see `metrics`.
    weights: {split: example weights}.
    dataset: Data set whose test and validation examples were evaluated.
  """
  measured = dict(metrics(evaluators, *results["test"], weights["test"], dataset))
  validated = dataset.on_validation
  if validated is not None:
    able = [evaluator for evaluator in evaluators if evaluator.is_able(model, validated)]
    found = metrics(able, *results["validation"], weights["validation"], validated)
    measured |= {f"validation/{name.removeprefix('test/')}": value for name, value in found}
  return measured


def baselines(
  evaluators: Sequence[Evaluator], dataset: data.Dataset, code: models.CodeSpec
) -> Iterator[tuple[str, Any]]:
  """Yields (name, value) of the baselines of all evaluators."""
  yield from _distinct(
    [(evaluator, evaluator.baselines(dataset, code)) for evaluator in evaluators if evaluator.baselines]
  )


def analyses(evaluators: Sequence[Evaluator], context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields ("EVALUATOR/NAME", value) of all analyses of the evaluators.

  A note (a sentence) replaces each number that is not finite. If some latent codes are not finite, no analysis runs,
  and each evaluator with analyses yields one note instead.
  """
  finite = np.isfinite(context.test_codes).all() and np.isfinite(context.train_codes).all()
  dataset = context.dataset
  labels = (dataset.element_names, dataset.value_label, dataset.channel_names)
  diverged = "some latent codes are not finite: training diverged; lower config.optimizer.learning_rate"
  for evaluator in evaluators:
    results = evaluator.analyze(context) if finite or not evaluator.analyses else [("remark", diverged)]
    for name, value in _distinct([(evaluator, results)]):
      number = isinstance(value, int | float)
      value = value if not number or math.isfinite(value) else _not_finite(name)
      yield f"{evaluator.name}/{name}", display.drawable(value, dataset.kind, *labels)


def _not_finite(name: str) -> str:
  """Returns the note that replaces a number that is not finite."""
  text = name.replace("_", " ")
  return f"{text} is not finite: its denominator is 0 for these data, or some outputs of the model are not finite"


def _distinct(results, taken=()):
  """Yields (name, value) of all results, and raises ValueError if two results have the same name.

  `results` holds one (evaluator, [(name, value), ...]) per evaluator; `taken` holds names that are used already.
  """
  names = set(taken)
  for evaluator, pairs in results:
    for name, value in pairs:
      _check_new([name], names, evaluator)
      names.add(name)
      yield name, value


def _check_new(names, taken, evaluator):
  """Raises ValueError if one of `names` is in `taken`, because the second value would overwrite the first."""
  for name in names:
    if name in taken:
      raise ValueError(f"evaluator {evaluator.name!r}: another result has the name {name!r}; choose another name")

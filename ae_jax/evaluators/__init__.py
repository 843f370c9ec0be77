"""Evaluators: what is measured of a model, by the names of `config.evaluators`.

Each evaluator is a module whose `EVALUATOR` declares its functions and its needs (see `base.Evaluator`).
"""

import functools
import math

import numpy as np

from ae_jax import errors
from ae_jax.evaluators import (
  anomaly,
  codebook,
  denoising,
  disentanglement,
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

__all__ = ["EVALUATORS", "Analysis", "Evaluator", "analyses", "baselines", "build", "metrics", "register", "statistics"]

EVALUATORS: dict[str, Evaluator] = {}


def register(evaluator: Evaluator) -> None:
  """Adds an evaluator, so that `config.evaluators` can name it.

  Raises:
    TypeError: If it is no `Evaluator`, such as a module.
    ValueError: If another evaluator has its name.
  """
  if not isinstance(evaluator, Evaluator):
    raise TypeError(f"register: {errors.shown(evaluator)} is no Evaluator; pass the EVALUATOR that a module declares")
  if evaluator.name in EVALUATORS:
    raise ValueError(f"register: the name {evaluator.name!r} is taken; choose another")
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


def build(names, model, dataset) -> tuple[Evaluator, ...]:
  """Returns the evaluators of these names, after `reconstruction`, which every run has.

  Raises:
    UserError: If a name is unknown, or a need of an evaluator is not met.
  """
  chosen = [reconstruction.EVALUATOR, *(errors.choose(EVALUATORS, name, "evaluators") for name in names)]
  chosen = list(dict.fromkeys(chosen))
  for evaluator in chosen:
    evaluator.check(model, dataset)
  return tuple(chosen)


def statistics(evaluators, value_range, span):
  """Returns what `steps.evaluate` computes for them: a function (model, variables, batch, keys) -> {name: [B, ...]}.

  `span` is the `data.ranges.Span` of the data.
  """
  return functools.partial(_per_example, evaluators=evaluators, value_range=value_range, span=span)


def _per_example(model, variables, batch, keys, *, evaluators, value_range, span):
  found = {}
  for evaluator in evaluators:
    if evaluator.per_example:
      values = evaluator.per_example(model, variables, batch, keys, value_range, span)
      _check_new(values, found, evaluator)
      found |= values
  return found


def metrics(evaluators, loss, values, weights, dataset):
  """Generates (name, value) from what `steps.evaluate` returned, with the weights [batches, B] of its rows."""
  present = np.asarray(weights) > 0
  in_order = {name: np.asarray(rows)[present] for name, rows in values.items()}
  yield "test/loss", float(loss)
  named = [(each, each.metrics(in_order, dataset)) for each in evaluators if each.metrics]
  yield from _distinct(named, {"test/loss"})


def baselines(evaluators, dataset, code):
  """Generates (name, value) of all their baselines."""
  yield from _distinct([(each, each.baselines(dataset, code)) for each in evaluators if each.baselines])


def analyses(evaluators, context):
  """Generates ("EVALUATOR/NAME", value) of all their analyses.

  A number that is not finite becomes a remark. If some codes are not finite, a remark replaces the analyses of each
  evaluator.
  """
  finite = np.isfinite(context.test_codes).all() and np.isfinite(context.train_codes).all()
  diverged = "the codes of some examples are not finite: the training diverged; lower the learning rate"
  for evaluator in evaluators:
    found = evaluator.analyze(context) if finite or not evaluator.analyses else [("remark", diverged)]
    for name, value in _distinct([(evaluator, found)]):
      number = isinstance(value, int | float)
      yield f"{evaluator.name}/{name}", value if not number or math.isfinite(value) else _undefined(name)


def _undefined(name):
  """A remark instead of a number that is not finite."""
  return (
    f"there is no finite number for {name.replace('_', ' ')}: it divides by something that is 0 for these data, or the "
    "model's outputs are not finite"
  )


def _distinct(found, taken=()):
  """Generates the (name, value) of pairs (evaluator, its findings); ValueError if a name occurs twice."""
  names = set(taken)
  for evaluator, pairs in found:
    for name, value in pairs:
      _check_new([name], names, evaluator)
      names.add(name)
      yield name, value


def _check_new(names, taken, evaluator):
  """Raises ValueError if a name is taken: of two values with one name, the first would be lost."""
  for name in names:
    if name in taken:
      raise ValueError(f"evaluator {evaluator.name!r}: the name {name!r} occurs twice; rename one")

"""What is measured of a model. An evaluator is a module of four functions.

- `check(model, dataset)` raises UserError where it does not apply;
- `per_example(model, params, batch, keys, value_range)` gives {name: [B, ...]}, computed on the device;
- `metrics(values, dataset)` generates (name, value) from the same over the whole test set in order, {name: [N, ...]};
- `rulers(dataset, latent)` generates (name, value) of what these are held against, none of it depending on the model.
"""

import functools

import numpy as np

from ae_jax import errors
from ae_jax.evaluators import anomaly, denoising, posterior, reconstruction, sparsity

EVALUATORS = {"anomaly": anomaly, "denoising": denoising, "posterior": posterior, "sparsity": sparsity}


def build(names, model, dataset):
  """The evaluators of `config.evaluators`, after `reconstruction`, which every run has; UserError for what is amiss."""
  chosen = [reconstruction, *(errors.choose(EVALUATORS, name, "evaluators") for name in names)]
  for evaluator in chosen:
    evaluator.check(model, dataset)
  return tuple(chosen)


def statistics(evaluators, value_range):
  """What `steps.evaluate` computes for them: a function (model, params, batch, keys) -> {name: [B, ...]}."""
  return functools.partial(_per_example, evaluators=evaluators, value_range=value_range)


def _per_example(model, params, batch, keys, *, evaluators, value_range):
  found = {}
  for evaluator in evaluators:
    found |= evaluator.per_example(model, params, batch, keys, value_range)
  return found


def metrics(evaluators, losses, values, weights, dataset):
  """Generates (name, value) from what `steps.evaluate` gave, with the weights [batches, B] of its rows."""
  present = np.asarray(weights) > 0
  in_order = {name: np.asarray(rows)[present] for name, rows in values.items()}
  yield "test/loss", float(np.average(np.asarray(losses, np.float64), weights=present.sum(1)))
  for evaluator in evaluators:
    yield from evaluator.metrics(in_order, dataset)


def rulers(evaluators, dataset, latent):
  """Generates (name, value) of all their rulers."""
  for evaluator in evaluators:
    yield from evaluator.rulers(dataset, latent)

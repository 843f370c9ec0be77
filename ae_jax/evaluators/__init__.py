"""What is measured of a model. An evaluator is a module of some of these functions.

- `check(model, dataset)` raises UserError where the evaluator does not apply.

What every evaluation of the test set computes, as training goes on:

- `per_example(model, variables, batch, keys, value_range, span)` gives {name: [B, ...]}, computed on the device;
- `metrics(values, dataset)` generates (name, value) from the same over the whole test set in order, {name: [N, ...]};
- `rulers(dataset, code)` generates (name, value) of what these are held against, none of it depending on the model.

What is found out once, about a trained model:

- `study(subject)` generates (name, value) from a `subject.Subject`. A value is a number, what is to be shown (one of
  `exhibits`), or a remark: a sentence, most often why something could not be measured.
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

EVALUATORS = {
  "anomaly": anomaly,
  "codebook": codebook,
  "denoising": denoising,
  "disentanglement": disentanglement,
  "generation": generation,
  "latent": latent,
  "logistic_pca": logistic_pca,
  "posterior": posterior,
  "probe": probe,
  "reconstruction": reconstruction,
  "robustness": robustness,
  "sparsity": sparsity,
}


def build(names, model, dataset):
  """The evaluators of these names, after `reconstruction`, which every run has; UserError for what is amiss."""
  chosen = [reconstruction, *(errors.choose(EVALUATORS, name, "evaluators") for name in names)]
  chosen = list(dict.fromkeys(chosen))
  for evaluator in chosen:
    _function(evaluator, "check")(model, dataset)
  return tuple(chosen)


def statistics(evaluators, value_range, span):
  """Returns what `steps.evaluate` computes for them: a function (model, variables, batch, keys) -> {name: [B, ...]}.

  `span` is the `data.ranges.Span` of the data.
  """
  return functools.partial(_per_example, evaluators=evaluators, value_range=value_range, span=span)


def _per_example(model, variables, batch, keys, *, evaluators, value_range, span):
  found = {}
  for evaluator in evaluators:
    found |= _function(evaluator, "per_example", {})(model, variables, batch, keys, value_range, span)
  return found


def metrics(evaluators, loss, values, weights, dataset):
  """Generates (name, value) from what `steps.evaluate` returned, with the weights [batches, B] of its rows."""
  present = np.asarray(weights) > 0
  in_order = {name: np.asarray(rows)[present] for name, rows in values.items()}
  yield "test/loss", float(loss)
  for evaluator in evaluators:
    yield from _function(evaluator, "metrics")(in_order, dataset)


def rulers(evaluators, dataset, code):
  """Generates (name, value) of all their rulers."""
  for evaluator in evaluators:
    yield from _function(evaluator, "rulers")(dataset, code)


def studies(evaluators, subject):
  """Generates ("EVALUATOR/NAME", value) of all their studies.

  A number that is not finite becomes a remark. Where codes are not finite, each evaluator gives a remark alone.
  """
  finite = np.isfinite(subject.test_codes).all() and np.isfinite(subject.train_codes).all()
  for evaluator in evaluators:
    room = evaluator.__name__.rpartition(".")[2]
    if finite or not hasattr(evaluator, "study"):
      found = _function(evaluator, "study")(subject)
    else:
      found = [("remark", "the codes of some examples are not finite: the training diverged; lower the learning rate")]
    for name, value in found:
      number = isinstance(value, int | float)
      yield f"{room}/{name}", value if not number or math.isfinite(value) else _undefined(name)


def _undefined(name):
  """A remark instead of a number that is not finite."""
  return (
    f"there is no finite number for {name.replace('_', ' ')}: it divides by something that is 0 for these data, or the "
    "model's outputs are not finite"
  )


def _function(evaluator, name, nothing=()):
  """A function of an evaluator, or one that gives nothing."""
  return getattr(evaluator, name, lambda *_: nothing)

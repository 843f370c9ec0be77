"""What is minimised: pure functions (model, params, batch, rng) -> (loss, terms).

A batch holds `x` [B, H, W, C], normalised, and `weight` [B], which is 0 on padding. Every term is summed over the
example and averaged over the batch. The same function serves training and evaluation.
"""

import functools

import jax.numpy as jnp

from ae_jax import errors, losses


def batch_mean(per_example, weight):
  """The mean over the examples that are not padding, 0 if all are: [B], [B] -> []."""
  return (per_example * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def _bernoulli(logits, x, value_range):
  del value_range
  return "nats", losses.bernoulli_nats(logits, x)


def _gaussian(logits, x, value_range):
  return "squared_error", losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), x)


# Each gives the term's name (its unit) and its value per example [B].
LIKELIHOODS = {"bernoulli": _bernoulli, "gaussian": _gaussian}


def _reconstruction(model, params, batch, rng, *, likelihood, value_range):
  del rng  # nothing random here
  logits = model.decode(params, model.encode(params, batch["x"]))
  name, per_example = LIKELIHOODS[likelihood](logits, batch["x"], value_range)
  loss = batch_mean(per_example, batch["weight"])
  return loss, {name: loss}


def reconstruction(value_range, *, likelihood):
  """The plain autoencoder's objective: "bernoulli" in nats (needs the range "unit"), "gaussian" in squared error."""
  errors.choose(LIKELIHOODS, likelihood, "objective.likelihood")
  if likelihood == "bernoulli" and value_range != "unit":
    raise errors.UserError(
      f"config.objective.likelihood='bernoulli' needs config.data.range='unit', not {value_range!r}; use 'gaussian'"
    )
  return functools.partial(_reconstruction, likelihood=likelihood, value_range=value_range)


OBJECTIVES = {"reconstruction": reconstruction}


def build(name, value_range, **options):
  """The objective that `config.objective` describes, for data of a range; UserError for what does not fit."""
  return errors.call(OBJECTIVES, "objective", name, value_range, **options)

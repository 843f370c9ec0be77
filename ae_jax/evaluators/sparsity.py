"""How few of a code's units are at work at a time."""

import numpy as np

from ae_jax.evaluators import base
from ae_jax.ops import losses

ACTIVE = 0.1  # the magnitude from which a unit counts as active: far from a ReLU's 0, and twice the usual rho


def per_example(model, variables, batch, keys, value_range, span):
  """Returns the latent codes as vectors [B, numbers]."""
  del keys, value_range, span
  return {"code": losses.flat(model.encode(variables, batch["x"], batch).z)}


def metrics(values, dataset):
  """Generates the share of active units, the mean activation, and how many units no test example activates."""
  del dataset
  active = np.abs(values["code"]) > ACTIVE
  yield "test/density", float(active.mean())
  yield "test/mean_activation", float(np.abs(values["code"]).mean(dtype=np.float64))
  yield "test/dead_units", int(dead(values["code"]).sum())


def dead(codes):
  """Which units no example of codes [N, latent] activates: bool [latent]."""
  return ~(np.abs(codes) > ACTIVE).any(0)


EVALUATOR = base.Evaluator(name="sparsity", per_example=per_example, metrics=metrics)

"""What a gaussian posterior tells about the example, dimension by dimension."""

import numpy as np

from ae_jax.evaluators import base
from ae_jax.objectives import elbo
from ae_jax.ops import losses

TOLD = 1024  # dimensions that have a metric of their own, the first ones
ACTIVE = 0.01  # the variance of the posterior's mean over the test set from which a unit counts (Burda et al. 2016)


def per_example(model, variables, batch, keys, value_range, span):
  """Returns the posterior mean, and the KL to the prior in nats per dimension: [B, numbers] each."""
  del value_range, span
  posterior = model.encode(variables, batch["x"], batch).posterior
  kl = model.kl_to_prior(variables, posterior, elbo.sample(posterior, keys))
  return {"posterior_mean": losses.flat(posterior.mean), "posterior_kl": losses.flat(kl)}


def metrics(values, dataset):
  """Generates the KL in nats per test example, its share per dimension, and the number of active units."""
  del dataset
  per_dimension = values["posterior_kl"].mean(0, dtype=np.float64)
  yield "test/kl", float(per_dimension.sum())
  yield "test/active_units", int(active(values["posterior_mean"]).sum())
  for number, nats in enumerate(per_dimension[:TOLD]):
    yield f"test/kl_dimension/{number}", float(nats)


def active(means):
  """Which units' posterior means [N, latent] vary from example to example: bool [latent] (Burda et al. 2016)."""
  return means.var(0, dtype=np.float64) > ACTIVE


EVALUATOR = base.Evaluator(name="posterior", needs=("posterior",), per_example=per_example, metrics=metrics)

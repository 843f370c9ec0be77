"""KL divergence of a Gaussian posterior from the prior, per latent dimension, and active units."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from ae_jax import data, models
from ae_jax.evaluators import base, reconstruction
from ae_jax.objectives import elbo
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Keys

MAX_LOGGED_DIMENSIONS = 1024  # maximum number of latent dimensions that have a KL metric of their own
ACTIVE = 0.01  # variance of the posterior mean over the test set above which a unit is active (Burda et al. 2016)


def per_example(
  model: models.Model,
  variables: models.Variables,
  batch: Mapping[str, AnyArray],
  keys: Keys,
  value_range: str,
  span: Any,
) -> dict[str, Float[Array, "batch _"]]:
  """Returns {"posterior_mean": [B, latent], "posterior_kl": [B, latent]}; the KL divergences are in nats."""
  del value_range, span
  posterior = model.encode(variables, batch["x"], batch).posterior
  kl = model.kl_to_prior(variables, posterior, elbo.sample(posterior, keys))
  return {"posterior_mean": losses.flat(posterior.mean), "posterior_kl": losses.flat(kl)}


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, Any]]:
  """Yields the mean KL of a test example in nats, the number of active units, and the KL of each latent dimension.

  The KL is measured on the examples of the test loss, i.e. without anomalies.
  """
  per_dimension = reconstruction.trained_class_only(values["posterior_kl"], dataset).mean(0, dtype=np.float64)
  yield "test/kl", float(per_dimension.sum())
  yield "test/active_units", int(active(values["posterior_mean"]).sum())
  for number, nats in enumerate(per_dimension[:MAX_LOGGED_DIMENSIONS]):
    yield f"test/kl_dimension/{number}", float(nats)


def active(means: Float[np.ndarray, "examples latent"]) -> Bool[np.ndarray, " latent"]:
  """Returns the mask of the active units, whose posterior means have a variance above `ACTIVE` (Burda et al. 2016)."""
  return means.var(0, dtype=np.float64) > ACTIVE


EVALUATOR = base.Evaluator(name="posterior", needs=("posterior",), per_example=per_example, metrics=metrics)

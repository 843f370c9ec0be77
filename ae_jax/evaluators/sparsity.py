"""Sparsity of the latent code: fraction of active latents, mean activation, and dead units."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from ae_jax import models
from ae_jax.evaluators import base
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Keys

ACTIVE = 0.1  # magnitude above which a unit is active: far from 0, and twice the usual target activation rho


def per_example(
  model: models.Model,
  variables: models.Variables,
  batch: Mapping[str, AnyArray],
  keys: Keys,
  value_range: str,
  span: Any,
) -> dict[str, Float[Array, "batch latent"]]:
  """Returns the latent codes as vectors: {"code": [B, latent]}."""
  del keys, value_range, span
  return {"code": losses.flat(model.encode(variables, batch["x"], batch).z)}


def metrics(values: Mapping[str, np.ndarray], dataset: Any) -> Iterator[tuple[str, Any]]:
  """Yields the fraction of active latents, the mean magnitude of the latents, and the number of dead units."""
  del dataset
  active = np.abs(values["code"]) > ACTIVE
  yield "test/density", float(active.mean())
  yield "test/mean_activation", float(np.abs(values["code"]).mean(dtype=np.float64))
  yield "test/dead_units", int(dead(values["code"]).sum())


def dead(codes: Float[np.ndarray, "examples latent"]) -> Bool[np.ndarray, " latent"]:
  """Returns the mask of the dead units, which no example activates."""
  return ~(np.abs(codes) > ACTIVE).any(0)


EVALUATOR = base.Evaluator(name="sparsity", per_example=per_example, metrics=metrics)

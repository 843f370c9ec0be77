"""Metrics that describe how many codebook entries a discrete latent code uses."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from ae_jax.evaluators import base
from ae_jax.types import AnyArray


def per_example(
  model: Any, variables: Any, batch: Mapping[str, AnyArray], keys: Any, value_range: Any, span: Any
) -> dict[str, AnyArray]:
  """Returns the codebook indices of each example: {"indices": int32 [B, latents]}."""
  del keys, value_range, span
  indices = model.encode(variables, batch["x"], batch).indices
  return {"indices": indices.reshape(indices.shape[0], -1)}


def metrics(values: Mapping[str, np.ndarray], dataset: Any) -> Iterator[tuple[str, float | int]]:
  """Yields the perplexity and the number of distinct codebook indices, counted over all examples and latents."""
  del dataset
  counts = np.unique(values["indices"], return_counts=True)[1]
  yield "test/codebook_perplexity", perplexity(counts)
  yield "test/codebook_entries", len(counts)


def perplexity(counts: Int[np.ndarray, " values"]) -> float:
  """Returns the perplexity, exp(entropy in nats), of the distribution with these counts.

  It is the number of values of a uniform distribution with the same entropy.
  """
  shares = counts / counts.sum()
  return float(np.exp(-(shares * np.log(shares)).sum()))


EVALUATOR = base.Evaluator(name="codebook", needs=("discrete_code",), per_example=per_example, metrics=metrics)

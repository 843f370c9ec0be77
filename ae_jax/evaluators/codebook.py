"""How a discrete code uses its codebook."""

import numpy as np

from ae_jax.evaluators import base


def per_example(model, variables, batch, keys, value_range, span):
  """Returns the discrete latents of each example: int32 [B, latents]."""
  del keys, value_range, span
  indices = model.encode(variables, batch["x"], batch).indices
  return {"indices": indices.reshape(indices.shape[0], -1)}


def metrics(values, dataset):
  """Generates the perplexity of the codebook and the number of its entries that occur, over all latents."""
  del dataset
  counts = np.unique(values["indices"], return_counts=True)[1]
  yield "test/codebook_perplexity", perplexity(counts)
  yield "test/codebook_entries", len(counts)


def perplexity(counts):
  """Returns exp of the entropy of a distribution, from how often each value occurs [values].

  As many values, used equally often, have the same entropy.
  """
  shares = counts / counts.sum()
  return float(np.exp(-(shares * np.log(shares)).sum()))


EVALUATOR = base.Evaluator(name="codebook", needs=("discrete_code",), per_example=per_example, metrics=metrics)

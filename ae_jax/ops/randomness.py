"""Random keys for each example, so that no result depends on how examples are batched."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Integer, Key


def example_keys(key: Key[Array, ""], numbers: Integer[jax.Array | np.ndarray, " batch"]) -> Key[Array, " batch"]:
  """Returns one key for each example, derived from `key` and the number of the example."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)

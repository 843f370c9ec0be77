"""One random key per example, so that results do not depend on how examples are batched."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Integer, Key


def example_keys(key: Key[Array, ""], numbers: Integer[jax.Array | np.ndarray, " batch"]) -> Key[Array, " batch"]:
  """Returns one random key per example, derived from `key` and the number of the example in `numbers`."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)

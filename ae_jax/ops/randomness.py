"""Random keys for each example, so that no result depends on how examples are batched."""

import functools

import jax
from jaxtyping import Array, Integer, Key

from ae_jax.types import AnyArray, Keys


def example_keys(key: Key[Array, ""], numbers: Integer[AnyArray, " batch"]) -> Keys:
  """Returns one key for each example, derived from `key` and the number of the example."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)

"""Random keys that depend on the example, so that no result depends on how examples are batched."""

import functools

import jax


def example_keys(key, numbers):
  """A key for each number: [] and int32 [B] -> keys [B]."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)

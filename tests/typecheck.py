"""The runtime type checker that the tests put on every function of ae_jax (see `addopts` in pyproject.toml)."""

import beartype
from beartype.roar import BeartypeDecorHintPep3119Exception


def checked(function):
  """Returns a function with its annotations checked by beartype.

  The constructor of a module that inherits from a Flax layer stays unchecked: a field of the layer has a protocol as
  its type that cannot be checked at runtime.
  """
  try:
    return beartype.beartype(function)
  except BeartypeDecorHintPep3119Exception:
    return function

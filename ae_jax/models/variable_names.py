"""Names of the arrays of a model, such as "encoder/code/kernel" and "state/codebook", and patterns of names."""

import re
from collections.abc import Mapping
from typing import Any

import jax

from ae_jax import errors
from ae_jax.models import Variables

_NETWORK = "network/"  # prefix of the parameter names of a `linear_paths.LinearPath`
_STATE = "state/"  # prefix of the array names in `Variables.state`


def named(variables: Variables) -> dict[str, Any]:
  """Returns {name: array} of the parameters, then of the model state."""
  parts = (("", variables.params), (_STATE, variables.state))
  return {
    prefix + of_path(path): leaf for prefix, part in parts for path, leaf in jax.tree_util.tree_leaves_with_path(part)
  }


def replaced(variables: Variables, arrays: Mapping[str, Any]) -> Variables:
  """Returns the variables, in which each array whose name is in `arrays` is replaced by the array in `arrays`."""

  def replace(prefix: str, tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: arrays.get(prefix + of_path(path), leaf), tree)

  return Variables(replace("", variables.params), replace(_STATE, variables.state))


def matches(pattern: str, name: str) -> bool:
  """Returns whether a regular expression matches the beginning of a name.

  In a model with a linear path, the names of the network's parameters begin with "network/". The pattern can match the
  name with or without this prefix, so the same pattern works for models without a linear path.
  """
  return any(re.match(pattern, begin) for begin in (name, name.removeprefix(_NETWORK)))


def check_pattern(key: str, pattern: str, variables: Variables) -> None:
  """Raises UserError unless the regular expression `pattern` of a config key matches the name of some array."""
  try:
    re.compile(pattern)
  except re.error as error:
    raise errors.UserError(f"config.{key}={pattern!r}: must be a regular expression; {error}") from None
  names = [*named(variables)]
  if not any(matches(pattern, name) for name in names):
    raise errors.UserError(
      f"config.{key}={pattern!r}: must match the beginning of the name of an array of the model: {', '.join(names)}"
    )


def of_path(path: tuple[Any, ...]) -> str:
  """Returns the name of the array at a path of a pytree."""
  return "/".join(str(key.key) for key in path)

"""Frozen parts of a model: arrays that the training does not change (`config.freeze`)."""

from typing import Any

import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import Variables, variable_names
from ae_jax.types import Params


def check(freeze: str, variables: Variables) -> None:
  """Raises UserError if the pattern `config.freeze` matches no array, or all parameters."""
  if not freeze:
    return
  variable_names.check_pattern("freeze", freeze, variables)
  parameters = variable_names.named(Variables(variables.params))
  if all(variable_names.matches(freeze, name) for name in parameters):
    raise errors.UserError(f"config.freeze={freeze!r}: matches all parameters; leave some to train")


def without_frozen(gradient: Params, freeze: str) -> Params:
  """Returns the gradient with zeros for the frozen parameters; the compiler then omits their computation."""
  if not freeze:
    return gradient
  zeros = {name: jnp.zeros_like(leaf) for name, leaf in _frozen(Variables(gradient), freeze).items()}
  return variable_names.replaced(Variables(gradient), zeros).params


def with_frozen(updated: Variables, before: Variables, freeze: str) -> Variables:
  """Returns the variables `updated`, in which the frozen arrays are replaced by the arrays in `before`."""
  return variable_names.replaced(updated, _frozen(before, freeze)) if freeze else updated


def _frozen(variables: Variables, freeze: str) -> dict[str, Any]:
  return {name: leaf for name, leaf in variable_names.named(variables).items() if variable_names.matches(freeze, name)}

"""Config keys as Python arguments: `optimizer__learning_rate=1e-3` is the key `optimizer.learning_rate`."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FieldReference

from ae_jax import config as configs
from ae_jax import errors

_SEPARATOR = "__"  # stands for the dot, which is no part of a Python name


def dotted(arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {dotted key: value} for {argument: value}.

  Raises:
    UserError: A key and the section that contains it are both given.
  """
  values = {name.replace(_SEPARATOR, "."): value for name, value in arguments.items()}
  for key, value in values.items():
    section = next((other for other in values if key.startswith(f"{other}.")), None)
    if section:
      raise errors.UserError(
        f"{argument(key)}={errors.format_value(value)}: conflicts with {argument(section)}=, which sets the whole "
        "section; move the value into that dict"
      )
  return values


def argument(key: str) -> str:
  """Returns the name of the argument for a dotted key."""
  return key.replace(".", _SEPARATOR)


def apply(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
  """Returns a config with other values; a section can be replaced by a dict.

  Lists become tuples, and numbers and texts become tuples of one entry where the config has a tuple.

  Args:
    config: The config; it is not changed.
    changes: {dotted key: value}.

  Raises:
    UserError: A key is unknown.
  """
  values = config.to_dict()
  for key, value in changes.items():
    *path, name = key.split(".")
    section = values
    for part in path:
      section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section:
      known = map(argument, configs.flat(values))
      raise errors.UserError(
        f"{argument(key)}={errors.format_value(value)}: there is no such argument, and no such key of the config; "
        f"{errors.suggestion(argument(key), known)}`ae_jax describe --config=NAME` lists the keys"
      )
    section[name] = _converted(value, section[name])
  return ConfigDict(_with_types(values, config.to_dict(preserve_field_references=True))).lock()


def _with_types(values: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns values in which keys that may have several types, such as the learning rate, have the types of `fields`."""
  typed = dict(values)
  for key, field in fields.items():
    if isinstance(field, FieldReference) and type(values[key]) in (*field.get_type(), type(None)):
      typed[key] = FieldReference(values[key], field_type=field.get_type())
    elif isinstance(field, dict) and isinstance(values[key], dict):
      typed[key] = _with_types(values[key], {name: each for name, each in field.items() if name in values[key]})
  return typed


def _converted(value: Any, current: Any) -> Any:
  """Returns a value in the type that the config has for it, if it is an equal value of another type."""
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, list | tuple):
    return tuple(_converted(each, None) for each in value)
  if isinstance(current, tuple):
    return (value,)
  is_count = isinstance(current, int) and isinstance(value, float) and value.is_integer()
  return int(value) if is_count else value

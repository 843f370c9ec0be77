"""Config keys as Python arguments: `optimizer__learning_rate=1e-3` sets the key `optimizer.learning_rate`."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FieldReference

from ae_jax import config as configs
from ae_jax import errors

_SEPARATOR = "__"  # replaces the dot, which a Python name cannot contain


def dotted(arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Converts {argument: value} to {dotted key: value}.

  Raises:
    UserError: A key is given, and also the section that contains it.
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
  """Returns the Python argument for a dotted key, such as "optimizer__learning_rate"."""
  return key.replace(".", _SEPARATOR)


def with_keys(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `changes` plus the arguments that are not None; raises UserError if a key is in both."""
  given = {key: value for key, value in arguments.items() if value is not None}
  check_once(given, changes)
  return given | dict(changes)


def check_once(given: Iterable[str], changes: Mapping[str, Any]) -> None:
  """Raises UserError if a key in `given` is also in `changes`."""
  for key in given:
    if key in changes:
      value = errors.format_value(changes[key])
      raise errors.UserError(f"{argument(key)}={value}: is given twice; remove one of them")


def apply(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
  """Returns a copy of a config with changed values; the value of a section is a dict.

  Lists become tuples. If the config has a tuple for a key, a single number or string becomes a tuple of one entry.

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
        f"{argument(key)}={errors.format_value(value)}: unknown argument or config key; "
        f"{errors.suggestion(argument(key), known)}`ae_jax describe --config=NAME` lists the keys"
      )
    section[name] = _converted(value, section[name])
  return ConfigDict(_with_types(values, config.to_dict(preserve_field_references=True))).lock()


def _with_types(values: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
  """Wraps values in the `FieldReference`s of `fields`, which allow several types, e.g. for the learning rate."""
  typed = dict(values)
  for key, field in fields.items():
    if isinstance(field, FieldReference) and type(values[key]) in (*field.get_type(), type(None)):
      typed[key] = FieldReference(values[key], field_type=field.get_type())
    elif isinstance(field, dict) and isinstance(values[key], dict):
      typed[key] = _with_types(values[key], {name: each for name, each in field.items() if name in values[key]})
  return typed


def _converted(value: Any, current: Any) -> Any:
  """Converts a value to the type that the config uses, such as 5.0 or np.int64(5) to 5, or a path to a string."""
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

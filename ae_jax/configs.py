"""Shipped configs by name: `ae_jax.configs.get("cnn:mnist")` is the config of `ae_jax train --config=cnn:mnist`."""

import pathlib
from typing import TYPE_CHECKING

from ae_jax import errors

if TYPE_CHECKING:
  import ml_collections


def names() -> list[str]:
  """Returns the names of the shipped configs."""
  from ae_jax.config import shipped  # imports ml_collections, for which `import ae_jax` must not wait

  return list(shipped.files())


def get(name: str, data: str = "") -> "ml_collections.ConfigDict":
  """Returns the config with this name. Its values can be changed, but no keys can be added.

  Example:
    >>> config = ae_jax.configs.get("cnn:mnist")
    >>> config.model.latent = 16

  Args:
    name: Name of a shipped config or path of a config file, optionally followed by a colon and the name of a data set.
    data: Name of a data set, which replaces the one in `name`. "": the one in `name`, or the default of the config.

  Raises:
    UserError: There is no such config, or its file cannot be executed.
  """
  from ae_jax.config import shipped

  if not isinstance(name, str):
    raise errors.UserError(shipped.no_such_config(name, "config"))
  path, of_name = shipped.split(shipped.resolve(name))
  if not pathlib.Path(path).is_file():
    raise errors.UserError(shipped.no_such_config(name, "config"))
  with errors.convert_errors(f"config={name}"):
    return shipped.execute(path, data or of_name)

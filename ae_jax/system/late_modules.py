"""Modules of a package that are imported when they are first used as attributes of the package."""

import importlib
from collections.abc import Callable, Collection
from typing import Any


def importer(package: str, names: Collection[str]) -> Callable[[str], Any]:
  """Returns the function `__getattr__` of a package, which imports its modules `names` on first use."""

  def import_module(name: str) -> Any:
    if name not in names:
      raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return importlib.import_module(f"{package}.{name}")

  return import_module

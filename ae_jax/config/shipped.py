"""Finds shipped configs, which are part of the package, by their names: `cnn` is configs/cnn.py."""

import ast
import importlib.util
import inspect
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ae_jax import errors

_PACKAGE = pathlib.Path(__file__).parent.parent
Flags = Callable[[ConfigDict], Mapping[str, Any]]  # config -> {dotted key: value}, with the types of the config


def folder() -> pathlib.Path:
  """Returns the folder of the shipped configs: inside an installed package, or beside the package in a checkout."""
  installed = _PACKAGE / "shipped_configs"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def files() -> dict[str, pathlib.Path]:
  """Returns {name: file} of the shipped configs."""
  return {file.stem: file for file in sorted(folder().glob("[!_]*.py"))}


def is_shipped(file: pathlib.Path) -> bool:
  """Returns whether a file has the name and the contents of a shipped config; a checkout has copies of them."""
  known = files().get(file.stem)
  return known is not None and file.is_file() and file.read_bytes() == known.read_bytes()


def summaries() -> dict[str, str]:
  """Returns {name: first line of the docstring} of the shipped configs, without executing them."""
  return {
    name: (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0] for name, file in files().items()
  }


def resolve(config: str) -> str:
  """Returns "FILE.py[:DATASET]" for "NAME[:DATASET]" if NAME is a shipped config.

  Any other value, and the name of an existing file, is returned unchanged.
  """
  name, colon, data = config.partition(":")
  known = files()
  return f"{known[name]}{colon}{data}" if name in known and not pathlib.Path(name).is_file() else config


def by_name(message: str) -> str:
  """Returns a message about the flag --config with the names of shipped configs, as given, instead of their files."""
  for name, file in files().items():
    message = message.replace(f"--config={file}:", f"--config={name}:")
  return message


def split(path: str) -> tuple[str, str]:
  """Returns FILE.py and DATASET of "FILE.py[:DATASET]", or ("", "") for any other text; folder names may have ".py"."""
  match = re.fullmatch(r"(.*?\.py)(?::(.*))?", path, re.DOTALL)
  return (match[1], match[2] or "") if match else ("", "")


def execute(file: str, data: str, flags: Flags = lambda config: {}) -> ConfigDict:
  """Returns the locked config of a config file.

  Args:
    file: The config file.
    data: Name of a data set, or "" for that of the file.
    flags: Function that returns the flags --config.KEY=VALUE of the command for a config with these keys. A
      `get_config` with the parameter `flags` receives it, for choices that depend on them. The caller applies all
      flags to the result.
  """
  spec = importlib.util.spec_from_file_location(f"config_{pathlib.Path(file).stem}", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  options = {"flags": flags} if "flags" in inspect.signature(module.get_config).parameters else {}
  config = module.get_config(*([data] if data else []), **options)
  if not isinstance(config, ConfigDict):
    raise TypeError(f"get_config returned an object of type {type(config).__name__}; return a ConfigDict")
  return config.lock()


def no_such_config(given: object, flag: str = "--config") -> str:
  """Returns the error message for a config that is neither a file nor the name of a shipped config."""
  name = str(given).partition(":")[0]
  return f"{flag}={given}: there is no such config file or shipped config; {errors.list_known(name, files())}"

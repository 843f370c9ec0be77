"""The meaning of each key of a config, taken from the comments beside its declaration."""

import pathlib
import re
from collections.abc import Iterable

from ae_jax import config as configs

_KEY = re.compile(r"  config\.([\w.]+) = (.*?)(?:  # (.*))?")
_COMMENT = re.compile(r"  # (.*)")


def meanings(config_file: pathlib.Path | None = None) -> dict[str, str]:
  """Returns {dotted key: meaning} of the keys of `config.base` and of those that a config file adds."""
  found = _comments(pathlib.Path(configs.__file__).read_text().splitlines())
  if config_file is not None:
    found |= {key: text for key, text in _comments(config_file.read_text().splitlines()).items() if text}
  return found


def _comments(lines: Iterable[str]) -> dict[str, str]:
  """Returns {dotted key: comment} of assignments to keys: comment lines above the key, then the one behind it."""
  found, above = {}, []
  for line in lines:
    key, comment = _KEY.fullmatch(line), _COMMENT.fullmatch(line)
    if key and key[2] != "ConfigDict()":
      found[key[1]] = " ".join([*above, key[3] or ""]).strip()
    above = [*above, comment[1]] if comment else []
  return found

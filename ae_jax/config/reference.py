"""Reads the meaning of each config key from the comments at its declaration."""

import pathlib
import re
from collections.abc import Iterable

from ae_jax.config import keys

_KEY = re.compile(r"  config\.([\w.]+) = (.*?)(?:  # (.*))?")
_COMMENT = re.compile(r"  # (.*)")


def meanings(config_file: pathlib.Path | None = None) -> dict[str, str]:
  """Returns {dotted key: meaning} for the keys of `config.base` and for the keys that `config_file` sets."""
  comments = _comments(pathlib.Path(keys.__file__).read_text(encoding="utf-8").splitlines())
  if config_file is not None:
    comments |= {
      key: text for key, text in _comments(config_file.read_text(encoding="utf-8").splitlines()).items() if text
    }
  return comments


def _comments(lines: Iterable[str]) -> dict[str, str]:
  """Returns {dotted key: comment}; joins the comments above the assignment and the comment at the end of its line."""
  comments, above = {}, []
  for line in lines:
    key, comment = _KEY.fullmatch(line), _COMMENT.fullmatch(line)
    if key and key[2] != "ConfigDict()":
      comments[key[1]] = " ".join([*above, key[3] or ""]).strip()
    above = [*above, comment[1]] if comment else []
  return comments

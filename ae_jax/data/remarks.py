"""Texts of notes, i.e. messages for the user about the data, such as a list of files that are not read."""

import collections
import os
from collections.abc import Iterable, Sequence
from typing import Any

_MOST_NAMES = 8  # maximum number of names in a note


def not_read(where: str, names: Iterable[str], reason: str) -> list[str]:
  """Returns a list with one note that names arrays, files or folders that are not read; [] if `names` is empty."""
  names = sorted(names)
  if not names:
    return []
  listed = names if len(names) <= _MOST_NAMES else [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
  return [f"{where}: not read: {', '.join(listed)}; {reason}"]


def by_suffix(files: Iterable[str]) -> list[str]:
  """Returns one text per suffix with the number of files, such as ".txt (2 files)"."""
  counts = collections.Counter(os.path.splitext(file)[1].lower() or "no suffix" for file in files)
  return [f"{suffix} ({counted(count, 'file')})" for suffix, count in counts.items()]


def counted(count: int, noun: str) -> str:
  """Returns a count with a noun in singular or plural, such as "1 image" or "2 images"."""
  return f"{count:,} {noun}{'s' if count != 1 else ''}"


def examples_of(shape: Sequence[int], columns: int) -> str:
  """Returns "examples of shape 28 x 28 x 1" or, for a table, "examples of 6 columns (13 inputs of the model)".

  `columns` is the number of columns of the table; 0 for other data.
  """
  if not columns:
    return f"examples of shape {' x '.join(map(str, shape))}"
  inputs = "" if shape[0] == columns else f" ({counted(shape[0], 'input')} of the model)"
  return f"examples of {counted(columns, 'column')}{inputs}"


def as_flag(key: str, value: Any) -> str:
  """Returns the command-line flag that sets a dotted config key, for example to a tuple of numbers or strings."""
  if isinstance(value, tuple):
    is_texts = all(isinstance(each, str) for each in value)
    value = "".join(f"{each!r}," for each in value) if is_texts else ",".join(map(str, value))
  return f"--config.{key}={value}"


def visible(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the names of the entries of a folder that do not begin with a dot."""
  return [name for name in os.listdir(folder) if not name.startswith(".")]

"""Sentences about data that a user may not expect: what is not read, or not scaled as it seems to be."""

import collections
import os
from collections.abc import Iterable

import numpy as np

from ae_jax.data import lazy_arrays

_MOST_NAMES = 8  # in a sentence
_FIRST = 16  # examples that nearly always tell that bytes are not binary


def not_read(where: str, names: Iterable[str], why: str) -> list[str]:
  """Returns a sentence that names the arrays, files or folders that nothing reads; none where there are none."""
  names = sorted(names)
  if not names:
    return []
  shown = names if len(names) <= _MOST_NAMES else [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
  return [f"{where}: not read: {', '.join(shown)}; {why}"]


def by_suffix(files: Iterable[str]) -> list[str]:
  """Returns names of files as counts by suffix, such as ".txt (2 files)"."""
  counts = collections.Counter(os.path.splitext(file)[1].lower() or "no suffix" for file in files)
  return [f"{suffix} ({counted(count, 'file')})" for suffix, count in counts.items()]


def counted(count: int, noun: str) -> str:
  """Returns a count with its noun, such as "1 image" or "2 images"."""
  return f"{count:,} {noun}{'s' if count != 1 else ''}"


def visible(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the names in a folder that do not begin with a dot."""
  return [name for name in os.listdir(folder) if not name.startswith(".")]


def binary_bytes(where: str, examples: np.ndarray | lazy_arrays.LazyArray) -> list[str]:
  """Returns a sentence if examples are bytes of 0 and 1 only, which scaling leaves nearly constant."""
  if examples.dtype != np.uint8:
    return []
  some = (
    examples if isinstance(examples, np.ndarray) else lazy_arrays.gather(examples, lazy_arrays.probes(len(examples)))
  )
  if examples[:_FIRST].max() > 1 or some.max() != 1:
    return []
  return [f"{where}: every byte is 0 or 1, but bytes are scaled from 0 to 255; store 0 and 255, or floats 0.0 and 1.0"]

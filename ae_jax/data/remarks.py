"""Remarks for the user about arrays or files that are not read, and about data with an unexpected scale."""

import collections
import os
from collections.abc import Iterable

import numpy as np

from ae_jax.data import lazy_arrays

_MOST_NAMES = 8  # maximum number of names in a remark
_FIRST = 16  # number of examples to check first, which nearly always contain a byte above 1


def not_read(where: str, names: Iterable[str], reason: str) -> list[str]:
  """Returns a remark that lists arrays, files or folders that are not read; [] if `names` is empty."""
  names = sorted(names)
  if not names:
    return []
  listed = names if len(names) <= _MOST_NAMES else [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
  return [f"{where}: not read: {', '.join(listed)}; {reason}"]


def by_suffix(files: Iterable[str]) -> list[str]:
  """Returns texts with the number of files of each suffix, such as ".txt (2 files)"."""
  counts = collections.Counter(os.path.splitext(file)[1].lower() or "no suffix" for file in files)
  return [f"{suffix} ({counted(count, 'file')})" for suffix, count in counts.items()]


def counted(count: int, noun: str) -> str:
  """Returns a count with a noun in singular or plural, such as "1 image" or "2 images"."""
  return f"{count:,} {noun}{'s' if count != 1 else ''}"


def visible(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the names in a folder that do not begin with a dot."""
  return [name for name in os.listdir(folder) if not name.startswith(".")]


def binary_bytes(where: str, examples: lazy_arrays.MaybeLazy) -> list[str]:
  """Returns a warning if uint8 examples contain only 0 and 1: scaled by 1/255, they would be nearly constant."""
  if examples.dtype != np.uint8:
    return []
  checked = _checked_rows(examples)
  if examples[:_FIRST].max() > 1 or checked.max() != 1:
    return []
  return [
    f"{where}: every byte is 0 or 1, but bytes should range from 0 to 255; store 0 and 255, or floats 0.0 and 1.0"
  ]


def float_range(where: str, examples: lazy_arrays.MaybeLazy) -> list[str]:
  """Returns a remark with the smallest and largest value of floating-point examples; [] for other examples."""
  if not np.issubdtype(examples.dtype, np.floating):
    return []
  checked = _checked_rows(examples)
  return [f"{where}: the values of the training examples are from {checked.min():.4g} to {checked.max():.4g}"]


def _checked_rows(examples: lazy_arrays.MaybeLazy) -> np.ndarray:
  """Returns all examples in memory, or some rows of a `LazyArray`."""
  if isinstance(examples, np.ndarray):
    return examples
  return lazy_arrays.read_rows(examples, lazy_arrays.probe_indices(len(examples)))

"""Reads a large CSV file in several threads, one per core."""

import io
import itertools
import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import pandas as pd

_SMALLEST_PART = 2**24  # bytes; smaller parts gain nothing


def read(path: str, names: Sequence[str], texts: Collection[str], options: Mapping[str, Any]) -> pd.DataFrame | None:
  """Returns the rows of `pandas.read_csv(path, **options)`, or None if the file cannot be read in parts.

  It cannot if it is small or compressed, if it contains quotation marks (a quoted field may contain line breaks), if
  pandas refuses a part, or if it finds different types of a column in different parts, other than integers and floats.

  Args:
    path: The file; its first line is the header.
    names: Names of all columns.
    texts: Names of the columns that `options` read as categories.
    options: Options of `pandas.read_csv`.
  """
  count = min(os.cpu_count() or 1, os.path.getsize(path) // _SMALLEST_PART)
  if count < 2 or path.endswith(".gz"):
    return None
  with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
    ends = [content.find(b"\n", len(content) * part // count) + 1 for part in range(count)]
    bounds = [*itertools.pairwise([*ends, len(content)])]
    if content.find(b'"') >= 0 or any(begin >= end for begin, end in bounds):
      return None

    def read_part(bound):
      return pd.read_csv(io.BytesIO(content[slice(*bound)]), header=None, names=names, **options)

    with futures.ThreadPoolExecutor(count) as pool:
      try:
        parts = list(pool.map(read_part, bounds))
      except Exception:  # the whole file is read again, for a message with the right number of the line
        return None
  return _join(parts, texts)


def _join(parts: Sequence[pd.DataFrame], texts: Collection[str]) -> pd.DataFrame | None:
  """Returns the rows of all parts, or None if the types of a column differ."""
  if any(not isinstance(part.index, pd.RangeIndex) for part in parts):  # rows with more fields than the header
    return None
  for name in parts[0].columns:
    if name not in texts and len({_type(part[name].dtype) for part in parts}) > 1:
      return None
  for name in texts:
    united = pd.api.types.union_categoricals([part[name] for part in parts], sort_categories=True)
    for part in parts:
      part[name] = part[name].cat.set_categories(united.categories)
  return pd.concat(parts, ignore_index=True)


def _type(dtype: np.dtype | pd.api.extensions.ExtensionDtype) -> str:
  return "number" if dtype.kind in "if" else str(dtype)

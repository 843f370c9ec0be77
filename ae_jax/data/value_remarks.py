"""Messages about missing values in rows of a table, and about words that are not categories."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ae_jax.data import remarks, schema

_MOST_NAMES = 8  # maximum number of columns in a message
_TREATMENTS = {"mean": "filled with the mean or the most frequent word", "mask": "masked"}  # by config.data.missing


def listed(names: Sequence[str]) -> str:
  """Returns the first few column names as text, and how many more there are."""
  more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
  return ", ".join(names[:_MOST_NAMES]) + more


def of_counts(
  gaps: Int[np.ndarray, " columns"], others: Int[np.ndarray, " columns"], fitted: schema.Schema, reason: str, where: str
) -> list[str]:
  """Returns notes about missing values and about words that are not categories, with their numbers by column.

  Args:
    gaps: Number of missing values of each column; they are ignored if missing values are an error.
    others: Number of words of each column that are not categories.
    fitted: Columns of the table.
    reason: Why these words are not categories.
    where: Prefix of the notes.
  """
  names = lambda counts: listed([f"{fitted.columns[p].name} ({counts[p]:,})" for p in np.flatnonzero(counts)])
  notes = []
  if gaps.any() and fitted.missing in _TREATMENTS:
    values = remarks.counted(int(gaps.sum()), "missing value")
    notes.append(f"{where}: {values} {_TREATMENTS[fitted.missing]}: {names(gaps)}")
  if others.any():
    words = remarks.counted(int(others.sum()), "word")
    notes.append(f"{where}: {words} {reason} taken as {schema.OTHER}: {names(others)}")
  return notes

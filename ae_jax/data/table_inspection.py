"""Describes the columns of a table for `ae_jax data`: kinds, categories, missing values and constant columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ae_jax.data import lazy_arrays, schema_fit, splits

_MOST_COLUMNS = 20  # maximum number of columns in a line
_MOST_CLASSES = 20  # if the last column has at most this number of categories, it may be the labels


def lines(arrays: Mapping[str, Any], constant: Bool[np.ndarray, " columns"]) -> list[str]:
  """Returns lines that describe the columns of a table.

  Args:
    arrays: Arrays of a source, with the key "table".
    constant: Mask of the constant columns.
  """
  table = arrays["table"]
  kinds = [f"{name} ({_kind(table, position)})" for position, name in enumerate(table.names)]
  found = [f"columns: {len(kinds)}: {_listed(kinds)}"]
  gaps = _missing(arrays)
  if gaps.any():
    columns = [f"{table.names[position]} ({gaps[position]:,})" for position in np.flatnonzero(gaps)]
    found.append(f"missing values by column: {_listed(columns)}")
  if constant.any():
    found.append(f"constant columns: {_listed([table.names[position] for position in np.flatnonzero(constant)])}")
  words = table.vocabularies.get(table.names[-1], ())
  if "train_labels" not in arrays and 1 < len(words) <= _MOST_CLASSES:
    flag = f"--config.data.label={table.names[-1]}"
    found.append(f"labels: the last column, {table.names[-1]!r}, has {len(words)} words; {flag} takes it as the labels")
  return found


def options(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keys of `config.data` that are needed to train on a table; `configs/table.py` already sets some."""
  return {"range": "real", "scale": "standard"} | ({"missing": "mean"} if _missing(arrays).any() else {})


def _kind(table: schema_fit.RawTable, position: int) -> str:
  words = table.vocabularies.get(table.names[position])
  return table.kinds[position] if words is None else f"{len(words)} words"


def _missing(arrays: Mapping[str, Any]) -> Int[np.ndarray, " columns"]:
  """Returns the number of missing values of each column, summed over all splits."""
  halves = [arrays[half] for half in splits.present(arrays)]
  return sum(np.isnan(part).sum(0) for half in halves for part in lazy_arrays.parts(half))


def _listed(texts: list[str]) -> str:
  more = f", and {len(texts) - _MOST_COLUMNS} more" if len(texts) > _MOST_COLUMNS else ""
  return ", ".join(texts[:_MOST_COLUMNS]) + more

"""Describes the columns of a table for `ae_jax data`: kinds, categories, missing values and constant columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ae_jax.data import empty_rows, labels, lazy_arrays, one_class, schema_fit, splits

_MOST_COLUMNS = 20  # maximum number of columns in a line
_MISSING = "mean"  # suggested config.data.missing, if values are missing
_MOST_CLASSES = 20  # if the last column has at most this number of categories, it may be the labels


def lines(
  arrays: Mapping[str, Any], constant: Bool[np.ndarray, " columns"], names: Mapping[str, Shaped[np.ndarray, " rows"]]
) -> list[str]:
  """Returns lines that describe the columns of a table.

  Args:
    arrays: Arrays of a source, with the key "table".
    constant: Mask of the constant columns.
    names: {split: names of its rows}.
  """
  table = arrays["table"]
  kinds = [f"{name} ({_kind(table, position)})" for position, name in enumerate(table.names)]
  found = [f"columns: {len(kinds)}: {_listed(kinds)}"]
  gaps = _missing(arrays)
  if gaps.any():
    columns = [f"{table.names[position]} ({gaps[position]:,})" for position in np.flatnonzero(gaps)]
    found.append(f"missing values by column: {_listed(columns)}")
    for split in splits.present(arrays):
      is_empty = np.concatenate([np.isnan(rows).all(1) for rows in lazy_arrays.parts(arrays[split])])
      note = empty_rows.note(is_empty, _MISSING, names[split].tolist())
      found += [f"{split}: {note}"] if note else []
  if constant.any():
    found.append(f"constant columns: {_listed([table.names[position] for position in np.flatnonzero(constant)])}")
  if label := label_column(arrays):
    words, flag = len(table.vocabularies[label]), f"--config.data.label={label}"
    found.append(
      f"labels: the last column, {label!r}, has {words} words and can be the labels; without {flag}, it is an input"
    )
  return found


def options(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keys of `config.data` that make a source with "table" readable; `configs/table.py` has some of them."""
  label, gaps = label_column(arrays), _missing(arrays).any()
  return {
    **({"label": label} if label else {}),
    "range": "real",
    "scale": "standard",
    **({"missing": _MISSING} if gaps else {}),
  }


def recording_options(arrays: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
  """Returns keys of `config.data` that read the rows of a table as a recording: labels, unused columns and a mask.

  Args:
    arrays: Arrays of a source, with the key "table".
    chosen: Keys of `config.data` for the rows of the table, which may name the labels.
  """
  table, label = arrays["table"], chosen.get("label", "")
  words = tuple(f"{name}=ignore" for name in table.vocabularies if name != label)
  found: dict[str, Any] = {"label": label} if label else {}
  if label:
    classes, names = _classes(arrays, label)
    if (normal := one_class.usual(classes)) is not None:
      found["one_class"] = labels.class_name(normal, names)
  found |= {"columns": words} if words else {}
  return found | ({"missing": "mask"} if _missing(arrays).any() else {})


def _classes(arrays: Mapping[str, Any], label: str) -> tuple[Int[np.ndarray, " rows"], Sequence[str] | None]:
  """Returns the labels of the training rows, and the names of the labels (None: they have none)."""
  table = arrays["table"]
  if label not in table.names:
    return lazy_arrays.read_all(arrays["train_labels"]), arrays.get("class_names")
  position = table.names.index(label)
  codes = np.concatenate([part[:, position] for part in lazy_arrays.parts(arrays["train"])])
  return codes.astype(np.int64), table.vocabularies[label]


def label_column(arrays: Mapping[str, Any]) -> str:
  """Returns the name of the last column if it looks like labels: few words, none missing, no other labels; else ""."""
  table = arrays["table"]
  is_label = 1 < len(table.vocabularies.get(table.names[-1], ())) <= _MOST_CLASSES
  if len(table.names) < 2 or "train_labels" in arrays or not is_label or _missing(arrays)[-1]:
    return ""
  return table.names[-1]


def _kind(table: schema_fit.RawTable, position: int) -> str:
  words = table.vocabularies.get(table.names[position])
  return table.kinds[position] if words is None else f"{len(words)} words"


def _missing(arrays: Mapping[str, Any]) -> Int[np.ndarray, " columns"]:
  """Returns the number of missing values of each column, summed over all splits."""
  rows = [arrays[split] for split in splits.present(arrays)]
  return sum(np.isnan(part).sum(0) for each in rows for part in lazy_arrays.parts(each))


def _listed(texts: list[str]) -> str:
  more = f", and {len(texts) - _MOST_COLUMNS} more" if len(texts) > _MOST_COLUMNS else ""
  return ", ".join(texts[:_MOST_COLUMNS]) + more

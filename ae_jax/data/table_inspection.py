"""Describes the columns of a table for `ae_jax data`: kinds, categories, missing values and constant columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ae_jax.data import empty_rows, labels, lazy_arrays, one_class, remarks, schema_fit, splits

_MOST_COLUMNS = 20  # maximum number of columns in a line
_MISSING = "mean"  # suggested config.data.missing, if values are missing
_MASKED = "mask"  # config.data.missing of --config=auto, if values are missing
_MOST_CLASSES = 20  # maximum number of categories of a column that may be the labels
_NAMES = ("class", "diagnosis", "label", "outcome", "species", "target")  # usual names of columns of labels


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
  return [*found, *_on_label(arrays)]


def _on_label(arrays: Mapping[str, Any]) -> list[str]:
  """Returns a line that names the column that can be the labels, or []."""
  table, label = arrays["table"], label_column(arrays)
  if not label:
    return []
  column = f"the last column, {label!r}," if label == table.names[-1] else f"the column {label!r}"
  words, flag = len(table.vocabularies[label]), f"--config.data.label={label}"
  return [f"labels: {column} has {words} words and can be the labels; without {flag}, it is an input"]


def automatic(arrays: Mapping[str, Any], name: str, of_user: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Returns the keys of `config.data` that --config=auto sets for a table, and lines for the user.

  Missing values are masked, unless the user sets `missing`; experiments/defaults compares this with "mean".

  Args:
    arrays: Arrays of a source, with channel axes unless its examples are windows; {} if they are not known.
    name: Name of the source.
    of_user: {key of `config.data`: value} that the user sets.
  """
  is_named = "table" in arrays
  if not arrays or not (is_named or (not of_user.get("window") and schema_fit.table_of({**arrays}, name, {}, "error"))):
    return {}, []
  lines = _on_label(arrays) if is_named else []
  count = int(_missing(arrays).sum())
  if not count or "missing" in of_user:
    return {}, lines
  return {"missing": _MASKED}, [f"{remarks.counted(count, 'missing value')}: --config.data.missing={_MASKED}", *lines]


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
  """Returns the name of the column that looks like labels: few words, none missing, no other labels; "" if none does.

  It is a column with a usual name of labels, or the last column.
  """
  table = arrays["table"]
  if len(table.names) < 2 or "train_labels" in arrays:
    return ""
  named = [place for place, name in enumerate(table.names) if name.lower() in _NAMES]
  for place in (*named, len(table.names) - 1):
    if 1 < len(table.vocabularies.get(table.names[place], ())) <= _MOST_CLASSES and not _missing(arrays)[place]:
      return table.names[place]
  return ""


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

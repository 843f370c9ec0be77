"""Descriptions of the inputs and outputs of exported files, for their reports and for the metadata of ONNX files."""

from typing import Any

from ae_jax.data import ranges
from ae_jax.data.schema import Column, Schema

_AXES = {  # number of axes of an example -> their names
  1: ("feature",),
  2: ("step", "channel"),
  3: ("height", "width", "channel"),
  4: ("depth", "height", "width", "channel"),
}
_WORDS = "position of the word in `words`, or their number for any other word"
_VALUES = {  # kind of a column -> meaning of its number
  "numeric": "number",
  "integer": "whole number",
  "date": "days since 1970-01-01",
  "boolean": "0 or 1",
  "categorical": _WORDS,
}


def of_run(run: Any, dtype: str) -> dict[str, dict[str, Any]]:
  """Returns {name of an input or output of the exported parts: its description} for examples with this dtype."""
  described = {
    "x": _examples(run, dtype) if run.schema is None else _columns(run.schema),
    "z": {"meaning": "latent code"},
    "x_hat": _examples(run, "float32") if run.schema is None else {"elements": _elements(run.schema)},
    "score": {"meaning": "squared reconstruction error"},
    "mask": {"meaning": "1 for observed elements of x, 0 for others"},
  }
  if run.model.labels:
    names = {} if run.class_names is None else {"class_names": [run.class_names[each] for each in run.model.labels]}
    described["label"] = {"meaning": "label of the example", "labels": list(run.model.labels), **names}
  return described


def _examples(run: Any, dtype: str) -> dict[str, Any]:
  axes = ["batch", *_AXES[len(run.model.shape)]]
  low, high = ranges.INTERVALS[run.config.data.range]
  in_range = "floats in the unit of the training data" if low < -1 else f"floats from {low:g} to {high:g}"
  if dtype == "uint8" and run.scaling is None:
    return {"axes": axes, "values": "bytes from 0 to 255, not scaled"}
  return {"axes": axes, "values": in_range if dtype == "float32" else "integers in the unit of the training data"}


def _columns(schema: Schema) -> dict[str, Any]:
  gaps = "not accepted: the result is NaN" if schema.missing == "error" else "NaN"
  return {"columns": [_column(column) for column in schema.columns], "missing_values": gaps}


def _column(column: Column) -> dict[str, Any]:
  words = {"words": list(column.words)} if column.kind == "categorical" else {}
  return {"name": column.name, "values": _VALUES[column.kind], **words}


def _elements(schema: Schema) -> list[str]:
  """Returns the names of the elements of an encoded row (`Schema.element_names`), with the unit of dates."""
  names = list(schema.element_names)
  for column, start in zip(schema.columns, schema.starts, strict=True):
    if column.first:
      names[start] = f"{column.name} (days since 1970-01-01) - {column.first:g}"
  return names

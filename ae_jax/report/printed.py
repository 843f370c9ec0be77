"""Lines of results that `ae_jax evaluate` prints: a name, and a value with its unit and its interval."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ae_jax.data import dimension
from ae_jax.data.schema import Schema
from ae_jax.report import tables
from ae_jax.runs import metric_names


def lines(
  results: Mapping[str, Any], schema: Schema | None = None, class_names: Sequence[str] = (), kind: str = "images"
) -> list[str]:
  """Returns one line per result; the bounds and the standard error of a value are in its line.

  Args:
    results: {name: value, or a remark}.
    schema: Columns of a table.
    class_names: Names of the labels 0, 1, ..., which replace the labels; () if they have none.
    kind: Kind of the examples, a value of `types.KINDS`. Only the elements of images are called pixels.
  """
  hidden = tables.names_of_bounds([name for name, value in results.items() if not isinstance(value, str)])
  return [
    f"{_name(name, class_names, kind):40} {_value(name, results)}{_unit(name, schema)}"
    for name in results
    if name not in hidden
  ]


def _name(name: str, class_names: Sequence[str], kind: str) -> str:
  exact = tables.exact(name, class_names)
  ends_in_pixels = exact.endswith("/pixels") and not metric_names.names_data(name.rpartition("/")[0])
  return f"{exact.removesuffix('pixels')}raw elements" if ends_in_pixels and kind != "images" else exact


def _value(name: str, results: Mapping[str, Any]) -> str:
  """Returns a value as text, such as "3.7 (3.1 to 4.3, 95 % interval)"."""
  value = results[name]
  if isinstance(value, str):
    return value
  bounds = tables.bounds(name, results)
  low, high, error = (results[bounds[suffix]] if suffix in bounds else math.nan for suffix in tables.SUFFIXES)
  text = format(value, ".6g")
  if math.isfinite(low) and math.isfinite(high):
    is_open = "_dimension_" in name and not dimension.is_bounded(value, high)
    ends = f"at least {low:.6g}" if is_open else f"{low:.6g} to {high:.6g}"
    text += f" ({ends}, {'lowest and highest draw' if '_few' in name else '95 % interval'})"
  return f"{text} ± {error:.2g} (standard error)" if math.isfinite(error) else text


def _unit(name: str, schema: Schema | None) -> str:
  """Returns the unit of the error of a column; "" for other results."""
  metric, _, part = name.rpartition("/")
  columns = {} if schema is None else {column.name: column for column in schema.columns}
  column = columns.get(metric_names.in_words(part)) if metric_names.names_data(metric) else None
  if column is None:
    return ""
  days = " days" if metric_names.days(name, schema.dates if schema else ()) else ""
  if metric != "column_errors":
    return days
  return " (fraction of wrong values)" if column.is_discrete else f"{days or ' in the unit of the column'} (RMSE)"

"""Reconstruction error of each column of a table, in the unit of the column."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from ae_jax.data.schema import Schema
from ae_jax.evaluators import figures
from ae_jax.evaluators.context import EvalContext
from ae_jax.runs import metric_names

MOST_COLUMNS = 100  # maximum number of listed columns; the columns with the largest relative errors are listed


def analyze(context: EvalContext, indices: Int[np.ndarray, " chosen"]) -> Iterator[tuple[str, Any]]:
  """Yields the errors of the columns over the test rows at `indices`, in descending order of the relative error.

  For numbers and dates, the results are the root mean squared error in the unit of the column (days for dates), and the
  relative error, which is this error divided by the standard deviation of the column. For categories and booleans, the
  results are the accuracy, and the accuracy of always predicting the most frequent value of the training rows. Their
  relative error is the ratio of the two error rates.
  """
  schema: Schema = context.dataset.schema
  mask = context.dataset.columns.get("test", {}).get("mask")
  known = schema.known_columns(context.test[indices], None if mask is None else mask[indices])
  decoded, true = (_decoded(context, x[indices]) for x in (context.reconstructions, context.test))
  errors = schema.column_errors(decoded, true, known)
  constant = schema.column_errors(np.broadcast_to([column.fill for column in schema.columns], true.shape), true, known)
  spreads = {
    column.name: constant[column.name] if column.is_discrete else column.spread
    for column in schema.columns
    if column.name in errors
  }
  relative = {name: error / spreads[name] if spreads[name] else np.inf * error for name, error in errors.items()}
  relative = {name: ratio for name, ratio in relative.items() if np.isfinite(ratio)}  # not for constant columns
  order = sorted(relative, key=relative.__getitem__, reverse=True)[:MOST_COLUMNS]
  if len(order) < len(errors):
    yield (
      "columns",
      f"errors of {len(order)} of {len(errors)} columns are listed: constant columns and small errors are not",
    )
  discrete = {column.name for column in schema.columns if column.is_discrete}
  for name in order:
    part = metric_names.part(name)
    if name in discrete:
      yield f"column_accuracy/{part}", 1 - errors[name]
      yield f"column_accuracy_of_most_frequent/{part}", 1 - spreads[name]
    else:
      yield f"column_rmse/{part}", errors[name]
      yield f"column_rmse_over_deviation/{part}", relative[name]
  if order:
    title = "Error of each column, relative to answering the mean or the most frequent word"
    values = np.array([relative[name] for name in order])
    yield "error_by_column", figures.Bars(title, tuple(order), values, "column", "relative error")


def _decoded(context: EvalContext, x: Float[np.ndarray, "rows elements"]) -> Float64[np.ndarray, "rows columns"]:
  """Returns table rows in the units of the table; `x` holds examples in the units of the model."""
  scaling = context.dataset.standardisation
  return context.dataset.schema.decode(x if scaling is None else scaling.invert(x))

"""Converts new rows of a table (a DataFrame, a dict of columns or an array) to examples of a trained run, and back."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ae_jax import errors
from ae_jax.data import in_memory, loss_columns, remarks, schema_fit, value_remarks
from ae_jax.data.schema import Schema

_ROUNDING = 1e-6  # relative rounding error of decoded values, which are float32


def raw_rows(x: Any, schema: Schema | None) -> Float64[np.ndarray, "rows columns"]:
  """Converts a DataFrame, Series, dict {column: values} or array [N, columns] to raw rows (see `ae_jax.data.schema`).

  An array is accepted only if the table has no categorical column.

  Raises:
    UserError: A column is missing or unknown, a value cannot be converted to the kind of its column, or `schema` is
      None.
  """
  from ae_jax.data import frames  # pandas takes half a second to import

  if schema is None:
    raise errors.UserError("this run was not trained on a table; train on a table to get errors by column")
  if frames.is_rows(x):
    return frames.of_frame(x, schema)
  x = _rows(x)
  if not _is_raw(x, schema):
    raise errors.UserError(f"rows of shape {x.shape}: pass a DataFrame or a dict with the columns of the run")
  return x.astype(np.float64)


def encoded(x: Any, schema: Schema) -> tuple[Shaped[np.ndarray, "..."], Bool[np.ndarray, "rows elements"] | None]:
  """Encodes table rows as examples [N, elements], and returns the mask of their observed elements.

  `x` takes the forms that `raw_rows` accepts. An array that does not contain raw rows is returned unchanged. The mask
  is None unless values are missing and config.data.missing="mask".
  """
  from ae_jax.data import frames

  if not frames.is_rows(x):
    x = _rows(x)
    if not _is_raw(x, schema) or x.dtype.kind not in "biuf":
      return x, None
  raw = raw_rows(x, schema)
  is_masked = schema.missing == "mask" and bool(np.isnan(raw).any())
  return schema.encode(raw), schema.observed(raw) if is_masked else None


def remarks_on(x: Any, schema: Schema | None, where: str) -> list[str]:
  """Returns notes about missing values and words without a category in new rows; [] for arrays and without a schema."""
  from ae_jax.data import frames

  if schema is None or not frames.is_rows(x):
    return []
  raw = raw_rows(x, schema)
  others = np.array([column.is_unknown(raw[:, at]).sum() for at, column in enumerate(schema.columns)], int)
  is_cut = any(len(column.words) == schema_fit.MOST_WORDS for column in schema.columns)  # rare words have no category
  reason = "rare or not in the training rows" if is_cut else "not in the training rows"
  return value_remarks.of_counts(np.isnan(raw).sum(0), others, schema, reason, where)


def with_gaps(
  x: Any, mask: Any, schema: Schema
) -> tuple[Float64[np.ndarray, "rows columns"], Float32[np.ndarray, "rows elements"], Any]:
  """Returns raw rows with NaN for unobserved values, the encoded examples, and the mask of their observed elements.

  Unobserved values are filled with `Column.fill` in the examples. The mask is None unless config.data.missing="mask".

  Args:
    x: Rows in a form that `raw_rows` accepts.
    mask: 1 for observed values and 0 for others, [N, columns]; None: only missing values are unobserved.
    schema: Columns of the table.
  """
  raw = raw_rows(x, schema)
  if mask is not None:
    raw = np.where(loss_columns.observed(raw.shape, mask), raw, np.nan)
  filled = dataclasses.replace(schema, missing="mask").encode(raw)
  return raw, filled, schema.observed(raw) if schema.missing == "mask" else None


def completed(
  x: Any, raw: Float64[np.ndarray, "rows columns"], examples: Shaped[np.ndarray, "rows elements"], schema: Schema
) -> Any:
  """Replaces the missing values of raw rows by values decoded from `examples`.

  Numbers and dates are kept within the smallest and the largest training value of the column, with a warning.
  The result is a DataFrame of the columns of the schema if `x`, the input of the user, has named columns; otherwise it
  is an array of raw rows. Words that do not occur in the training rows are observed values, so they are kept. Booleans
  are spelt as in `x`, for example "yes" and "no".
  """
  from ae_jax.data import frames

  rows = np.where(np.isnan(raw), _limited(schema.decode(examples), np.isnan(raw), schema), raw)
  if not frames.is_rows(x):
    return rows.astype(np.float32)
  result = frames.to_frame(rows, schema, x)
  for position, column in enumerate(schema.columns):
    is_kept = column.is_unknown(raw[:, position])
    if column.kind == "boolean" and result[column.name].dtype.kind == "O":  # "Yes" does not become "yes"
      is_kept = ~np.isnan(raw[:, position])
    if is_kept.any():
      result.loc[is_kept, column.name] = frames.words_at(x, column.name, is_kept)
  return result


def _limited(
  decoded: Float64[np.ndarray, "rows columns"], gaps: Bool[np.ndarray, "rows columns"], schema: Schema
) -> Float64[np.ndarray, "rows columns"]:
  """Returns decoded rows with numbers and dates within the training values; warns if this changes values in `gaps`."""
  limits = [(-np.inf, np.inf) if column.limits is None else column.limits for column in schema.columns]
  limited = decoded.clip(*np.array(limits).T)
  rounding = _ROUNDING * (np.abs(limited) + [column.spread for column in schema.columns])
  counts = ((np.abs(limited - decoded) > rounding) & gaps).sum(0)
  if counts.any():
    named = [f"{schema.columns[place].name} ({counts[place]:,})" for place in np.flatnonzero(counts)]
    warnings.warn(
      f"impute: {remarks.counted(int(counts.sum()), 'filled value')} beyond the training rows, replaced by the "
      f"smallest or largest training value: {value_remarks.listed(named)}",
      stacklevel=4,
    )
  return limited


def like(x: Any, examples: Shaped[np.ndarray, "rows ..."], schema: Schema | None) -> Any:
  """Converts examples to the form of `x`, the input of the user: a DataFrame, raw rows, or examples (unchanged)."""
  if schema is None:
    return examples
  from ae_jax.data import frames

  if frames.is_rows(x):
    return frames.to_frame(schema.decode(examples), schema, x)
  is_raw = _is_raw(_rows(x), schema) and schema.elements != len(schema.columns)
  return schema.decode(examples).astype(np.float32) if is_raw else examples


def to_frame(examples: Any, schema: Schema | None) -> Any:
  """Decodes examples [N, elements] to a DataFrame; raises UserError without a schema or for another shape."""
  from ae_jax.data import frames

  if schema is None:
    raise errors.UserError("to_frame: this run was not trained on a table; use the array itself")
  examples = np.asarray(examples)
  if examples.shape[1:] != (schema.elements,):
    raise errors.UserError(f"to_frame: examples of shape {examples.shape}: the shape must be [N, {schema.elements}]")
  return frames.to_frame(schema.decode(examples), schema)


def explained(
  x: Any,
  shares: Float64[np.ndarray, "rows columns"],
  examples: Shaped[np.ndarray, "rows elements"],
  schema: Schema,
  count: int | None,
) -> Any:
  """Returns a DataFrame that lists, for each row, the columns with the largest fraction of the anomaly score first.

  See `run_methods.decisions.explain` for the columns of the DataFrame.

  Args:
    x: Rows in a form that `raw_rows` accepts.
    shares: Fraction that each column contributes to the score of each row.
    examples: Reconstructions, in the units of the data.
    schema: Columns of the table.
    count: Maximum number of columns that are listed per row; None: all.
  """
  import pandas as pd

  from ae_jax.data import frames

  order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
  rows, index = np.repeat(np.arange(len(order)), order.shape[1]), frames.index_of(x)
  chosen = order.ravel()
  lines = {
    "row": rows if index is None else np.asarray(index)[rows],
    "column": np.array([column.name for column in schema.columns], dtype=object)[chosen],
  }
  raw = raw_rows(x, schema)
  values, reconstructed = (frames.to_objects(each, schema, x) for each in (raw, schema.decode(examples)))
  for position, column in enumerate(schema.columns):
    is_unknown = column.is_unknown(raw[:, position])
    note = "not seen in training" if len(column.words) < schema_fit.MOST_WORDS else "rare or not seen in training"
    if is_unknown.any():
      values[is_unknown, position] = [f"{word} ({note})" for word in frames.words_at(x, column.name, is_unknown)]
  lines |= {"value": values[rows, chosen], "reconstruction": reconstructed[rows, chosen]}
  return pd.DataFrame(lines | {"share": shares[rows, chosen]})


def _rows(x: Any) -> Shaped[np.ndarray, "..."]:
  """Converts rows of numbers to an array; a single row [columns] becomes [1, columns]."""
  x = in_memory.as_array(x, "x")
  return x[None] if x.ndim == 1 else x


def _is_raw(x: Shaped[np.ndarray, "..."], schema: Schema) -> bool:
  """Returns whether an array contains raw rows: it has one value per column, and no column is categorical."""
  return x.ndim == 2 and x.shape[1] == len(schema.columns) and not schema.has_categories

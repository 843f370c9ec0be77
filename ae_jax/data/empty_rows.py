"""Rows of a table in which the values of all columns are missing, and messages about them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from ae_jax.data import in_memory, remarks
from ae_jax.data.schema import Schema

_MOST_ROWS = 5  # maximum number of rows in a message
_EFFECTS = {  # config.data.missing -> how such rows are treated
  "mask": "their squared errors are 0",
  "mean": "they are treated like a row of means and most frequent words",
}


def note(is_empty: Bool[np.ndarray, " rows"], missing: str, names: Sequence[str] | None = None) -> str:
  """Returns a message with the number of rows without values, the first of them, and the fix; "" if there are none.

  Args:
    is_empty: Mask of the rows in which all columns are missing.
    missing: `config.data.missing`.
    names: Name of each row; None for their numbers.
  """
  positions = np.flatnonzero(is_empty)
  if not len(positions):
    return ""
  listed = [str(row) if names is None else names[row] for row in positions[:_MOST_ROWS]]
  more = f" and {len(positions) - len(listed):,} more" if len(positions) > len(listed) else ""
  where = f"{', '.join(listed)}{more}{', counted from 0' if names is None else ''}"
  has = "has" if len(positions) == 1 else "have"
  return (
    f"{remarks.counted(len(positions), 'row')} of {len(is_empty):,} {has} no value in any column ({where}): "
    f"{_EFFECTS[missing]}; leave such rows out"
  )


def note_on(x: Any, schema: Schema | None, names: Sequence[str] | None = None) -> str:
  """Returns `note` for new rows in a form that `table_rows.raw_rows` accepts; "" without a schema."""
  if schema is None or schema.missing == "error":
    return ""
  from ae_jax.data import frames  # pandas takes half a second to import

  if frames.is_rows(x):
    found = frames.as_frame(x)[[column.name for column in schema.columns]].isna().to_numpy()
  else:
    x = in_memory.as_array(x, "x")
    found = np.isnan(np.atleast_2d(x)) if x.dtype.kind == "f" else np.zeros((len(x), 1), bool)
  return note(found.all(1), schema.missing, names)

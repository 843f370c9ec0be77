"""Recognises a table whose rows are the consecutive time steps of a recording, and advises to cut it into windows."""

import numpy as np
from jaxtyping import Float64, Shaped

from ae_jax.data import kinds, lazy_arrays, schema_fit

WINDOW = 50  # time steps of the windows in advice and in commands
_FEWEST, EXAMINED = 300, 10_000  # minimum number of rows, and number of first rows that are examined
_LAGS = (11, 19, 30)  # rows that are so far apart are compared with neighbours; several, for periodic recordings
_CLIPPED = (0.05, 0.95)  # quantiles to which a column is clipped, so that anomalies do not hide a recording
_LEAST = 0.8  # minimum autocorrelation of neighbours
# Maximum squared difference of neighbours, relative to rows `_LAGS` apart. In a table that is sorted by a column or a
# class, rows of similar rank are in random order, so the ratio is near 1.
_MOST = 0.5
_SHARE = 2 / 3  # minimum fraction of the columns that look like a recording


def look_consecutive(rows: Shaped[np.ndarray, "rows columns"]) -> bool:
  """Returns whether the rows of a table look like consecutive steps: most columns change slowly in file order.

  Columns that are constant or sorted, such as times and row numbers, are left out. NaN and infinite values are ignored.
  """
  if len(rows) < _FEWEST:
    return False
  rows = rows.astype(np.float64)
  rows = np.where(np.isinf(rows), np.nan, rows)
  changes = np.diff(rows, axis=0)
  is_sorted = ~((changes > 0).any(0) & (changes < 0).any(0))  # also if constant
  rows = rows[:, ~is_sorted]
  if not rows.shape[1]:
    return False
  rows = np.clip(rows, *np.nanquantile(rows, _CLIPPED, axis=0))
  near, *far = (_mean_squares(rows[lag:] - rows[:-lag]) for lag in (1, *_LAGS))
  variances = _mean_squares(rows - np.nanmean(rows, 0))
  is_slow = (near < 2 * (1 - _LEAST) * variances) & (near < _MOST * np.max(far, 0))
  return bool(is_slow.mean() >= _SHARE)


def _mean_squares(values: Float64[np.ndarray, "rows columns"]) -> Float64[np.ndarray, " columns"]:
  """Returns the mean square of each column over the values that are not NaN; infinite if there are none."""
  known = ~np.isnan(values)
  sums, counts = np.square(np.where(known, values, 0)).sum(0), known.sum(0)
  return np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)


def remarks(
  train: lazy_arrays.MaybeLazy, table: schema_fit.RawTable | None, name: str, where: str, kind: str = "auto"
) -> list[str]:
  """Returns a note if the training rows of a table look like the steps of a recording; [] if not.

  Args:
    train: Raw rows [N, columns] in the order of the file.
    table: Columns of a table; None for an array of integers.
    name: Name of the source.
    where: Prefix of the note.
    kind: `config.data.kind`; the user who sets it to "table" gets no note.
  """
  named = table is not None and name in schema_fit.NAMED
  if len(train.shape) != 2 or kind == "table" or not (named or name in kinds.ARRAY_FILES):
    return []
  column_kinds = table.kinds if table else ("numeric",) * train.shape[1]
  numeric = [position for position, each in enumerate(column_kinds) if each in ("numeric", "integer")]
  rows = lazy_arrays.read_rows(train, np.arange(min(len(train), EXAMINED)))[:, numeric]
  if not look_consecutive(rows):
    return []
  return [
    f"{where}: the rows look like consecutive time steps of a recording, but each row is an example; "
    f"config.data.window={WINDOW} cuts it into windows"
  ]

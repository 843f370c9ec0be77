"""Statistics of the columns of a table, computed from blocks of raw rows by several threads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float16, Float64, Int

from ae_jax.data import lazy_arrays

Result = TypeVar("Result")


class Statistics(NamedTuple):
  """Statistics of the raw values of each column that are not missing."""

  seen: Float64[np.ndarray, " columns"]  # number of values that are not missing
  means: Float64[np.ndarray, " columns"]
  deviations: Float64[np.ndarray, " columns"]
  limits: Float64[np.ndarray, "2 columns"]  # smallest and largest values; infinite for columns without values
  whole: Bool[np.ndarray, " columns"]  # True for date columns whose dates have no time of day
  tallies: dict[int, Int[np.ndarray, " words"]]  # {position of a categorical or boolean column: counts of its values}


class _Sums(NamedTuple):
  """Sums over a block of rows; the fields are those of `Statistics`, or sums of the values minus a constant."""

  seen: Float64[np.ndarray, " columns"]
  sums: Float64[np.ndarray, " columns"]
  squares: Float64[np.ndarray, " columns"]
  limits: Float64[np.ndarray, "2 columns"]
  whole: Bool[np.ndarray, " dates"]
  tallies: dict[int, Int[np.ndarray, " words"]]


def of_rows(raw: lazy_arrays.MaybeLazy, kinds: Sequence[str], words: Mapping[int, int]) -> Statistics:
  """Computes the statistics of raw rows [N, columns] in one pass; the placement of the rows does not change them.

  Args:
    raw: Raw rows (see `schema`).
    kinds: Kind of each column.
    words: {position of a categorical or boolean column: number of its values}.
  """
  shift = np.nan_to_num(raw[:1][0].astype(np.float64))  # avoids cancellation in the variances
  dates = np.array(kinds) == "date"
  seen, sums, squares = np.zeros((3, len(kinds)))
  limits, whole = np.multiply.outer([np.inf, -np.inf], np.ones(len(kinds))), dates.copy()
  tallies = {position: np.zeros(count, np.int64) for position, count in words.items()}
  for found in map_cached(lambda rows: _sums(rows, shift, dates, words), raw):  # in order, so rounding is reproducible
    seen, sums, squares = seen + found.seen, sums + found.sums, squares + found.squares
    limits = np.stack([np.fmin(limits[0], found.limits[0]), np.fmax(limits[1], found.limits[1])])
    whole[dates] &= found.whole
    for position, tally in found.tallies.items():
      tallies[position] += tally
  count = np.maximum(seen, 1)
  variances = np.maximum(squares / count - np.square(sums / count), 0.0)
  return Statistics(seen, shift + sums / count, np.sqrt(variances), limits, whole, tallies)


def are_finite(raw: lazy_arrays.MaybeLazy) -> bool:
  """Returns whether no value is missing or infinite."""
  return all(map_cached(lambda rows: bool(np.isfinite(rows).all()), raw))


def invalid_values(raw: lazy_arrays.MaybeLazy) -> Float16[np.ndarray, "rows columns"]:
  """Returns the missing and infinite values of raw rows, and 0 for finite values, in a quarter of the memory."""
  return np.concatenate([np.where(np.isfinite(rows), 0, rows).astype(np.float16) for rows in lazy_arrays.parts(raw)])


def parts(raw: lazy_arrays.MaybeLazy) -> Iterator[slice]:
  """Yields slices of rows whose size depends only on the size of a row, so the placement changes no result."""
  size = max(1, lazy_arrays.PART_BYTES // lazy_arrays.row_bytes(raw))
  return (slice(start, min(start + size, len(raw))) for start in range(0, len(raw), size))


def map_cached(function: Callable[[np.ndarray], Result], raw: lazy_arrays.MaybeLazy) -> Iterator[Result]:
  """Applies a function to blocks of raw rows in several threads, and yields the results in the order of the blocks.

  The blocks fit in the cache of a CPU; the placement does not change them.
  """
  from_files = isinstance(raw, lazy_arrays.LazyArray) and not raw.in_memory
  for part in parts(raw):
    rows, first = (raw[part], 0) if from_files else (raw, part.start)  # files are read in large parts
    yield from _map_part(function, rows, first, part.stop - part.start)


def _map_part(
  function: Callable[[np.ndarray], Result], rows: lazy_arrays.MaybeLazy, first: int, count: int
) -> list[Result]:
  """Applies a function to the blocks of `count` rows from the row `first`, as float64."""

  def of_block(block: slice) -> Result:
    # the order in memory would change the rounding of sums
    return function(np.ascontiguousarray(rows[first + block.start : first + block.stop], np.float64))

  return lazy_arrays.map_blocks(of_block, count, lazy_arrays.CACHED_ROWS)


def _sums(
  rows: Float64[np.ndarray, "rows columns"],
  shift: Float64[np.ndarray, " columns"],
  dates: Bool[np.ndarray, " columns"],
  words: Mapping[int, int],
) -> _Sums:
  """Returns sums of the raw values minus `shift`, without missing values; see `of_rows` for the other arguments."""
  moved = rows - shift
  seen = np.full(rows.shape[1], float(len(rows)))
  if np.isnan(moved.sum()):
    gaps = np.isnan(rows)
    moved[gaps] = 0.0
    seen -= gaps.sum(0)
  days = rows[:, dates]
  tallies = {}
  for position, count in words.items():
    values = rows[:, position]
    tallies[position] = np.bincount(values[~np.isnan(values)].astype(np.intp), minlength=count)
  return _Sums(
    seen,
    moved.sum(0),
    np.einsum("ij,ij->j", moved, moved),
    np.stack([np.fmin.reduce(rows), np.fmax.reduce(rows)]),
    ((days == np.rint(days)) | np.isnan(days)).all(0),
    tallies,
  )

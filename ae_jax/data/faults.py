"""Finds probable mistakes in the data: a wrong scale, outliers, and copies of training examples in the test set."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped, UInt64

from ae_jax.data import lazy_arrays, ranges
from ae_jax.data.schema import DOMINANT, Schema

_NARROW = 0.02  # values that fill a smaller fraction of the data range were probably scaled twice
_OUTLIER = 0.5  # an example with a larger fraction of the variance is an outlier
_FEWEST = 20  # minimum number of examples to look for outliers
_COPIES = 0.01  # maximum fraction of test examples that may be equal to a training example without a message
_BLOCK_BYTES = 2**18  # rows are examined in blocks of this size, which fit in the cache of a CPU
_STANDARD = "config.data.scale=standard gives all of them the same weight"
_FEW_DISTINCT = 0.8  # with a smaller fraction of distinct training rows, equal rows are not reported as copies


def find(arrays: dict[str, Any], value_range: str, scale: str, schema: Schema | None, where: str) -> list[str]:
  """Returns one message for each suspicious property of the examples.

  Args:
    arrays: Examples "train" and "test", as the model receives them. Only a sample of a `LazyArray` is examined.
    value_range: A key of `ranges.INTERVALS`.
    scale: `config.data.scale`.
    schema: Columns of a table; None for other examples.
    where: Prefix of the messages.
  """
  rows = lazy_arrays.examined(arrays["train"])
  if value_range == "real":
    found = [_dominant(rows, scale, schema), _outlier(rows, scale, schema)]
  else:
    found = [_narrow(rows, value_range)]
  found.append(_copies(rows, arrays["test"]))
  return [f"{where}: {text}" for text in found if text]


def row_hashes(rows: Shaped[np.ndarray, "rows ..."]) -> UInt64[np.ndarray, " rows"]:
  """Returns a 64-bit hash of the bytes of each row.

  The hash is the sum of the 32-bit words of the row with random weights, modulo 2^64 (Dietzfelbinger, 1996). The words
  are mixed first, because the last bits of floats are often zero, and a product of such words would be, too.
  """
  rows = np.ascontiguousarray(rows).reshape(len(rows), math.prod(rows.shape[1:]))
  gap = -lazy_arrays.row_bytes(rows) % 4
  weights = np.random.default_rng(0).integers(2**64, size=(lazy_arrays.row_bytes(rows) + gap) // 4, dtype=np.uint64)

  def of_block(block: np.ndarray) -> np.ndarray:
    words = np.pad(block.view(np.uint8), ((0, 0), (0, gap))).view(np.uint32) if gap else block.view(np.uint32)
    return (words ^ (words >> 16)) @ weights

  return np.concatenate([np.empty(0, np.uint64), *_map_blocks(of_block, rows)])


def count_distinct(hashes: UInt64[np.ndarray, " rows"]) -> int:
  """Returns the number of distinct hashes; sorting takes a tenth of the time of the hash table of `np.unique`."""
  return len(hashes[:1]) + int(np.count_nonzero(np.diff(np.sort(hashes))))


def count_common(hashes: UInt64[np.ndarray, " rows"], others: UInt64[np.ndarray, " others"]) -> int:
  """Returns how many of the hashes are among `others`, which are not empty."""
  others = np.sort(others)
  return int(np.count_nonzero(others[np.searchsorted(others, hashes) % len(others)] == hashes))


def _map_blocks(function: Callable[[np.ndarray], np.ndarray], rows: Shaped[np.ndarray, "rows ..."]) -> list[np.ndarray]:
  """Applies a function to blocks of at most `_BLOCK_BYTES` bytes; a larger row is a block of its own."""
  size = max(1, _BLOCK_BYTES // lazy_arrays.row_bytes(rows))
  return lazy_arrays.map_blocks(lambda block: function(rows[block]), len(rows), size)


def _narrow(rows: Shaped[np.ndarray, "rows ..."], value_range: str) -> str:
  """Returns a message if the values fill only a small part of the data range, otherwise ""."""
  low, high = (float(ranges.normalise(value.reshape(1), value_range)[0]) for value in (rows.min(), rows.max()))
  least, most = ranges.INTERVALS[value_range]
  if not 0 < high - low < _NARROW * (most - least):
    return ""
  return (
    f"the values from {low:.4g} to {high:.4g} fill less than {_NARROW:.0%} of the data range [{least:g}, {most:g}]; "
    "rescale them (were they divided by 255 twice?), or set config.data.range=real and config.data.scale=standard"
  )


def _dominant(rows: Shaped[np.ndarray, "rows ..."], scale: str, schema: Schema | None) -> str:
  """Returns a message if a column, a channel or an element has nearly all of the variance, otherwise ""."""
  if scale != "none":
    return ""
  if schema is not None:
    return _text_of_dominant(f"column {schema.dominant!r}", _STANDARD) if schema.dominant is not None else ""
  variances = functools.reduce(np.add, _map_differences(lambda block: np.square(block).sum(0), rows))
  channels = variances.reshape(-1, rows.shape[-1]).sum(0)
  if _has_dominant(channels):
    return _text_of_dominant(f"{'column' if rows.ndim == 2 else 'channel'} {channels.argmax()}", _STANDARD)
  if not _has_dominant(variances):
    return ""
  index = tuple(map(int, np.unravel_index(variances.argmax(), rows.shape[1:])))
  table = f"store the examples as a table [N, {len(variances)}], and set config.data.scale=standard"
  return _text_of_dominant(f"element {index}", table)


def _text_of_dominant(name: str, fix: str) -> str:
  return f"{name} has more than {DOMINANT:.0%} of the variance, so the loss is mostly its error; {fix}"


def _has_dominant(variances: Float64[np.ndarray, " columns"]) -> bool:
  """Returns whether one of several columns has nearly all of the variance."""
  return len(variances) > 1 and bool(variances.max() > DOMINANT * variances.sum())


def _outlier(rows: Shaped[np.ndarray, "rows ..."], scale: str, schema: Schema | None) -> str:
  """Returns a message if a single training example has most of the variance, otherwise ""."""
  if len(rows) < _FEWEST:
    return ""
  squares = _squared_distances(rows)
  row = int(squares.argmax())
  share = squares[row] / max(float(squares.sum()), np.finfo(np.float64).tiny)
  if share <= _OUTLIER:
    return ""
  values = rows[row].reshape(-1)
  element = int(np.abs(values).argmax())
  fix = "remove it" if scale == "quantile" else "remove it, or set config.data.scale=quantile"
  value = _with_unit(float(values[element]), element, scale, schema)
  return f"one training example has {share:.0%} of the variance of all, with the value {value}; {fix}"


def _with_unit(value: float, element: int, scale: str, schema: Schema | None) -> str:
  """Returns a value of an example as text; for a table with its column, and its unit if it is a date or scaled."""
  unit = {"standard": " standard deviations", "quantile": " (scaled)"}.get(scale, "")
  if schema is None:
    return f"{value:.4g}{unit}"
  name = schema.element_names[element]
  if not unit and name in schema.dates:
    unit = " days after the first date"
  return f"{value:.4g}{unit} in column {name!r}"


def _squared_distances(rows: Shaped[np.ndarray, "rows ..."]) -> Float64[np.ndarray, " rows"]:
  """Returns the squared distance of each row from the mean row."""
  return np.concatenate(_map_differences(lambda block: np.einsum("ij,ij->i", block, block), rows))


def _map_differences(
  function: Callable[[Float64[np.ndarray, "block elements"]], np.ndarray], rows: Shaped[np.ndarray, "rows ..."]
) -> list[np.ndarray]:
  """Applies a function to the differences of the rows from the mean row, in blocks."""
  as_floats = lambda block: block.reshape(len(block), -1).astype(np.float64)
  mean = sum(_map_blocks(lambda block: as_floats(block).sum(0), rows)) / len(rows)
  return _map_blocks(lambda block: function(as_floats(block) - mean), rows)


def _copies(rows: Shaped[np.ndarray, "rows ..."], test: Shaped[np.ndarray, "test ..."]) -> str:
  """Returns a message if too many test examples are equal to a training example, otherwise ""."""
  known = row_hashes(rows)
  if count_distinct(known) < _FEW_DISTINCT * len(rows):  # such as a table of a few booleans: equal rows are not copies
    return ""
  copies = count_common(row_hashes(test), known)
  if copies <= _COPIES * len(test):
    return ""
  return (
    f"{copies:,} of {len(test):,} test examples are equal to a training example, so the test error is too low; remove "
    "the copies, or keep copies in one set with config.data.group"
  )

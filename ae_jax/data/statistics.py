"""Statistics of examples: extrema, missing and infinite values, constant elements and duplicates."""

import dataclasses

import numpy as np
from jaxtyping import UInt64

from ae_jax import errors
from ae_jax.data import faults, lazy_arrays

_MOST_BYTES = 2**32  # of a larger set, only evenly spaced examples with this total size are examined


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Statistics of the examples of one split."""

  indices: np.ndarray  # indices of the examples that were examined
  low: float  # the smallest finite value; NaN if there is none
  high: float
  whole: bool  # whether all finite values are whole numbers
  missing: np.ndarray  # number of NaN values in each example
  infinite: int  # number of infinite values
  uniform: np.ndarray  # mask of the examples whose elements all have the same value
  constant: np.ndarray  # mask of the elements that have the same value in all examples
  hashes: UInt64[np.ndarray, " examined"]  # hash of each example

  @property
  def copies(self) -> int:
    """Number of examples that are equal to an earlier example."""
    return len(self.hashes) - faults.count_distinct(self.hashes)


def measure(examples: lazy_arrays.MaybeLazy, where: str) -> Statistics:
  """Computes statistics of examples [N, ...], reading them in parts; `where` is the prefix of error messages.

  Raises:
    UserError: The array is empty, or does not contain numbers.
  """
  if 0 in examples.shape or examples.dtype.kind not in "biuf":
    raise errors.UserError(
      f"{where}: the examples have dtype {examples.dtype} and shape {list(examples.shape)}; expected a non-empty "
      "array of numbers"
    )
  count = min(len(examples), max(1, _MOST_BYTES // lazy_arrays.row_bytes(examples)))
  indices = np.linspace(0, len(examples) - 1, count).round().astype(np.int64)
  extrema, limits, rows, hashes, whole, infinite = [], [], [], [], True, 0
  for part in lazy_arrays.parts(examples, indices):
    hashes.append(faults.row_hashes(part))
    values = part.reshape(len(part), -1)
    extrema.append((values.min(0), values.max(0)))
    missing = np.isnan(values).sum(1) if values.dtype.kind == "f" else np.zeros(len(values), int)
    rows.append((missing, (values == values[:, :1]).all(1)))
    if values.dtype.kind == "f":
      infinite += int(np.isinf(values).sum())
      values = values[np.isfinite(values)]
      whole = whole and bool((values == np.rint(values)).all())
    limits.append((values.min(), values.max()) if values.size else (np.nan, np.nan))
  least, most = (np.stack(each) for each in zip(*extrema, strict=True))
  missing, uniform = (np.concatenate(each) for each in zip(*rows, strict=True))
  low, high = (np.array(each, np.float64) for each in zip(*limits, strict=True))
  return Statistics(
    indices,
    float(np.fmin.reduce(low)),
    float(np.fmax.reduce(high)),
    whole,
    missing,
    infinite,
    uniform,
    least.min(0) == most.max(0),
    np.concatenate(hashes),
  )

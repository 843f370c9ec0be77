"""Columns that the loss reads: targets, masks of the observed elements, and weights of the examples.

A masked element is an element that was not observed. Its stored value has no effect and may be anything, even NaN: it
is replaced by an observed value before the values are examined, and by a constant (`missing_value`) after they are
converted.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays, ranges, splits
from ae_jax.types import LEAST_WEIGHT

NAMES = ("target", "mask", "weight")
_MOST_WEIGHT = 1 / LEAST_WEIGHT


def of_examples(arrays: Mapping[str, Any]) -> list[str]:
  """Returns the names of the arrays of examples and targets, to which the same conversions are applied."""
  names = [name for split in splits.present(arrays) for name in (split, f"{split}_target")]
  return [name for name in names if name in arrays]


def pop(arrays: dict[str, Any]) -> dict[str, dict[str, lazy_arrays.MaybeLazy]]:
  """Removes the columns in `NAMES` from the arrays of a source, and returns them as {split: {name: array}}."""
  present = splits.present(arrays)
  found = {split: [name for name in NAMES if f"{split}_{name}" in arrays] for split in present}
  return {split: {name: arrays.pop(f"{split}_{name}") for name in names} for split, names in found.items() if names}


def row_bytes(arrays: Mapping[str, Any], split: str) -> int:
  """Returns the size in bytes of one example of `split`, including its target and its mask."""
  names = [name for name in (split, f"{split}_target", f"{split}_mask") if name in arrays]
  return sum(lazy_arrays.row_bytes(arrays[name]) for name in names)


def prepare(arrays: dict[str, Any], where: str) -> None:
  """Checks weights and masks, converts masks to booleans [N, *shape], and replaces masked elements, in place.

  The values of targets are not checked here, but together with the examples.

  Args:
    arrays: The arrays of a source.
    where: Prefix of error messages.

  Raises:
    UserError: A mask or a weight is invalid, or only one split has targets.
  """
  present = splits.present(arrays)
  with_targets = [split for split in present if f"{split}_target" in arrays]
  if with_targets and with_targets != present:
    missing = next(split for split in present if split not in with_targets)
    raise errors.UserError(
      f"{where}: contains target_{with_targets[0]}, but no target_{missing}; add the targets of these examples, or "
      "remove all targets"
    )
  for split in present:
    if (weights := arrays.get(f"{split}_weight")) is not None:
      arrays[f"{split}_weight"] = _weights(weights, f"weight_{split}", where)
    if (mask := arrays.get(f"{split}_mask")) is not None:
      mask = arrays[f"{split}_mask"] = _mask(mask, arrays[split].shape[1:], f"mask_{split}", where)
      for name in (split, f"{split}_target"):
        if name in arrays:
          arrays[name] = lazy_arrays.map_pairs(
            arrays[name], mask, functools.partial(fill, value=_observed_value(arrays[name], mask, split, where))
          )


def fill(
  rows: Shaped[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"], value: Any
) -> Shaped[np.ndarray, "*shape"]:
  """Returns the rows with `value` in place of the elements for which `mask` is False."""
  return np.where(mask, rows, np.asarray(value, rows.dtype))


def missing_value(dtype: np.dtype, value_range: str, standardised: bool) -> float:
  """Returns the constant for masked elements: black for images, 0 in the range "real" (the mean if standardised)."""
  return 0.0 if standardised or dtype == np.uint8 else ranges.SPANS[value_range].missing


def fill_missing(arrays: dict[str, Any], value_range: str, standardised: bool) -> None:
  """Replaces the masked elements of converted examples and targets by `missing_value`, in place."""
  for name in of_examples(arrays):
    mask = arrays.get(f"{name.removesuffix('_target')}_mask")
    if mask is not None:
      value = missing_value(arrays[name].dtype, value_range, standardised)
      arrays[name] = lazy_arrays.map_pairs(arrays[name], mask, functools.partial(fill, value=value))


def observed(shape: tuple[int, ...], mask: Any, name: str = "mask") -> Bool[np.ndarray, "..."]:
  """Converts a mask to booleans of the shape [N, ...] of the examples; its channel axis may be missing or of size 1.

  Raises:
    UserError: The mask does not have the shape of the examples, or has values other than 0 and 1.
  """
  mask = np.asarray(mask)
  if shape[0] == 1 and mask.shape in (shape[1:], shape[1:-1]):
    mask = mask[None]  # mask of a single example, without the example axis
  _check_mask_shape(mask.shape, shape, name)
  return _as_booleans(mask, shape=shape[1:], name=name)


def _check_mask_shape(found: tuple[int, ...], shape: tuple[int, ...], name: str) -> None:
  """Raises UserError unless a mask of shape `found` can be broadcast to examples of shape `shape`, [N, ...]."""
  allowed = [shape] if len(shape) == 2 else [shape, shape[:-1], (*shape[:-1], 1)]
  if found not in allowed:
    forms = " or ".join(str(list(form)) for form in allowed[:2])
    raise errors.UserError(f"{name}: has shape {list(found)}; expected {forms}, as the examples")


def _as_booleans(rows: np.ndarray, *, shape: tuple[int, ...], name: str) -> np.ndarray:
  """Converts rows of a mask to booleans [K, *shape]; raises UserError for values other than 0 and 1."""
  if rows.dtype != np.bool_ and not ((rows == 0) | (rows == 1)).all():
    raise errors.UserError(f"{name}: has values other than 0 and 1; use 1 for observed and 0 for missing elements")
  rows = rows.astype(np.bool_) if rows.ndim > len(shape) else rows.astype(np.bool_)[..., None]
  return np.ascontiguousarray(np.broadcast_to(rows, (len(rows), *shape)))


def _mask(mask: lazy_arrays.MaybeLazy, shape: tuple[int, ...], name: str, where: str) -> lazy_arrays.MaybeLazy:
  """Converts a mask to booleans [N, *shape]; a lazy array stays lazy."""
  if mask.dtype.kind not in "biuf":
    raise errors.UserError(f"{where}: `{name}` has dtype {mask.dtype}; expected booleans, or 0 and 1")
  _check_mask_shape(mask.shape, (len(mask), *shape), f"{where}: `{name}`")
  return lazy_arrays.map_rows(
    mask, shape, np.bool_, functools.partial(_as_booleans, shape=shape, name=f"{where}: `{name}`")
  )


def _weights(weights: lazy_arrays.MaybeLazy, name: str, where: str) -> Float32[np.ndarray, " examples"]:
  """Reads the weights of the examples as float32 [N]; raises UserError if a weight is not in the allowed interval."""
  shape = weights.shape
  if weights.dtype.kind not in "iuf" or math.prod(shape) != len(weights):
    raise errors.UserError(
      f"{where}: `{name}` has dtype {weights.dtype} and shape {list(shape)}; expected one number per example"
    )
  values = lazy_arrays.load_all(weights).reshape(-1).astype(np.float64)
  wrong = np.flatnonzero(~((values >= LEAST_WEIGHT) & (values <= _MOST_WEIGHT)))
  if len(wrong):
    raise errors.UserError(
      f"{where}: `{name}` is {values[wrong[0]]:g} in row {wrong[0]}; weights must be between {LEAST_WEIGHT:g} and "
      f"{_MOST_WEIGHT:g}. To leave an example out, remove its row"
    )
  return values.astype(np.float32)


def _observed_value(examples: lazy_arrays.MaybeLazy, mask: lazy_arrays.MaybeLazy, split: str, where: str) -> Any:
  """Returns any observed value of the examples; as a fill value, it does not change the range of the data."""
  rows = np.arange(len(mask)) if isinstance(examples, np.ndarray) else lazy_arrays.probe_indices(len(mask))
  for part in np.array_split(rows, -(-len(rows) // lazy_arrays.BLOCK)):
    seen = lazy_arrays.read_rows(examples, part)[lazy_arrays.read_rows(mask, part)]
    if seen.size:
      return seen[0]
  raise errors.UserError(f"{where}: `mask_{split}` is 0 everywhere; use 1 for observed and 0 for missing elements")

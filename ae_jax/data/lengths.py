"""Lengths of padded series, and their conversion to masks that are False for the padding."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ae_jax import errors
from ae_jax.data import lazy_arrays, splits

NAME = "lengths"  # an archive has `lengths_train` and `lengths_test`, a source has "train_lengths" and "test_lengths"


def check(arrays: dict[str, Any], where: str) -> None:
  """Reads and checks the lengths of the series of a source, in place: "train_lengths", ... become int64 [N].

  Args:
    arrays: Arrays of a source.
    where: Prefix of error messages.

  Raises:
    UserError: The examples are not series, a split has no lengths, or lengths are not whole numbers from 1 to T.
  """
  present = splits.present(arrays)
  given = [split for split in present if f"{split}_{NAME}" in arrays]
  for split in given:
    name, shape = f"{NAME}_{split}", arrays[split].shape
    if len(shape) != 3:
      raise errors.UserError(f"{where}: `{name}`: only series have lengths; set config.data.kind='series'")
    if f"{split}_mask" in arrays:
      raise errors.UserError(
        f"{where}: contains both `{name}` and a mask; remove `{name}`, and set the mask to 0 after the end of each "
        "series"
      )
    values = np.asarray(lazy_arrays.load_all(arrays[f"{split}_{NAME}"])).reshape(-1)
    if len(values) != shape[0] or values.dtype.kind not in "iu":
      raise errors.UserError(
        f"{where}: `{name}` has dtype {values.dtype} and shape {list(values.shape)}; expected {shape[0]:,} integers, "
        "one per series"
      )
    wrong = np.flatnonzero((values < 1) | (values > shape[1]))
    if len(wrong):
      raise errors.UserError(
        f"{where}: `{name}` is {values[wrong[0]]} in row {wrong[0]}; lengths are from 1 to {shape[1]}, the number of "
        "steps"
      )
    arrays[f"{split}_{NAME}"] = values.astype(np.int64)
  if given and given != present:
    missing = next(split for split in present if split not in given)
    raise errors.UserError(f"{where}: contains `{NAME}_{given[0]}`, but no `{NAME}_{missing}`; add it")


def to_masks(arrays: dict[str, Any], where: str) -> list[str]:
  """Replaces the lengths of a source by masks, in place: "train_mask" [N, T, C] is False for the padding, ...

  If all series have the full length, no masks are added. See `check` for the arguments and exceptions.

  Returns:
    A list with one note about the lengths; [] if there are no lengths or no padding.
  """
  check(arrays, where)
  lengths = {split: arrays.pop(f"{split}_{NAME}") for split in splits.present(arrays) if f"{split}_{NAME}" in arrays}
  if not lengths:
    return []
  steps, channels = arrays["train"].shape[1:]
  every = np.concatenate([*lengths.values()])
  if (every == steps).all():
    return []
  for split, values in lengths.items():
    mask = functools.partial(_mask, steps=steps, channels=channels)
    arrays[f"{split}_mask"] = lazy_arrays.map_rows(_like(values, arrays[split]), (steps, channels), np.bool_, mask)
  found = f"series of {every.min():,} to {every.max():,} steps, padded to {steps:,}"
  return [f"{where}: {found}; padding does not count in the loss"]


def _like(values: Int[np.ndarray, " series"], examples: lazy_arrays.MaybeLazy) -> lazy_arrays.MaybeLazy:
  """Returns the lengths as a lazy array if the examples are lazy, so the masks are computed row by row on demand."""
  if isinstance(examples, np.ndarray):
    return values
  return lazy_arrays.LazyArray(values.shape, values.dtype, lambda indices: values[indices])


def _mask(
  values: Int[np.ndarray, " series"], *, steps: int, channels: int
) -> Bool[np.ndarray, "series {steps} {channels}"]:
  """Returns the mask that is True for the steps before the end of each series."""
  mask = np.arange(steps)[None] < values[:, None]
  return np.repeat(mask[..., None], channels, axis=2)

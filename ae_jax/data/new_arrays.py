"""Reads files of arrays (npz, npy, HDF5) as new examples for a trained run."""

from collections.abc import Callable

import numpy as np

from ae_jax import errors
from ae_jax.data import archives, hdf5, lazy_arrays, new_cuts, new_labels, remarks
from ae_jax.data.new_parts import NewFiles, Wanted, joined

_NO_ARRAY = "save them as an array `y` with the examples in an .npz file, or name another array with --label"
KINDS: dict[str, Callable[[str, str], dict[str, lazy_arrays.LazyArray]]] = {
  "npz": archives.arrays_of,
  "npy": lambda path, where: {"x": archives.array_of(path, where)},
  "hdf5": hdf5.arrays_of,
}


def read(kind: str, path: str, wanted: Wanted, array: str, label: str, where: str) -> NewFiles:
  """Reads the array `array` of a file; "" selects the only array whose rows have the shape of an example.

  Without a window or patch, a channel axis of size 1 may be missing.
  """
  stored = KINDS[kind](path, where)
  fitting = [key for key, values in stored.items() if _fits(values, wanted)]
  listed = ", ".join(f"{key} {list(values.shape)}" for key, values in stored.items()) or "no array"
  for argument, chosen in (("array", array), ("label", label)):
    if chosen and chosen not in stored:
      raise errors.UserError(f"--{argument}={chosen}: {where} has no array of this name; it contains {listed}")
  if not array and len(fitting) != 1:
    problem = "several arrays have" if fitting else "no array has"
    raise errors.UserError(
      f"{where}: {problem} {_form(wanted)}, as required by the run; it contains {listed}; "
      f"{'select one with --array' if fitting else 'save one such array'}"
    )
  key = array or fitting[0]
  if label and stored[label].shape[:1] != stored[key].shape[:1]:
    counts = f"{list(stored[label].shape)}, but {key} has {list(stored[key].shape)}"
    raise errors.UserError(f"--label={label}: has shape {counts}; pass one label per example")
  label = label or new_labels.name_of_array(stored, key, wanted.section)
  read_too = f", and that of its labels is {label}" if label else ""
  notes = remarks.not_read(where, {*stored} - {key, label}, f"the array that is read is {key}{read_too}")
  values = stored[key]
  if _is_channels_first(values, wanted):
    move = lambda rows: np.moveaxis(rows, 1, -1)
    values = lazy_arrays.map_rows(values, (*values.shape[2:], values.shape[1]), values.dtype, move)
  values = lazy_arrays.load_all(values)
  rows = [str(row) for row in range(len(values))]
  labels = stored[label].load() if label else None
  if wanted.section["window"]:
    is_one_per_step = labels is not None and labels.size == len(values)
    cut = new_cuts.of_records(values, "", wanted.section, labels if is_one_per_step else None)
  else:
    cut = new_cuts.of_images(values, rows, wanted.section, labels)
  return joined([cut], notes, where, wanted.section, _NO_ARRAY)


def _form(wanted: Wanted) -> str:
  """Returns the required shape of an array of new examples as text for error messages."""
  if wanted.section["window"]:
    return f"the form of a recording [T, {wanted.shape[1]}]"
  if wanted.section["patch"]:
    return f"the form of images [N, H, W, {wanted.shape[2]}]"
  return f"rows of shape {list(wanted.shape)}"


def _fits(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  row, shape, section = values.shape[1:], wanted.shape, wanted.section
  if section["window"]:
    return row == shape[1:] or (row == () and shape[1] == 1)
  if section["patch"]:
    return (len(row) == 3 and row[2] == shape[2]) or _is_channels_first(values, wanted)
  is_table = wanted.schema is not None and row == (len(wanted.schema.columns),)
  without_channels = shape[-1] == 1 and row == shape[:-1] and len(shape) > 1
  return row == shape or without_channels or is_table or _is_channels_first(values, wanted)


def _is_channels_first(values: lazy_arrays.MaybeLazy, wanted: Wanted) -> bool:
  row, shape = values.shape[1:], wanted.shape
  if wanted.section["layout"] != "nchw" or not len(row) == len(shape) == 3:
    return False
  return row[0] == shape[2] and (bool(wanted.section["patch"]) or row[1:] == shape[:2])

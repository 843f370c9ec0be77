"""Reads files of arrays (npz, npy, HDF5) as new examples for a trained run."""

from collections.abc import Callable, Mapping

import numpy as np

from ae_jax import errors
from ae_jax.data import archives, hdf5, lazy_arrays, loss_columns, new_cuts, new_labels, remarks
from ae_jax.data.new_parts import Named, NewFiles, Wanted, joined

_NO_ARRAY = "save them as an array `y` with the examples in an .npz file, or name another array with --label"
KINDS: dict[str, Callable[[str, str], dict[str, lazy_arrays.LazyArray]]] = {
  "npz": archives.arrays_of,
  "npy": lambda path, where: {"x": archives.array_of(path, where)},
  "hdf5": hdf5.arrays_of,
}


def read(kind: str, path: str, wanted: Wanted, named: Named, where: str) -> NewFiles:
  """Reads the array `named.array` of a file; "" selects the only array whose rows have the shape of an example.

  Arrays of targets and masks are not selected. Without a window or patch, a channel axis of size 1 may be missing.
  """
  stored = KINDS[kind](path, where)
  listed = ", ".join(f"{key} {list(values.shape)}" for key, values in stored.items()) or "no array"
  for argument, chosen in named._asdict().items():
    if chosen and chosen not in stored:
      raise errors.UserError(f"--{argument}={chosen}: {where} has no array of this name; it contains {listed}")
  key = named.array or _only_fitting(stored, wanted, listed, where)
  if named.label and stored[named.label].shape[:1] != stored[key].shape[:1]:
    counts = f"{list(stored[named.label].shape)}, but {key} has {list(stored[key].shape)}"
    raise errors.UserError(f"--label={named.label}: has shape {counts}; pass one label per example")
  label = named.label or new_labels.name_of_array(stored, key, wanted.section)
  extra = _names_of_extra(stored, key, named)
  examples = _loaded(stored[key], wanted)
  arrays = {name: _like(_loaded(stored[array], wanted), examples, name, array, key) for name, array in extra.items()}
  labels = stored[label].load() if label else None
  read_too = "".join(f", that of its {name}s is {array}" for name, array in ({"label": label} | extra).items() if array)
  notes = remarks.not_read(
    where, {*stored} - {key, label, *extra.values()}, f"the array that is read is {key}{read_too}"
  )
  cut = _cut(examples, wanted, labels)
  cut = cut._replace(extra={name: _cut(array, wanted, None).x for name, array in arrays.items()})
  return joined([cut], notes, where, wanted.section, _NO_ARRAY)._replace(extra=extra)


def _only_fitting(stored: Mapping[str, lazy_arrays.LazyArray], wanted: Wanted, listed: str, where: str) -> str:
  """Returns the name of the only array that fits the run; raises UserError if there is no or more than one."""
  fitting = [key for key, values in stored.items() if _fits(values, wanted)]
  examples = [key for key in fitting if key.partition("_")[0] not in loss_columns.NAMES]
  found = examples or fitting
  if len(found) != 1:
    problem = "several arrays have" if found else "no array has"
    raise errors.UserError(
      f"{where}: {problem} {_form(wanted)}, as required by the run; it contains {listed}; "
      f"{'select one with --array' if found else 'save one such array'}"
    )
  return found[0]


def _names_of_extra(stored: Mapping[str, lazy_arrays.LazyArray], key: str, named: Named) -> dict[str, str]:
  """Returns {"target" or "mask": name of the array} for the existing arrays that belong to the array `key`.

  Default names are `target` and `mask`, and `target_test` and `mask_test` for `x_test`.
  """
  extra = {}
  for name, chosen in (("target", named.target), ("mask", named.mask)):
    default = f"{name}{key[1:]}" if key.startswith("x") else name
    if array := chosen or (default if default in stored and default != key else ""):
      extra[name] = array
  return extra


def _like(values: np.ndarray, examples: np.ndarray, name: str, array: str, key: str) -> np.ndarray:
  """Returns targets or masks (`name`) of examples; the axis of channels is added to masks without it.

  `array` and `key` are the names of the arrays of `values` and `examples`, for messages.

  Raises:
    UserError: The values have another shape than the examples.
  """
  if name == "mask" and values.shape == examples.shape[:-1]:
    return np.broadcast_to(values[..., None], examples.shape)
  if values.shape != examples.shape:
    counts = f"{list(values.shape)}, but {key} has {list(examples.shape)}"
    raise errors.UserError(f"--{name}={array}: has shape {counts}; save {name}s of the same shape")
  return values


def _loaded(values: lazy_arrays.LazyArray, wanted: Wanted) -> np.ndarray:
  """Reads an array; the channels of images are moved to the last axis."""
  if _is_channels_first(values, wanted):
    move = lambda rows: np.moveaxis(rows, 1, -1)
    values = lazy_arrays.map_rows(values, (*values.shape[2:], values.shape[1]), values.dtype, move)
  return lazy_arrays.load_all(values)


def _cut(values: np.ndarray, wanted: Wanted, labels: np.ndarray | None) -> new_cuts.Cut:
  """Cuts an array into windows or patches if the run has them; see `new_cuts`."""
  if wanted.section["window"]:
    is_one_per_step = labels is not None and labels.size == len(values)
    return new_cuts.of_records(values, "", wanted.section, labels if is_one_per_step else None, wanted.normal)
  return new_cuts.of_images(values, [str(row) for row in range(len(values))], wanted.section, labels)


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

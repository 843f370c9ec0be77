"""Data sources for arrays and DataFrames in memory, which `ae_jax.fit` passes to `ae_jax.data.load`."""

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.data import array_roles, labels, lazy_arrays, remarks, splits, tables

WHERE = "ae_jax.fit"  # prefix of messages
_ARGUMENTS = {"train": "x", "validation": "validation", "test": "test"}  # split -> argument of `ae_jax.fit`


class SplitData(NamedTuple):
  """The examples and labels of one split of a data set."""

  x: Any  # a DataFrame, a dict of columns, or anything that `as_array` takes
  labels: Any = None  # one per example; None: no labels


def as_array(x: Any, name: str) -> Shaped[np.ndarray, "..."]:
  """Converts an array-like object to a NumPy array of numbers.

  Args:
    x: A NumPy or JAX array, a PyTorch tensor on any device, nested lists, or an object with `__array__`.
    name: Name of the argument, for error messages.

  Raises:
    UserError: `x` is not an array of numbers.
  """
  array = _as_numpy(x, name)
  if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and float8 of JAX
    array = array.astype(np.float32)
  if isinstance(x, str | os.PathLike):
    raise errors.UserError(
      f"{name}: is a path; load the file and pass its array, or use `ae_jax apply --workdir=RUN --data=PATH`, which "
      "converts new files like those of the training"
    )
  if array.dtype.kind not in "biuf":
    raise errors.UserError(
      f"{name}: has type {type(x).__name__} and dtype {array.dtype}; pass an array of numbers, or a DataFrame for "
      "strings and dates"
    )
  return array


def _as_numpy(x: Any, name: str) -> Shaped[np.ndarray, "..."]:
  if isinstance(x, np.ma.MaskedArray):
    raise errors.UserError(
      f"{name}: is a masked array, which is not supported. For training, pass a DataFrame of x.filled(np.nan) with "
      "data__missing='mask', or an npz file with x_train and mask_train; for methods of a run, pass x.data and "
      "mask=~x.mask"
    )
  torch = sys.modules.get("torch")  # there are no tensors before it is imported
  if torch is not None and isinstance(x, torch.Tensor):
    x = x.detach().cpu()
    x = x.float() if x.dtype == torch.bfloat16 else x
  with errors.convert_errors(f"{name}: cannot be read as an array"):
    return np.asarray(x)


def arrays(name: str, path: str, *, given: Mapping[str, SplitData] | None, layout: str = "nhwc") -> dict[str, Any]:
  """Data source for arrays [N, ...] in memory: returns examples, labels and class names.

  See `kinds.with_channels` for the axes of the arrays. `name` and `path` are `config.data.name` and `config.data.path`.
  """
  stored, names = {}, {}
  for split, (x, answers) in _checked(name, path, given).items():
    argument = _ARGUMENTS[split]
    stored[f"x_{split}"] = _lazy(_not_scalar(as_array(x, argument), argument))
    names[f"x_{split}"] = argument
    if answers is not None:
      name_of_labels = _name_of_labels(split)
      stored[f"y_{split}"] = _lazy(_not_scalar(_labels(answers, name_of_labels), name_of_labels))
      names[f"y_{split}"] = name_of_labels
  return array_roles.train_and_test(stored, names, layout, WHERE)


def frame(
  name: str,
  path: str,
  *,
  given: Mapping[str, SplitData] | None,
  label: str = "",
  group: str = "",
  columns: tuple = (),
  dated: bool = False,
) -> dict[str, Any]:
  """Data source for DataFrames or dicts of columns in memory; see `tables.files` for the options.

  If `dated` is True, the dates in the index of a DataFrame become a column.
  """
  from ae_jax.data import frames  # pandas takes half a second to import

  by_split = _checked(name, path, given)
  for split, (x, _) in by_split.items():
    if not frames.is_frame(x):
      raise errors.UserError(f"{_ARGUMENTS[split]}: is no table, but x is one; pass a DataFrame or a dict of columns")
  rows = {split: frames.as_frame(frames.with_dates(x) if dated else x) for split, (x, _) in by_split.items()}
  found = tables.of_frames(rows, WHERE, label=label, group=group, columns=columns)
  answers = {
    split: _labels(each.labels, _name_of_labels(split)) for split, each in by_split.items() if each.labels is not None
  }
  if answers and label:
    raise errors.UserError(f"config.data.label={label!r}: labels are given as an array, too; remove one of them")
  for split, values in answers.items():
    if len(values) != len(rows[split]):
      raise errors.UserError(
        f"{WHERE}: {remarks.counted(len(values), 'label')} for {remarks.counted(len(rows[split]), 'row')} of "
        f"{_ARGUMENTS[split]}; pass one label per row"
      )
  integers, class_names, notes = labels.as_integers(answers, WHERE)
  found |= {f"{split}_labels": values for split, values in integers.items()}
  return found | ({"class_names": class_names} if answers else {}) | {"remarks": [*found["remarks"], *notes]}


def _checked(name: str, path: str, given: Mapping[str, SplitData] | None) -> Mapping[str, SplitData]:
  """Returns the given splits in the order of `splits.SPLITS`; raises UserError if `given` is None or a path is set."""
  splits.check_no_path(name, path)
  if given is None:
    raise errors.UserError(
      f"config.data.name={name!r}: the data were passed to ae_jax.fit and are not in a file; pass them again to "
      "ae_jax.fit, or to the methods of ae_jax.load(workdir)"
    )
  return {split: given[split] for split in splits.SPLITS if split in given}


def _name_of_labels(split: str) -> str:
  return "labels" if split == "train" else f"labels of {split}"


def _labels(values: Any, name: str) -> Shaped[np.ndarray, "..."]:
  """Converts labels to an array of numbers or strings."""
  array = _as_numpy(values, name)
  is_changed = array.dtype.kind in "US" and not hasattr(values, "dtype")  # NumPy converts [1, "a"] to strings
  entries = np.asarray(values, object) if is_changed else array
  has_gaps = array.dtype.kind == "f" and np.isnan(array).any()
  text = bytes if array.dtype.kind == "S" else str
  if has_gaps or (entries.dtype.kind == "O" and not all(isinstance(each, text) for each in entries.ravel())):
    raise errors.UserError(
      f"{name}: the values have mixed types, or some are missing; pass one integer or string per example"
    )
  return array.astype(str) if array.dtype.kind == "O" else array


def _not_scalar(array: Shaped[np.ndarray, "..."], name: str) -> Shaped[np.ndarray, "..."]:
  if not array.ndim:
    raise errors.UserError(f"{name}: is a single value; pass one row per example")
  return array


def _lazy(array: Shaped[np.ndarray, "examples ..."]) -> lazy_arrays.LazyArray:
  """Wraps an array in a `LazyArray`, which the sources of files return too, so it can be streamed to the device."""
  return lazy_arrays.LazyArray(array.shape, array.dtype, array.__getitem__, lambda: array)


SOURCES = {"arrays": arrays, "frame": frame}

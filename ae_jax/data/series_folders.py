"""Data source for folders of .npy files of different lengths: each file is a series or a long recording, [T] or [T, C].

The files are in the folder, or in its subfolders `train`, `validation` and `test`. NAME_labels.npy contains the labels
of the time steps of NAME.npy, [T], or a single label for all of them.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.data import array_names, labels, lazy_arrays, numpy_files, remarks, splits

_LABELS = "_labels"  # files of labels are named NAME_labels.npy
_READ = "the .npy files that are read are series, and their labels in NAME_labels.npy"
Files = dict[str, lazy_arrays.LazyArray]  # name of a file without its suffix -> its array


def applies(name: str, path: str, kind: str, window: int, x: str = "") -> bool:
  """Returns whether a path is a folder with one series or recording per file.

  The other kind of folder contains one array per file, such as x_train.npy. The arguments are keys of `config.data`.
  """
  if name != "npy" or x or not (window or kind == "series") or not os.path.isdir(path):
    return False
  return not any(pathlib.Path(path, f"{array}.npy").exists() for array in array_names.TRAINING)


def read(path: str, window: int, is_complete: bool = False) -> dict[str, Any]:
  """Returns the series of a folder or, if `window` is not 0, its recordings.

  Series are padded with zeros at the end to the longest one, [N, T, C]; `train_lengths` and `test_lengths` [N] contain
  their lengths. The label of a series is the largest label of its steps. The recordings of a split are concatenated to
  one array [steps, C]; `record_steps` is {split: lengths of its recordings}, and `record_names` {split: their names}.

  Args:
    path: The folder.
    window: `config.data.window`.
    is_complete: Whether each value must be finite; steps are checked when they are read.

  Raises:
    UserError: A split has too few files, or a file is damaged or differs from the others in its number of channels.
  """
  where = f"config.data.path={path!r}"
  series, of_steps, notes = _series_of_splits(pathlib.Path(path), where)
  dtype, channels = _check_alike(series, where)
  if is_complete:
    series = {split: _finite(files, f"{where}: the {split} series") for split, files in series.items()}
  integers, class_names, label_notes = labels.as_integers(of_steps, where)
  arrays: dict[str, Any] = {"class_names": class_names, "remarks": [*notes, *label_notes]}
  steps = {split: np.array([len(array) for array in files.values()]) for split, files in series.items()}
  if window:
    arrays |= {split: lazy_arrays.joined([*files.values()], dtype) for split, files in series.items()}
    arrays |= {f"{split}_labels": values for split, values in integers.items()}
    arrays["record_names"] = {split: tuple(files) for split, files in series.items()}
    return arrays | {"record_steps": {split: tuple(map(int, lengths)) for split, lengths in steps.items()}}
  shape = (max(int(lengths.max()) for lengths in steps.values()), channels)
  arrays |= {split: _padded([*files.values()], dtype, shape) for split, files in series.items()}
  arrays |= {f"{split}_lengths": lengths for split, lengths in steps.items()}
  if "test" not in arrays and len(arrays["train"]) < 3:
    raise errors.UserError(
      f"{where}: has only {len(arrays['train'])} series, too few to hold out a test set; provide at least 3, or a "
      "folder `test`"
    )
  largest = lambda split: np.maximum.reduceat(integers[split], np.cumsum(steps[split]) - steps[split])
  return arrays | {f"{split}_labels": largest(split) for split in integers}


def _series_of_splits(root: pathlib.Path, where: str) -> tuple[dict[str, Files], dict[str, np.ndarray], list[str]]:
  """Returns {split: series}, {split: labels of all steps [steps]} (empty without labels), and notes."""
  folders = {split: root / split for split in splits.SPLITS if (root / split).is_dir()} or {"train": root}
  found = {split: files_in(folder, where) for split, folder in folders.items()}
  series = {split: files for split, (files, _, _) in found.items()}
  for split in ("train", *folders):
    if not series.get(split):
      raise errors.UserError(f"{where}: contains no .npy files of the {split} series; add them")
  labelled = any(classes for _, classes, _ in found.values())
  of_steps = {split: labels_of_steps(*found[split][:2], where) for split in series if labelled}
  notes = [note for _, _, unread in found.values() for note in remarks.not_read(where, unread, _READ)]
  return series, of_steps, notes


def files_in(folder: pathlib.Path, where: str) -> tuple[Files, Files, list[str]]:
  """Returns the series [T, C] of a folder, the labels of the series that have labels, and the names of other files."""
  with errors.convert_errors(f"{where}: cannot be read"):
    names = sorted(remarks.visible(folder))
  arrays = {
    name.removesuffix(".npy"): numpy_files.file_array(folder / name, where) for name in names if name.endswith(".npy")
  }
  classes = {name.removesuffix(_LABELS): array for name, array in arrays.items() if name.endswith(_LABELS)}
  series = {name: array for name, array in arrays.items() if not name.endswith(_LABELS)}
  unread = [name for name in names if not name.endswith(".npy")]
  unread += [f"{name}{_LABELS}.npy" for name in classes if name not in series]
  for name, array in series.items():
    if len(array.shape) not in (1, 2):
      raise errors.UserError(f"{where}: {name}.npy has {len(array.shape)} axes; expected a series [T] or [T, C]")
    if len(array.shape) == 1:
      series[name] = lazy_arrays.map_rows(array, (1,), array.dtype, lambda rows: rows[:, None])
  return series, {name: array for name, array in classes.items() if name in series}, unread


def _check_alike(series: Mapping[str, Files], where: str) -> tuple[np.dtype, int]:
  """Returns a dtype for all series and their number of channels; raises UserError if the channels differ."""
  every = [(f"{name}.npy", array) for files in series.values() for name, array in files.items()]
  first, like = every[0]
  for name, array in every:
    if array.dtype.kind not in "biuf":
      raise errors.UserError(f"{where}: {name} has dtype {array.dtype}; convert it to numbers")
    if array.shape[1] != like.shape[1]:
      raise errors.UserError(
        f"{where}: {name} has {remarks.counted(array.shape[1], 'channel')}, but {first} has {like.shape[1]}; all "
        "series must have the same channels"
      )
  return np.result_type(*(array.dtype for _, array in every)), like.shape[1]


def _finite(series: Files, where: str) -> Files:
  """Returns series that raise UserError when a step with a value that is not finite is read.

  A folder of series has no masks, and `config.data.missing` is only for tables.
  """

  def fault(steps):
    invalid = np.argwhere(~np.isfinite(steps))
    if not len(invalid):
      return None
    return (
      f"has NaN or an infinite value in channel {invalid[0, -1]} (both counted from 0); fill such values in the file, "
      "or cut the series there into two files"
    )

  return {name: lazy_arrays.checked(array, fault, f"{where} {name}.npy: step") for name, array in series.items()}


def labels_of_steps(series: Files, classes: Files, where: str) -> Shaped[np.ndarray, " steps"]:
  """Returns the labels of the steps of all series, concatenated."""
  parts = []
  for name, array in series.items():
    if name not in classes:
      raise errors.UserError(f"{where}: {name}{_LABELS}.npy is missing; add it, or remove all files of labels")
    values = classes[name].load().reshape(-1)
    if len(values) not in (1, len(array)):
      raise errors.UserError(
        f"{where}: {name}{_LABELS}.npy has {len(values):,} labels, but {name}.npy has {len(array):,} steps; provide "
        "one label, or one for each step"
      )
    parts.append(np.broadcast_to(values, (len(array),)))
  return np.concatenate(parts)


def _padded(rows: Sequence[lazy_arrays.LazyArray], dtype: np.dtype, shape: tuple[int, int]) -> lazy_arrays.LazyArray:
  """Returns the series as a lazy array [N, *shape], padded with zeros at the end."""

  def read(indices):
    padded = np.zeros((len(indices), *shape), dtype)
    for number, index in enumerate(indices):
      padded[number, : len(rows[index])] = rows[index][:]
    return padded

  return lazy_arrays.LazyArray((len(rows), *shape), dtype, read)

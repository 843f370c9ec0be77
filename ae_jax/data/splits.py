"""The splits of a data set ("train", "validation", "test"), and checks of `config.data.path` for the data sources.

The array of the examples of a split has the name of the split, such as "train". Its other arrays have this name with a
suffix, such as "train_labels".
"""

import os
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays

SPLITS = ("train", "validation", "test")
VALIDATION_NAMES = ("val", "valid", "validation")  # accepted names of the validation set in files, folders and arrays


def last_of_each_class(labels: Shaped[np.ndarray, " examples"], share: float) -> Bool[np.ndarray, " examples"]:
  """Returns the mask of the last fraction `share` of the examples of each class."""
  mask = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    mask[of_class[len(of_class) - round(share * len(of_class)) :]] = True
  return mask


def share_of(count: int, share: float) -> int:
  """Returns `share * count`, rounded down, but at least 1; `share` is a fraction in (0, 1)."""
  return max(1, int(count * share + 1e-6))  # the product of floats may be 2.9999999999999996 instead of 3


def drawn(count: int, selected: int, seed: int) -> Bool[np.ndarray, " {count}"]:
  """Returns a mask [count] that selects `selected` random examples."""
  return np.random.default_rng(seed).permutation(count) < selected


def last(count: int, share: float) -> Bool[np.ndarray, " {count}"]:
  """Returns a mask [count] that selects the last fraction `share` of the time steps of a recording, at least 1."""
  return np.arange(count) >= count - share_of(count, share)


def train_and_test(
  examples: lazy_arrays.MaybeLazy,
  labels: Shaped[np.ndarray, " examples"] | None,
  held_out: Bool[np.ndarray, " examples"],
) -> dict[str, Any]:
  """Splits examples and labels into training and test set; the mask `held_out` selects the test examples."""
  arrays = {"train": examples} | ({} if labels is None else {"train_labels": labels})
  hold_out(arrays, held_out, "test")
  return arrays


def present(arrays: Mapping[str, Any]) -> list[str]:
  """Returns the splits that have examples, in the order of `SPLITS`."""
  return [split for split in SPLITS if split in arrays]


def names(arrays: Mapping[str, Any], split: str) -> list[str]:
  """Returns the names of all arrays of `split`, such as ["train", "train_labels"]."""
  of_split = [name for name in arrays if name == split or name.startswith(f"{split}_")]
  return [name for name in of_split if arrays[name] is not None]


def keep(arrays: dict[str, Any], split: str, rows: Bool[np.ndarray, " examples"]) -> None:
  """Drops the examples of `split` that the mask `rows` does not select, in place."""
  for name in names(arrays, split):
    arrays[name] = lazy_arrays.take(arrays[name], rows)


def hold_out(arrays: dict[str, Any], rows: Bool[np.ndarray, " examples"], split: str) -> None:
  """Moves the training examples that the mask `rows` selects to `split`, in place."""
  for name in names(arrays, "train"):
    arrays[split + name.removeprefix("train")] = lazy_arrays.take(arrays[name], rows)
  keep(arrays, "train", ~rows)


def no_test_set(where: str, validation: str) -> str:
  """Returns a note that a source has a validation set but no test set; `validation` is its name for the user."""
  return (
    f"{where}: {validation} is the validation set; there is no test set, so test examples are drawn from the others"
  )


def check_no_path(name: str, path: str) -> None:
  """Raises UserError if a path is set for a built-in data set."""
  if path:
    raise errors.UserError(f"config.data.path={path!r}: {name} is built in and reads no file; leave the path empty")


def check_path(name: str, path: str, expected: str) -> None:
  """Raises UserError if the path is empty, cannot be read, or is a pipe or a device.

  Args:
    name: Name of the source.
    path: Path to check. A missing file is accepted here, because the source reports it in more detail.
    expected: Description of the expected file or folder, for the message.
  """
  if not path:
    raise errors.UserError(f"config.data.path is empty; set it to the {expected} for config.data.name={name!r}")
  where = f"config.data.path={errors.format_value(path)}"
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    return
  except (OSError, ValueError) as error:  # the name is too long or contains NUL
    raise errors.UserError(f"{where}: cannot be read: {errors.one_line(error)[:100]}") from None
  if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading from it could block forever
    raise errors.UserError(f"{where}: is a pipe or a device; expected a {expected}")


def where_of(name: str, path: str, expected: str) -> str:
  """Returns the prefix of error messages about a path; raises UserError if `check_path` does or it does not exist."""
  check_path(name, path, expected)
  where = f"config.data.path={path!r}"
  if not os.path.exists(path):
    raise errors.UserError(f"{where}: file not found; check the path")
  return where

"""What the sources share: how examples are parted into training and test, and what needs a path."""

import os
import stat

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays

_MOST_HELD_OUT = 10_000  # the test examples lie in memory, however many there are to train on


def last_of_each_class(labels, share):
  """A mask [N] of the last `share` of each class."""
  mask = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    mask[of_class[len(of_class) - round(share * len(of_class)) :]] = True
  return mask


def drawn_fifth(count):
  """A mask [N] of a fifth of `count` examples, 10,000 at most, drawn with a fixed seed."""
  return np.random.default_rng(0).permutation(count) < max(1, min(count // 5, _MOST_HELD_OUT))


def split(examples, labels, held_out):
  """The dict that a source gives, from examples [N, ...], labels [N] or None, and the mask [N] of those for testing."""
  arrays = {"train": lazy_arrays.take(examples, ~held_out), "test": lazy_arrays.take(examples, held_out)}
  if labels is not None:
    arrays |= {"train_labels": labels[~held_out], "test_labels": labels[held_out]}
  return arrays


def check_no_path(name, path):
  """Raises UserError if a data set that is embedded or made is given a path."""
  if path:
    raise errors.UserError(f"config.data.path={path!r}: {name} is embedded and reads no file; leave it empty")


def check_path(name, path, wanted):
  """Raises UserError if a data set that is read from `wanted` is given no path, or one that can be of neither."""
  if not path:
    raise errors.UserError(f"config.data.path is empty; name the {wanted} that config.data.name={name!r} is to read")
  where = f"config.data.path={errors.shown(path)}"
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    return  # the source says so better
  except (OSError, ValueError) as error:  # a name that is too long, or with a NUL in it
    raise errors.UserError(f"{where}: cannot be read: {errors.one_line(error)[:100]}") from None
  if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # which could be waited for without end
    raise errors.UserError(f"{where}: is a pipe or a device; a {wanted} is wanted")

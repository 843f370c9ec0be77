"""What the sources share: how labelled examples are parted into training and test, and what needs no path."""

import numpy as np

from ae_jax import errors


def last_of_each_class(labels, share):
  """A mask [N] of the last `share` of each class."""
  mask = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    mask[of_class[len(of_class) - round(share * len(of_class)) :]] = True
  return mask


def split(examples, labels, held_out):
  """The dict that a source gives, from examples [N, ...], labels [N] or None, and the mask [N] of those for testing."""
  arrays = {"train": examples[~held_out], "test": examples[held_out]}
  if labels is not None:
    arrays |= {"train_labels": labels[~held_out], "test_labels": labels[held_out]}
  return arrays


def check_no_path(name, path):
  """Raises UserError if a data set that is embedded or made is given a path."""
  if path:
    raise errors.UserError(f"config.data.path={path!r}: {name} is embedded and reads no file; leave it empty")

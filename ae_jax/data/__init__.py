"""Data sets as arrays: `load(name, path, range, one_class)` gives a `Dataset` whatever the source."""

import dataclasses
import hashlib

import numpy as np

from ae_jax import errors
from ae_jax.data import ranges, sources


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Images [N, H, W, C] or series [N, T, C], uint8 or float32, and labels [N] or None, for training and for testing."""

  name: str
  value_range: str  # a key of ranges.INTERVALS
  train: np.ndarray
  test: np.ndarray
  train_labels: np.ndarray | None
  test_labels: np.ndarray | None
  one_class: int = -1  # the label that all training examples have; -1: whatever they have

  @property
  def shape(self):
    """(H, W, C) of an image, (T, C) of a series."""
    return self.train.shape[1:]

  @property
  def anomalous(self):
    """Which test examples have another label than the training examples, bool [N]; None if those are of any label."""
    return None if self.one_class == -1 else self.test_labels != self.one_class

  @property
  def peak(self):
    """The width of the range, as PSNR needs it; of the training values where the range is "real" and not of bytes."""
    if self.value_range == "real" and self.train.dtype != np.uint8:
      return float(np.ptp(self.train)) or 1.0
    low, high = ranges.BYTE_SPANS[self.value_range]
    return high - low

  def fingerprint(self):
    """SHA-256 over shapes, types and contents of the examples: equal for equal data, on any machine."""
    digest = hashlib.sha256()
    for examples in (self.train, self.test):
      digest.update(f"{examples.dtype.str}{examples.shape}".encode())
      digest.update(np.ascontiguousarray(examples).data)
    return digest.hexdigest()


def load(name, path, range, one_class=-1):
  """The data set that `config.data` describes; UserError where it is absent, damaged or not what it should be.

  `name` is one of `sources.SOURCES` or of TensorFlow Datasets' image sets; `path` the `npz` file, the folder of a UCR
  set, or TFDS's folder ("" means TFDS's own choice); `range` is what the model is to see, one of `ranges.INTERVALS`.
  Unless `one_class` is -1, training keeps only the examples with this label; the test set stays whole.
  """
  errors.choose(ranges.INTERVALS, range, "data.range")
  source = sources.SOURCES.get(name, sources.tfds)
  arrays = source(name, path)
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  if one_class != -1:
    _keep_only(one_class, arrays, where)
  for key in ("train", "test"):
    if np.issubdtype(arrays[key].dtype, np.floating):
      with np.errstate(over="ignore"):  # too large for float32 is infinite, and found below
        arrays[key] = arrays[key].astype(np.float32)
    fault = ranges.fault(arrays[key], range) or _shape_fault(arrays[key], arrays["train"])
    if fault:
      raise errors.UserError(f"{where}: the array of {key} examples {fault}")
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: one training example; 2 or more are wanted")
  labels = [arrays.get(f"{half}_labels") for half in ("train", "test")]
  return Dataset(name, range, arrays["train"], arrays["test"], *labels, one_class)


def _keep_only(label, arrays, where):
  """Drops the training examples with another label from the arrays."""
  key = f"config.data.one_class={label!r}"
  for half in ("train", "test"):
    labels = arrays.get(f"{half}_labels")
    if labels is None:
      raise errors.UserError(f"{key}: {where} has no labels of its {half} examples; set it to -1")
    if not np.issubdtype(labels.dtype, np.integer):
      raise errors.UserError(f"{key}: {where} has labels of dtype {labels.dtype}; integers are wanted")
    if label not in labels:
      known = ", ".join(map(str, np.unique(labels)[:20]))
      raise errors.UserError(f"{key}: no {half} example of {where} has this label; it has {known}")
  kept = arrays["train_labels"] == label
  arrays["train"], arrays["train_labels"] = arrays["train"][kept], arrays["train_labels"][kept]


def _shape_fault(examples, train):
  if examples.ndim not in (3, 4):
    return f"has {examples.ndim} axes; [N, H, W] or [N, H, W, C] is wanted"
  if 0 in examples.shape:
    return f"has shape {examples.shape}: nothing in it"
  if examples.ndim == 4 and examples.shape[3] not in (1, 3):
    return f"has {examples.shape[3]} channels in its last axis; 1 or 3 are wanted"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}"
  return None

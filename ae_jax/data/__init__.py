"""Data sets as arrays: `load(name, path, range)` gives a `Dataset` whatever the source."""

import dataclasses
import hashlib

import numpy as np

from ae_jax import errors
from ae_jax.data import ranges, sources


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Images [N, H, W, C], uint8 or float32, and their integer labels [N] or None, for training and for testing."""

  name: str
  value_range: str  # a key of ranges.INTERVALS
  train: np.ndarray
  test: np.ndarray
  train_labels: np.ndarray | None
  test_labels: np.ndarray | None

  @property
  def shape(self):
    """(H, W, C)."""
    return self.train.shape[1:]

  @property
  def peak(self):
    """The width of the range, as PSNR needs it; of the training values where the range is "real" and not of bytes."""
    if self.value_range == "real" and self.train.dtype != np.uint8:
      return float(np.ptp(self.train)) or 1.0
    low, high = ranges.BYTE_SPANS[self.value_range]
    return high - low

  def fingerprint(self):
    """SHA-256 over shapes, types and contents of the images: equal for equal data, on any machine."""
    digest = hashlib.sha256()
    for images in (self.train, self.test):
      digest.update(f"{images.dtype.str}{images.shape}".encode())
      digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def load(name, path, range):
  """The data set that `config.data` describes; UserError where it is absent, damaged or not what it should be.

  `name` is one of `sources.SOURCES` or of TensorFlow Datasets' image sets; `path` the `npz` file, or TFDS's folder
  ("" means TFDS's own choice); `range` is what the model is to see, one of `ranges.INTERVALS`.
  """
  errors.choose(ranges.INTERVALS, range, "data.range")
  source = sources.SOURCES.get(name, sources.tfds)
  arrays = source(name, path)
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  for key in ("train", "test"):
    if np.issubdtype(arrays[key].dtype, np.floating):
      with np.errstate(over="ignore"):  # too large for float32 is infinite, and found below
        arrays[key] = arrays[key].astype(np.float32)
    fault = ranges.fault(arrays[key], range) or _shape_fault(arrays[key], arrays["train"])
    if fault:
      raise errors.UserError(f"{where}: the array of {key} images {fault}")
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: one training image; 2 or more are wanted")
  return Dataset(name, range, arrays["train"], arrays["test"], arrays.get("train_labels"), arrays.get("test_labels"))


def _shape_fault(images, train):
  if images.ndim != 4:
    return f"has {images.ndim} axes; [N, H, W] or [N, H, W, C] is wanted"
  if 0 in images.shape:
    return f"has shape {images.shape}: nothing in it"
  if images.shape[3] not in (1, 3):
    return f"has {images.shape[3]} channels in its last axis; 1 or 3 are wanted"
  if images.shape[1:] != train.shape[1:] or images.dtype != train.dtype:
    return f"is {images.dtype} {images.shape[1:]}, but the training images are {train.dtype} {train.shape[1:]}"
  return None

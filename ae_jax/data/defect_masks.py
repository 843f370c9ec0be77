"""Masks of the defects in test images, in the layout of MVTec AD (Bergmann et al. 2019).

The mask of test/CLASS/NAME.png is ground_truth/CLASS/NAME_mask.png or ground_truth/CLASS/NAME.png. Mask pixels of at
least 128 are defects. A class without a folder in ground_truth, such as `good`, has no defects.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ae_jax import errors
from ae_jax.data import decoding, lazy_arrays

FOLDER = "ground_truth"
_HALF = 128  # bytes of at least this value are defects


def applies(folders: Mapping[str, pathlib.Path]) -> bool:
  """Returns whether at least one class of test images has a folder of defect masks.

  `folders` is {split: folder of its images}.
  """
  if "test" not in folders or not (masks := _masks_beside(folders["test"])).is_dir():
    return False
  return any((masks / folder.name).is_dir() for folder in folders["test"].iterdir() if folder.is_dir())


def _masks_beside(folder: pathlib.Path) -> pathlib.Path:
  return folder.parent / FOLDER


def read(
  folder: pathlib.Path, files: Sequence[str], preparation: decoding.Preparation, shape: Sequence[int]
) -> lazy_arrays.LazyArray:
  """Returns the masks of test images as bytes [N, H, W, 1], 1 for defects.

  Args:
    folder: Folder of the test images.
    files: Paths of these images.
    preparation: How images are changed to their common shape; masks are changed in the same way.
    shape: Shape (H, W, C) of the images after this change.

  Raises:
    UserError: A class has a folder of masks, but one of its images has no mask. Reading the masks also raises UserError
      if a mask does not have the size of the images.
  """
  masks = _masks_of(files, folder)
  grey = dataclasses.replace(preparation, channels=1)
  size = (*shape[:2], 1)

  def read_rows(indices):
    rows = np.zeros((len(indices), *size), np.uint8)
    for row, index in zip(rows, indices, strict=True):
      if (mask := masks[index]) is not None:
        row[...] = decoding.decode(mask, str(mask), size, grey) >= _HALF
    return rows

  return lazy_arrays.LazyArray((len(files), *size), np.dtype(np.uint8), read_rows)


def _masks_of(files: Sequence[str], folder: pathlib.Path) -> list[pathlib.Path | None]:
  """Returns the mask of each image; None if its class has no folder of masks."""
  masks, by_class, found = _masks_beside(folder), {}, []
  for file in map(pathlib.Path, files):
    of_class = masks / file.relative_to(folder).parent
    if of_class not in by_class:
      names = [path for path in of_class.iterdir() if not path.is_symlink()] if of_class.is_dir() else None
      by_class[of_class] = None if names is None else {path.stem: path for path in names}
    stems = by_class[of_class]
    if stems is None:
      found.append(None)
      continue
    mask = stems.get(f"{file.stem}_mask", stems.get(file.stem))
    if mask is None:
      raise errors.UserError(f"{file} has no mask in {of_class}; add {file.stem}_mask.png")
    found.append(mask)
  return found

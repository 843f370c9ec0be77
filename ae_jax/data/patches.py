"""Cuts large images into patches (tiles that do not overlap), which become the examples of a data set."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays, splits


def check(patch: tuple) -> None:
  """Raises UserError unless `config.data.patch` is (), (height, width) or (side,)."""
  valid = isinstance(patch, tuple) and len(patch) <= 2 and all(type(side) is int and side > 0 for side in patch)
  errors.check(valid, "data.patch", patch, "(height, width) or ()")


def cut(arrays: dict[str, Any], patch: tuple[int, ...], where: str) -> list[str]:
  """Cuts the images of each split into patches, in place, and returns a list with one note about them.

  Call this function after the data are split, so that all patches of an image are in the same split. The patches of an
  image are consecutive, row by row. Arrays with the height and width of the images, such as masks, are also cut. In
  other arrays, such as labels, the row of an image is repeated for each patch; names end in "#" and the number of the
  patch.

  Args:
    arrays: Arrays {"train": images [N, H, W, C], "train_labels": labels [N], ...}.
    patch: `config.data.patch`; () leaves the images as they are.
    where: Prefix of messages.

  Raises:
    UserError: The examples are not images, or are smaller than a patch.
  """
  if not patch:
    return []
  key, height, width = f"config.data.patch={patch}", patch[0], patch[-1]
  if len(arrays["train"].shape) != 4:
    raise errors.UserError(f"{key}: {where} has no images; remove this key")
  size = arrays["train"].shape[1:3]
  rows, columns = size[0] // height, size[1] // width
  if not rows * columns:
    raise errors.UserError(f"{key}: the images of {where} have only {size[0]} x {size[1]} pixels; use smaller patches")
  for name in [name for split in splits.present(arrays) for name in splits.names(arrays, split)]:
    values = arrays[name]
    is_image = len(values.shape) == 4 and values.shape[1:3] == size
    arrays[name] = tiles(values, height, width) if is_image else _repeated(values, rows * columns)
    if name.endswith("_names"):
      numbers = np.arange(len(arrays[name])) % (rows * columns)
      arrays[name] = arrays[name] + np.array([f"#{number}" for number in numbers], object)
  lost = [f"{size[0] % height} rows at the lower edge"] * bool(size[0] % height)
  lost += [f"{size[1] % width} columns at the right edge"] * bool(size[1] % width)
  rest = f"; {' and '.join(lost)} of each image are not used" if lost else ""
  count = f"{rows} x {columns} patches of {height} x {width} pixels"
  return [f"{where}: each image of {size[0]} x {size[1]} pixels gives {count}{rest}"]


def corners(size: Sequence[int], height: int, width: int) -> list[tuple[int, int]]:
  """Returns the (row, column) of the upper left pixel of each patch; `size` is the size (H, W) of the image."""
  return list(itertools.product(range(0, size[0] - height + 1, height), range(0, size[1] - width + 1, width)))


def tiles(images: lazy_arrays.MaybeLazy, height: int, width: int) -> lazy_arrays.MaybeLazy:
  """Cuts images [N, H, W, C] into patches [N * rows * columns, height, width, C], in the order of `corners`."""
  rows, columns = images.shape[1] // height, images.shape[2] // width
  count, shape = rows * columns, (height, width, images.shape[3])
  if isinstance(images, np.ndarray):
    used = images[:, : rows * height, : columns * width]
    tiles = used.reshape(len(used), rows, height, columns, width, shape[2]).swapaxes(2, 3)
    return tiles.reshape(-1, *shape)

  def read(indices):
    # each image is read only once, even if several of its patches are requested
    distinct, inverse = np.unique(indices // count, return_inverse=True)
    patches = np.empty((len(indices), *shape), images.dtype)
    for position, image in enumerate(distinct):
      pixels = images.read(image[None])[0]
      for row in np.flatnonzero(inverse == position):
        top, left = (step * side for step, side in zip(divmod(indices[row] % count, columns), patch_sides, strict=True))
        patches[row] = pixels[top : top + height, left : left + width]
    return patches

  patch_sides = (height, width)
  return lazy_arrays.LazyArray((len(images) * count, *shape), images.dtype, read)


def _repeated(values: lazy_arrays.MaybeLazy, count: int) -> lazy_arrays.MaybeLazy:
  """Returns an array in which each row is repeated `count` times."""
  if isinstance(values, np.ndarray):
    return np.repeat(values, count, axis=0)
  shape = (len(values) * count, *values.shape[1:])
  return lazy_arrays.LazyArray(shape, values.dtype, lambda indices: values.read(indices // count))

"""Cuts new recordings into windows and new images into patches, in the same way as the training data of a run."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ae_jax.data import lazy_arrays, new_labels, patches, windows


class Cut(NamedTuple):
  """Examples that were cut from sources (files, or rows of an array) of equal size."""

  sources: Sequence[str]  # names of the files or rows
  names: Sequence[str]  # names of the examples, such as "record.npy[50:100]"; [] if the sources are too small
  x: lazy_arrays.MaybeLazy  # examples [N, *shape], if there are any
  labels: Shaped[np.ndarray, "examples ..."] | None = None  # None: the sources have no labels
  extra: Mapping[str, lazy_arrays.MaybeLazy] = {}  # {"target" or "mask": array [N, *shape]}, cut like `x`


def of_records(
  record: lazy_arrays.MaybeLazy,
  source: str,
  section: Mapping[str, Any],
  labels: Shaped[np.ndarray, "steps ..."] | None = None,
  normal: str | None = None,
  pieces: Sequence[int] = (),
) -> Cut:
  """Cuts a recording [T] or [T, C] into windows as set in `section`, i.e. `config.data`; see `windows.of_record`.

  The name of a window is a slice of time steps, such as "record.npy[50:100]". `labels` are those of the steps, and
  `normal` is the name or label of the normal class. No window contains steps of two of the `pieces`, which are lengths;
  () for a single piece.
  """
  window, stride = section["window"], section["stride"] or section["window"]
  starts = windows.starts_of(pieces or (len(record),), window, stride)
  if not len(starts):
    return Cut([source], [], record)
  x = windows.of_record(record, window, stride, source, pieces)
  of_windows = None if labels is None else new_labels.of_windows(labels, window, starts, normal)
  return Cut([source], [f"{source}[{first}:{first + window}]" for first in starts], x, of_windows)


def of_images(
  images: lazy_arrays.MaybeLazy,
  sources: Sequence[str],
  section: Mapping[str, Any],
  labels: Shaped[np.ndarray, "images ..."] | None = None,
) -> Cut:
  """Cuts images [N, H, W, C] into patches as configured in `section`, i.e. `config.data`.

  Without `config.data.patch`, the images are returned. The name of a patch contains the row and the column of its upper
  left pixel, such as "photo.png[0,64]". `labels` are those of the images.
  """
  patch, size = section["patch"], images.shape[1:3]
  if not patch:
    return Cut(sources, sources, images, labels)
  height, width = patch[0], patch[-1]
  corners = patches.corners(size, height, width)
  if not corners:
    return Cut(sources, [], images)
  names = [f"{source}[{row},{column}]" for source, (row, column) in itertools.product(sources, corners)]
  of_patches = None if labels is None else np.repeat(labels, len(corners), 0)
  return Cut(sources, names, patches.tiles(images, height, width), of_patches)

"""Names of the examples of a data set: file paths for images, row numbers for other sources."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax.data import folders, image_sets, splits
from ae_jax.data.dataset import Dataset
from ae_jax.system import paths

_OF_IMAGES = ("size", "fit", "channels", "on_bad", "exif_orientation", "follow_links")


def of_splits(dataset: Dataset, section: Mapping[str, Any]) -> dict[str, Shaped[np.ndarray, " examples"]]:
  """Returns {split: names [N]} for the splits that exist.

  The name of an image is the path of its file in the folder. The name of a patch also has "#" and the number of the
  patch in its image. Other examples are named by their row, counted from 0. Examples that were drawn from the training
  examples of the source are named by their row there.

  Args:
    dataset: The data set.
    section: `config.data`, with the path from which the data set was read.
  """
  sizes = {split: len(getattr(dataset, split)) for split in splits.SPLITS if getattr(dataset, split) is not None}
  rows = {split: dataset.rows.get(split, np.arange(count)) for split, count in sizes.items()}
  if section["name"] != "folder":
    return {split: positions.astype(str) for split, positions in rows.items()}
  found = folders.scan(
    section["path"], image_sets.options(**{key: section[key] for key in _OF_IMAGES}), section["read_validation"]
  )
  names = {}
  for split, positions in rows.items():
    files = np.array(
      [paths.relative_name(file, section["path"]) for file in found.files.get(split, found.files["train"])]
    )
    patches = -(-sizes[split] // len(files)) if split not in dataset.rows else _repeats(positions)
    positions = positions if split in dataset.rows else positions // patches
    names[split] = files[positions]
    if section["patch"]:
      numbers = np.arange(len(positions)) % patches
      names[split] = np.char.add(np.char.add(names[split], "#"), numbers.astype(str))
  return names


def _repeats(positions: Shaped[np.ndarray, " examples"]) -> int:
  """Returns how often each position occurs; all positions occur equally often."""
  return int(np.count_nonzero(positions == positions[0])) if len(positions) else 1

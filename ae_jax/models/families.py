"""The model families: their build functions, the data that they accept, and options that depend on the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ae_jax import errors
from ae_jax.models import convolutional, cvae, dense, linear_paths, sequence, tabular, transformer, unet, vqvae
from ae_jax.types import KINDS

# config.model.name -> function that builds the module from the shape of an example and the options of config.model.
FAMILIES = {
  "attention": transformer.build,
  "cnn": convolutional.build,
  "cvae": cvae.build,
  "dense": dense.build,
  "sequence": sequence.build,
  "table": tabular.build,
  "unet": unet.build,
  "vqvae": vqvae.build,
}

# Families that choose their stages from the size of the examples if config.model.channels is (). The functions map the
# shape of an example and the options of config.model to the chosen options.
AUTOMATIC = {"cnn": convolutional.automatic_options, "unet": unet.automatic_options}

# Family -> accepted numbers of axes of an example: 1 for tables, 2 for series, 3 for images. Families that are not
# listed accept any number.
AXES = {"attention": (3, 2), "cnn": (3, 2), "sequence": (2,), "table": (1,), "unet": (3, 2), "vqvae": (3,)}

# Family -> number of pixels or time steps whose intermediates fit in the cache of a CPU, measured by
# experiments/throughput/microbatches.py; 65,536 are 16 images of 64x64. Families that are not listed are fastest with
# the whole batch at once.
_PIXELS_IN_CACHE = {"attention": 200_704, "cnn": 131_072, "unet": 65_536, "vqvae": 65_536}
_FEWEST_ROWS = 4  # smaller microbatches are slower, because the batch is the contiguous axis of images

# Families conditioned on labels. Their `build` functions take the distinct labels as the second argument.
LABELLED = {"cvae"}

# Families whose encoders ignore elements that were not observed. The second argument of their `build` functions is
# `masked`, which says whether the data have a mask.
MASKED = {"sequence"}

# Families that compute with the batch as the last axis.
BATCH_LAST = {"cnn", "unet", "vqvae"}


def rows_in_cache(name: str, shape: tuple[int, ...]) -> int | None:
  """Returns the largest number of examples in a microbatch on CPU; None if the whole batch at once is fastest.

  Args:
    name: Family.
    shape: Shape [H, W, C], [T, C] or [D] of an example.
  """
  if name not in _PIXELS_IN_CACHE:
    return None
  return max(_FEWEST_ROWS, _PIXELS_IN_CACHE[name] // math.prod(shape[:-1]))


def check_kind(name: str, shape: tuple[int, ...]) -> None:
  """Raises UserError if the family does not accept examples with this number of axes."""
  axes = len(shape)
  if axes in AXES.get(name, (axes,)):
    return
  plural = KINDS | {1: "tables"}
  taken = " or ".join(plural[count] for count in AXES[name])
  suitable = ", ".join(family for family in FAMILIES if axes in AXES.get(family, (axes,)))
  hint = "; if they are series [T, C], set config.data.kind='series'" if axes == 3 and 2 in AXES[name] else ""
  if axes == 4 and 3 in AXES[name]:
    hint = f", or train on the slices of the volumes as images: x.reshape(-1, {', '.join(map(str, shape[1:]))})"
  raise errors.UserError(
    f"config.model.name={name!r} expects {taken}, but these data are {plural[axes]}; use one of {suitable}{hint}"
  )


def completed(options: Mapping[str, Any], shape: Sequence[int], linear_path: bool = True) -> dict[str, Any]:
  """Returns the options of `config.model`, in which the automatic values () and "auto" are replaced.

  For a family in `AUTOMATIC`, `channels=()` is replaced by stages that are chosen from the shape of the examples.
  `linear_path="auto"` is replaced by "pca" if the model can have a linear path, otherwise by "none".

  Args:
    options: `config.model`.
    shape: Shape of an example.
    linear_path: Whether the objective permits a linear path.
  """
  result = linear_paths.resolved(options, linear_path)
  name = result.get("name")
  if result.get("channels") == () and name in AUTOMATIC and len(shape) in AXES[name]:
    result |= AUTOMATIC[name](tuple(shape), result)
  return result

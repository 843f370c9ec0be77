"""Writes the reconstructions of images as PNG files that are named like the images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from ae_jax import errors
from ae_jax.data import decoding, ranges
from ae_jax.decisions import rows, scores

Span = tuple[float, float]  # (value drawn as black, value drawn as white)


def check(folder: pathlib.Path, run: Any, kept: Mapping[str, pathlib.Path]) -> None:
  """Raises UserError if the examples of a run are not images, or if pictures in `folder` could overwrite data.

  Args:
    folder: The folder for the pictures.
    run: A `trained_run.Run`.
    kept: Paths that must not be overwritten; see `rows.kept_files`.
  """
  if len(run.model.shape) != 3 or run.model.shape[2] > 4:
    raise errors.UserError("--pictures: the examples of this run are not images; remove this flag")
  target = folder.resolve()
  for key, source in kept.items():
    origin = source.resolve()
    nested = source.is_dir() and (origin in target.parents or target in origin.parents)
    if nested or rows.is_same(folder, source) or rows.is_same(_file(folder, source.name), source):
      raise errors.UserError(
        f"--pictures={folder}: writing images here could overwrite files of {key} ({source}); choose a folder outside "
        "this path that does not contain it"
      )


def span_of(values: Float32[np.ndarray, "examples ..."], value_range: str) -> tuple[Span, list[str]]:
  """Returns the values drawn as black and white, and a list with a note if these depend on the examples.

  They are the ends of the data range or, for examples in the range "real" that exceed [0, 1], the smallest and the
  largest value of the examples.
  """
  black, white, _ = ranges.SPANS[value_range]
  if value_range != "real" or (values.min() >= black and values.max() <= white):
    return (black, white), []
  low, high = ranges.extent(values)
  examples = f"the range of the first {len(values):,} examples"
  return (low, high), [f"--pictures: black is {low:.4g} and white is {high:.4g}, {examples}"]


def write(folder: pathlib.Path, names: Sequence[str], run: Any, inputs: scores.Inputs, span: Span) -> None:
  """Writes the reconstruction of each example to NAME.png."""
  images = run.conversion.invert(run.apply("reconstruct", inputs.x, inputs.columns))
  for name, image in zip(names, images, strict=True):
    decoding.write_png(_file(folder, name), image, *span)


def _file(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of the picture of the example `name`."""
  return folder / (name if name.endswith(".png") else f"{name}.png")

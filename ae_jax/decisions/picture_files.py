"""Reconstructions of images as PNG files, with the names of the images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from ae_jax import errors
from ae_jax.data import decoding, ranges
from ae_jax.decisions import rows, scores

Span = tuple[float, float]  # values that are black and white


def check(folder: pathlib.Path, run: Any, kept: Mapping[str, pathlib.Path]) -> None:
  """Raises UserError unless the reconstructions of a run are images, and cannot replace data in a folder.

  Args:
    folder: The folder of the pictures.
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
        f"--pictures={folder}: pictures could replace files of {key} ({source}); use a folder that neither "
        "contains this path nor is inside it"
      )


def span_of(values: Float32[np.ndarray, "examples ..."], value_range: str) -> tuple[Span, list[str]]:
  """Returns the values that are black and white in pictures of examples, and a remark if they depend on the examples.

  Bytes and examples in [0, 1] need no other interval than that of their range. Other examples in the range "real", such
  as floats up to 255, need that from their smallest to their largest value.
  """
  black, white, _ = ranges.SPANS[value_range]
  if value_range != "real" or (values.min() >= black and values.max() <= white):
    return (black, white), []
  low, high = ranges.extent(values)
  examples = f"the range of the first {len(values):,} examples"
  return (low, high), [f"--pictures: black is {low:.4g} and white is {high:.4g}, {examples}"]


def write(folder: pathlib.Path, names: Sequence[str], run: Any, inputs: scores.Inputs, span: Span) -> None:
  """Writes the reconstructions of examples as NAME.png."""
  images = run.conversion.invert(run.apply("reconstruct", inputs.x, inputs.columns))
  for name, image in zip(names, images, strict=True):
    decoding.write_png(_file(folder, name), image, *span)


def _file(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the file of the picture of an example."""
  return folder / (name if name.endswith(".png") else f"{name}.png")

"""Selects the channels that a figure shows: those of grey and RGB images, and some of other images and of series."""

import dataclasses
from typing import Any

import numpy as np

from ae_jax.evaluators import figures

OF_SERIES = 6  # maximum number of channels of series


def shown(images: np.ndarray) -> np.ndarray:
  """Returns the first channel of images [..., C] if C is 2, the first three if C is 4 or more, else all channels."""
  count = images.shape[-1]
  return images if count in (1, 3) else images[..., :1] if count == 2 else images[..., :3]


def titled(figure: Any) -> Any:
  """Returns a figure whose title says which channels are shown, if these are not all channels of its images."""
  if isinstance(figure, figures.ExampleRows):
    examples, axes = next(iter(figure.rows.values())), 4
  elif isinstance(figure, figures.Gallery | figures.Points | figures.Attention):
    examples, axes = figure.examples, 4
  elif isinstance(figure, figures.Explorer):
    examples, axes = figure.examples, 6
  else:
    return figure
  count = examples.shape[-1]
  if examples.ndim == axes - 1 and count > OF_SERIES:
    return dataclasses.replace(figure, title=f"{figure.title} (channels 1 to {OF_SERIES} of {count})")
  if examples.ndim != axes or count in (1, 3):
    return figure
  part = "channel 1" if count == 2 else "channels 1 to 3 as RGB"
  return dataclasses.replace(figure, title=f"{figure.title} ({part}, of {count} channels)")


def first_of_series(figure: Any) -> Any:
  """Returns a figure of series with the first `OF_SERIES` channels only."""
  if not isinstance(figure, figures.ExampleRows):
    return dataclasses.replace(figure, examples=figure.examples[..., :OF_SERIES])
  rows = {name: examples[..., :OF_SERIES] for name, examples in figure.rows.items()}
  observed = None if figure.observed is None else figure.observed[..., :OF_SERIES]
  return dataclasses.replace(figure, rows=rows, observed=observed)

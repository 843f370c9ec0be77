"""Selects the channels of images that a figure shows: all channels of grey and RGB images, and some of other images."""

import dataclasses
from typing import Any

import numpy as np

from ae_jax.evaluators import figures


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
  if examples.ndim != axes or count in (1, 3):
    return figure
  part = "channel 1" if count == 2 else "channels 1 to 3 as RGB"
  return dataclasses.replace(figure, title=f"{figure.title} ({part}, of {count} channels)")

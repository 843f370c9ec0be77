"""Prepares figures of examples for drawing: rows of tables, slices of volumes, large images, and missing values."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ae_jax.data import ranges
from ae_jax.data.schema import Schema
from ae_jax.evaluators import figures

_LARGEST_SIDE = 256  # pixels; larger images are not drawn larger, and their files would be large
_X_LABELS = {"table": "column", "series": "time step"}


def drawable(
  figure: Any, kind: str, names: tuple[str, ...] = (), value: str = "value", channels: tuple[str, ...] = ()
) -> Any:
  """Returns a figure whose examples can be drawn as images or as plots with labelled axes.

  The row of a table becomes an array [columns, 1]. A volume is replaced by its middle slice, which the title names.
  Images with a side of more than `_LARGEST_SIDE` pixels are reduced, except those with attention weights.

  Args:
    figure: Figure of an evaluator, or another result of an analysis, which is returned unchanged.
    kind: Kind of the examples, a value of `types.KINDS`.
    names: Names of the columns of a table.
    value: Name of the values of a table or series.
    channels: Names of the channels of series; () if they have none.
  """
  if not isinstance(figure, figures.Plotted) or (kind == "images" and isinstance(figure, figures.Attention)):
    return figure
  if kind in _X_LABELS:
    figure = dataclasses.replace(figure, x_label=_X_LABELS[kind], y_label=value, x_names=names, channels=channels)
  convert = _CONVERSIONS[kind]
  examples = next(iter(figure.rows.values())) if isinstance(figure, figures.ExampleRows) else figure.examples
  title = figure.title
  if kind == "volumes":
    depth = examples.shape[-4]
    title = f"{title} (slice {depth // 2 + 1} of {depth})"
  if isinstance(figure, figures.ExampleRows):
    rows = {name: convert(examples) for name, examples in figure.rows.items()}
    observed = None if figure.observed is None else convert(figure.observed)
    return dataclasses.replace(figure, title=title, rows=rows, observed=observed)
  return dataclasses.replace(figure, title=title, examples=convert(figure.examples))


def shrunk(images: Float[np.ndarray, "*n h w c"], side: int) -> Float[np.ndarray, "*n rows columns c"]:
  """Downsamples images to sides of at most `side` pixels, by averaging squares of pixels."""
  *count, height, width, channels = images.shape
  factor = -(-max(height, width) // side)
  if factor == 1:
    return images
  margins = [(0, 0)] * len(count) + [(0, -height % factor), (0, -width % factor), (0, 0)]
  padded = np.pad(images, margins, mode="edge")
  blocks = (padded.shape[-3] // factor, factor, padded.shape[-2] // factor, factor, channels)
  return padded.reshape(*count, *blocks).mean((-4, -2))


def observed(
  schema: Schema | None, examples: Float[np.ndarray, "n ..."], mask: Bool[np.ndarray, "n ..."] | None
) -> Bool[np.ndarray, "n ..."] | None:
  """Returns the mask of the elements that are not missing in the data; None if no element is missing.

  Args:
    schema: Columns of a table; None for other data.
    examples: Examples in the units of the model.
    mask: Mask of the elements that enter the loss; None: all elements.
  """
  if schema is not None:
    mask = schema.observed(np.where(schema.known_columns(examples, mask), 0.0, np.nan))
  return None if mask is None or mask.all() else mask


def is_hatched(kind: str) -> bool:
  """Returns whether `marked` hatches missing values; `kind` is the kind of the examples, a value of `types.KINDS`."""
  return kind in ("images", "volumes")


def marked(
  examples: Float[np.ndarray, "n ..."], known: Bool[np.ndarray, "n ..."], kind: str, span: ranges.Span
) -> Float[np.ndarray, "n ..."]:
  """Returns examples in which the values that are not `known` are marked.

  Pixels are replaced by a pattern of stripes; values of series and tables become NaN, which figures leave out.
  """
  if not is_hatched(kind):
    return np.where(known, examples, np.float32(np.nan))
  stripes = np.add(*np.indices(examples.shape[-3:-1])) // 2 % 2
  pattern = np.where(stripes, span.low, span.high)[..., None]
  return np.where(known, examples, pattern).astype(np.float32)


_CONVERSIONS = {
  "images": lambda x: shrunk(x, _LARGEST_SIDE),
  "series": lambda x: x,
  "table": lambda x: x[..., None],
  "volumes": lambda x: shrunk(x[..., x.shape[-4] // 2, :, :, :], _LARGEST_SIDE),
}

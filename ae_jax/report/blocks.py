"""Converts figures to blocks: dicts that template.html renders as the elements of an HTML page."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ae_jax.evaluators import figures
from ae_jax.report import channels, charts, pictures, sprites

_MAX_ROWS = 64  # maximum number of rows of images in a figure
_MAX_COLUMNS = 64  # maximum number of images in a row
_MAP_PIXELS = 1_600_000  # maximum number of pixels of all images of `figures.Points`
_EXPLORER_PIXELS = 4_000_000  # maximum number of pixels of all images of `figures.Explorer`
_HALF_WIDTH_BARS = 40  # maximum number of bars in a chart of half the page width
_GREY = len(sprites.INKS) - 1  # index of the grey colour in `sprites.INKS`

Block = dict[str, Any]


def of_figure(figure: pictures.Figure, value_range: str) -> Block:
  """Returns the block {"kind", "title", ...} that shows a figure.

  Args:
    figure: Figure of an evaluator.
    value_range: Value range of the examples, a key of `ranges.INTERVALS`.
  """
  block = _KINDS[type(figure)](figure, value_range)
  return block if block["kind"] == "chart" else block | {"title": channels.titled(figure).title}


def rows(named_examples: Mapping[str, np.ndarray], low: float, high: float) -> Block:
  """Returns a block with a row of images for each entry of {name: examples [N, ...]}; the name labels the row.

  `low` and `high` are the limits of the grey scale of images, or of the y axis of series.
  """
  strips = [(name, _row(examples, low, high)) for name, examples in named_examples.items()]
  return {"kind": "rows", "rows": strips}


def chart(title: str, item: Mapping[str, Any], wide: bool = False) -> Block:
  """Returns a block that shows `item`, a chart from a function of `charts`; `wide` charts take the full page width."""
  return {"kind": "chart", "title": title, "wide": wide, **item}


def _rows(figure: figures.ExampleRows, value_range: str) -> Block:
  named_examples = dict([*figure.rows.items()][:_MAX_ROWS])
  first, *others = named_examples.values()
  low, high = pictures.limits(first, value_range)
  if first.ndim == 3 and pictures.reconstructed(figure):
    groups = [(first, [_GREY] * first.shape[-1]), (others[0], [1] * first.shape[-1])]
    sheet = sprites.sheet(sprites.drawn(groups, low, high, 72, 160), 8, smooth=True)
    return {"kind": "gallery", "sheet": sheet, "note": "grey: original; orange: reconstruction"}
  block = rows(named_examples, low, high)
  if pictures.reconstructed(figure):
    difference = (others[0] - first)[:_MAX_COLUMNS].mean(-1, keepdims=True)
    block["rows"].append(("difference", _strip(sprites.of_differences(difference, high - low))))
    block["note"] = "red: too bright; blue: too dark"
  return block


def _row(examples: np.ndarray, low: float, high: float) -> sprites.Sheet:
  return _strip(sprites.of_examples(examples[:_MAX_COLUMNS], low, high), smooth=examples.ndim == 3)


def _strip(images: UInt8[np.ndarray, "n h w *c"], smooth: bool = False) -> sprites.Sheet:
  return sprites.sheet(images, len(images), gap=1, smooth=smooth)


def _gallery(figure: figures.Gallery, value_range: str) -> Block:
  examples = figure.examples
  images = sprites.of_examples(examples, *pictures.limits(examples, value_range))
  return {"kind": "gallery", "sheet": sprites.sheet(images, _square(len(images)), smooth=examples.ndim == 3)}


def _explorer(figure: figures.Explorer, value_range: str) -> Block:
  pairs, steps = figure.examples.shape[:2]
  examples = figure.examples.reshape(-1, *figure.examples.shape[3:])
  images = sprites.of_examples(examples, *pictures.limits(examples, value_range), _side(examples, _EXPLORER_PIXELS))
  sheet = sprites.sheet(images, steps, shown=224, smooth=examples.ndim == 3)
  names = [figure.names[2 * pair : 2 * pair + 2] for pair in range(pairs)]
  return {"kind": "explorer", "sheet": sheet, "pairs": names, "positions": [float(p) for p in figure.positions]}


def _points(figure: figures.Points, value_range: str) -> Block:
  examples = figure.examples
  images = sprites.of_examples(examples, *pictures.limits(examples, value_range), _side(examples, _MAP_PIXELS))
  sheet = sprites.sheet(images, _square(len(images)), shown=84, smooth=examples.ndim == 3)
  return {"kind": "map", "sheet": sheet, "views": [*figure.views]} | charts.points(figure, sheet)


def _attention(figure: figures.Attention, value_range: str) -> Block:
  examples = figure.examples[:_MAX_COLUMNS]
  block = rows({"examples": examples}, *pictures.limits(examples, value_range))
  for name, weights in [*pictures.heads(figure)][:_MAX_ROWS]:
    if examples.ndim == 4:
      images = sprites.of_weights(weights[:_MAX_COLUMNS])
    else:
      images = sprites.of_examples(weights[:_MAX_COLUMNS], 0.0, max(float(weights.max()), 1e-30))
    block["rows"].append((name, _strip(images, smooth=examples.ndim == 3)))
  return block | {"note": "attention weights averaged over the queries; each row is scaled from 0 to its maximum"}


def _side(examples: np.ndarray, max_pixels: int) -> int:
  """Returns the side length in pixels to which the longer side of each image is reduced.

  The length is between 4 and `sprites.SIDE`. All images together have at most `max_pixels` pixels, unless the length is
  4.
  """
  height, width = examples.shape[1:3] if examples.ndim == 4 else (1, 1)
  longer = int(max(height, width) * min(1.0, (max_pixels / (len(examples) * height * width)) ** 0.5))
  return max(4, min(sprites.SIDE, longer))


def _square(count: int) -> int:
  """Returns the number of columns of a nearly square grid of `count` cells."""
  return max(1, round(count**0.5))


_KINDS: dict[type, Callable[[Any, str], Block]] = {
  figures.ExampleRows: _rows,
  figures.Gallery: _gallery,
  figures.Heatmap: lambda figure, _: chart(figure.title, charts.heatmap(figure)),
  figures.Bars: lambda figure, _: chart(figure.title, charts.bars(figure), len(figure.values) > _HALF_WIDTH_BARS),
  figures.Lines: lambda figure, _: chart(figure.title, charts.lines(figure)),
  figures.Points: _points,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}

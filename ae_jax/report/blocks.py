"""Converts figures to blocks: dicts that template.html renders as the elements of an HTML page."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ae_jax.evaluators import figures
from ae_jax.report import canvas, channels, charts, example_figures, example_plots, pictures, sprites, timelines

_MAX_ROWS = 64  # maximum number of rows of images in a figure
_MAX_COLUMNS = 64  # maximum number of images in a row
_MAP_PIXELS = 1_600_000  # maximum number of pixels of all images of `figures.Points`
_EXPLORER_PIXELS = 4_000_000  # maximum number of pixels of all images of `figures.Explorer`
_MAX_NAMES = 30  # maximum number of columns of a table that a note names
_HALF_WIDTH_BARS = 40  # maximum number of bars in a chart of half the page width

Block = dict[str, Any]


def of_figure(figure: pictures.Figure, value_range: str) -> Block:
  """Returns the block {"kind", "title", ...} that shows a figure.

  Args:
    figure: Figure of an evaluator.
    value_range: Value range of the examples, a key of `ranges.INTERVALS`.
  """
  title = channels.titled(figure).title if isinstance(figure, figures.Plotted) else figure.title
  if not isinstance(figure, figures.Explorer) and example_plots.applies(figure):
    picture = example_plots.figure(dataclasses.replace(figure, title=""), value_range)
    return {"kind": "picture", "title": title, "url": canvas.data_url(picture)}
  return _KINDS[type(figure)](figure, value_range) | {"title": title}


def chart(title: str, item: Mapping[str, Any], wide: bool = False) -> Block:
  """Returns a block that shows `item`, a chart from a function of `charts`; `wide` charts take the full page width."""
  return {"kind": "chart", "title": title, "wide": wide, **item}


def _rows(figure: figures.ExampleRows, value_range: str) -> Block:
  named_examples = dict([*figure.rows.items()][:_MAX_ROWS])
  low, high = example_figures.limits(next(iter(named_examples.values())), value_range)
  block: Block = {"kind": "rows", "rows": [(name, _row(x, low, high)) for name, x in named_examples.items()]}
  if figure.captions:
    block["captions"] = figure.captions[:_MAX_COLUMNS]
  if (found := example_figures.difference(figure)) is not None:
    difference, block["note"] = found
    block["rows"].append(("difference", _strip(sprites.of_differences(difference[:_MAX_COLUMNS], high - low))))
  return block


def _row(examples: np.ndarray, low: float, high: float) -> sprites.Sheet:
  return _strip(sprites.of_examples(examples[:_MAX_COLUMNS], low, high))


def _strip(images: UInt8[np.ndarray, "n h w *c"]) -> sprites.Sheet:
  return sprites.sheet(images, len(images), gap=1)


def _gallery(figure: figures.Gallery, value_range: str) -> Block:
  examples = figure.examples
  images = sprites.of_examples(examples, *example_figures.limits(examples, value_range))
  return {"kind": "gallery", "sheet": sprites.sheet(images, _square(len(images)))}


def _explorer(figure: figures.Explorer, value_range: str) -> Block:
  pairs, steps = figure.examples.shape[:2]
  images = _thumbnails(figure, figure.examples.reshape(-1, *figure.examples.shape[3:]), value_range, _EXPLORER_PIXELS)
  sheet = sprites.sheet(images, steps, shown=224, smooth=figure.examples.ndim == 5)
  names = [figure.names[2 * pair : 2 * pair + 2] for pair in range(pairs)]
  positions = [float(position) for position in figure.positions]
  return {"kind": "explorer", "sheet": sheet, "pairs": names, "positions": positions} | _axis_note(figure)


def _points(figure: figures.Points, value_range: str) -> Block:
  images = _thumbnails(figure, figure.examples, value_range, _MAP_PIXELS)
  sheet = sprites.sheet(images, _square(len(images)), shown=84, smooth=figure.examples.ndim == 3)
  block = {"kind": "map", "sheet": sheet, "views": [*figure.views]} | charts.points(figure, sheet)
  return block | _axis_note(figure)


def _timelines(figure: figures.Timelines, value_range: str) -> Block:
  del value_range
  return {"kind": "picture", "url": canvas.data_url(timelines.figure(dataclasses.replace(figure, title="")))}


def _thumbnails(
  figure: figures.Plotted, examples: np.ndarray, value_range: str, max_pixels: int
) -> UInt8[np.ndarray, "n h w *c"]:
  """Renders the examples of an interactive figure; a series is a line, and a table row has one mark for each column."""
  low, high = example_figures.limits(examples, value_range)
  return sprites.of_examples(examples, low, high, _side(examples, max_pixels), joined=not figure.x_names)


def _axis_note(figure: figures.Points | figures.Explorer) -> Block:
  """Returns the note about the axis and the colours of thumbnails of series and table rows; {} for images."""
  if not figure.x_label:
    return {}
  if not figure.x_names:
    count = figure.examples.shape[-1]
    colours = ", ".join(f"{number} {ink}" for number, ink in enumerate([*sprites.INKS][:count], 1))
    return {
      "note": f"horizontal axis: {figure.x_label}" + (f"; colours of the channels: {colours}" if count > 1 else "")
    }
  more = ", ..." if len(figure.x_names) > _MAX_NAMES else ""
  return {"note": f"an example has one mark for each column: {', '.join(figure.x_names[:_MAX_NAMES])}{more}"}


def _attention(figure: figures.Attention, value_range: str) -> Block:
  examples = figure.examples[:_MAX_COLUMNS]
  strips = [("examples", _row(examples, *example_figures.limits(examples, value_range)))]
  for name, weights in [*example_figures.heads(figure)][:_MAX_ROWS]:
    strips.append((name, _strip(sprites.of_weights(weights[:_MAX_COLUMNS]))))
  note = "attention weights averaged over the queries; each row is scaled from 0 to its maximum"
  return {"kind": "rows", "rows": strips, "note": note}


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
  figures.Timelines: _timelines,
  figures.Points: _points,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}

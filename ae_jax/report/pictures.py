"""Saves figures as PNG files. `_KINDS` maps each type of figure to the function that saves it."""

import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ae_jax.evaluators import figures
from ae_jax.report import canvas, channels, example_figures, example_plots, plots, timelines

_MAX_ROWS = 49  # maximum number of rows of images; more would be unreadable
_CAPTION_LETTERS = 16  # maximum number of letters of a line above an image
_MAX_GRIDS = 6  # maximum number of grids beside each other

Figure = (
  figures.ExampleRows
  | figures.Gallery
  | figures.Heatmap
  | figures.Bars
  | figures.Lines
  | figures.Timelines
  | figures.Points
  | figures.Explorer
  | figures.Attention
)


def draw(path: pathlib.Path, item: Figure, value_range: str) -> None:
  """Saves a figure as a PNG file.

  Args:
    path: PNG file to write.
    item: Figure of an evaluator.
    value_range: Value range of the examples, a key of `ranges.INTERVALS`.
  """
  if example_plots.applies(item):
    example_plots.figure(channels.titled(item), value_range).savefig(path)
  else:
    _KINDS[type(item)](path, channels.titled(item), value_range)


def _rows(path: pathlib.Path, item: figures.ExampleRows, value_range: str) -> None:
  """Saves the rows of examples.

  If the rows are images, reconstructions and perhaps targets, another row shows the differences, which the title
  explains.
  """
  low, high = example_figures.limits(next(iter(item.rows.values())), value_range)
  rows = [(name, images, low, high, "gray", high) for name, images in item.rows.items()]
  title = item.title
  if (found := example_figures.difference(item)) is not None:
    difference, note = found
    rows.append(("difference", difference, low - high, high - low, "RdBu_r", 0.0))
    title = f"{title} ({note})"
  _strips(path, rows, title, item.captions)


def _gallery(path: pathlib.Path, item: figures.Gallery, value_range: str) -> None:
  """Saves the examples of a gallery as a nearly square grid."""
  columns = max(1, round(len(item.examples) ** 0.5))
  _grids(path, item.examples[None], [""], columns, value_range, item.title)


def _explorer(path: pathlib.Path, item: figures.Explorer, value_range: str) -> None:
  """Saves a grid for each pair of latent directions; the first varies over the rows, the second over the columns."""
  groups = item.examples.reshape(len(item.examples), -1, *item.examples.shape[3:])
  names = [f"{down} down, {across} across" for down, across in zip(*[iter(item.names)] * 2, strict=True)]
  _grids(path, groups, names, len(item.positions), value_range, item.title)


def _grids(
  path: pathlib.Path, groups: np.ndarray, names: Sequence[str], columns: int, value_range: str, title: str
) -> None:
  """Saves the first groups of examples [groups, N, ...] beside each other, each as a grid with `columns` columns."""
  groups = groups[:_MAX_GRIDS]
  figure = canvas.figure(4 * len(groups), 4.3, title)
  low, high = example_figures.limits(groups, value_range)
  for axes, name, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, names, groups, strict=False):
    canvas.bare(axes)
    axes.set_title(name, fontsize=7)
    group = channels.shown(group)
    missing = -len(group) % columns
    padded = np.concatenate([group, np.full((missing, *group.shape[1:]), high, group.dtype)])
    strips = [_strip(padded[first : first + columns], high) for first in range(0, len(padded), columns)]
    square = _strip(np.stack(strips).swapaxes(1, 2), high).swapaxes(0, 1)
    square = np.clip((square - low) / (high - low), 0.0, 1.0)
    axes.imshow(square, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
  figure.savefig(path)


def _attention(path: pathlib.Path, item: figures.Attention, value_range: str) -> None:
  """Saves a row of images, and below it a row of attention weights for each head of each layer."""
  low, high = example_figures.limits(item.examples, value_range)
  rows = [("test images", item.examples, low, high, "gray", high)]
  rows += [(name, weights, 0.0, float(weights.max()), "viridis", 0.0) for name, weights in example_figures.heads(item)]
  _strips(path, rows[:_MAX_ROWS], f"{item.title} (each row is scaled from 0 to its maximum)")


def _strips(path: pathlib.Path, rows: Sequence[tuple[Any, ...]], title: str, captions: Sequence[str] = ()) -> None:
  """Saves rows of images.

  Args:
    path: PNG file to write.
    rows: Tuples (name, images [N, H, W, C], low, high, colour map, gap). `low` and `high` are the values at the ends of
      the colour map, and `gap` is the value of the pixels between images.
    title: Title above the rows.
    captions: Text above each image of the first row; () for none.
  """
  # lines may also end after a "/"
  fill = lambda part: textwrap.fill(part.replace("/", "/ "), _CAPTION_LETTERS).replace("/ ", "/")
  wrapped = ["\n".join(map(fill, caption.split(", "))) for caption in captions]
  room = 0.08 * max((caption.count("\n") + 1 for caption in wrapped), default=0)
  figure = canvas.figure(len(rows[0][1]) * 0.7 + 1.3, 0.88 * len(rows) + 0.46 + room, title)
  grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
  for axes, (name, images, low, high, colours, gap) in zip(grid, rows, strict=True):
    strip = _strip(channels.shown(images), gap)
    if strip.shape[-1] == 1:
      axes.imshow(strip[..., 0], cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    else:
      axes.imshow(np.clip((strip - low) / (high - low), 0.0, 1.0), interpolation="nearest")
    canvas.bare(axes, name)
  step = strip.shape[1] / len(rows[0][1])
  for number, caption in enumerate(wrapped):
    text = canvas.plain(caption)
    grid[0].text((number + 0.5) * step, -0.02 * step, text, fontsize=5, ha="center", va="bottom")
  figure.savefig(path)


def _strip(images: np.ndarray, fill: float | int) -> np.ndarray:
  """Joins images [N, H, W, C] to one row, with columns of `fill` between images: one for each 100 pixels of width."""
  width = max(1, round(images.shape[2] / 100))  # a picture shows about 100 pixels of each image
  gap = np.full((*images.shape[:2], width, images.shape[3]), fill, images.dtype)
  padded = np.concatenate([images, gap], axis=2)
  return np.concatenate(list(padded), axis=1)[:, :-width]


_KINDS: dict[type, Callable[[pathlib.Path, Any, str], None]] = {
  figures.ExampleRows: _rows,
  figures.Gallery: _gallery,
  figures.Heatmap: plots.heatmap,
  figures.Bars: plots.bars,
  figures.Lines: plots.lines,
  figures.Timelines: lambda path, item, _: timelines.figure(item).savefig(path),
  figures.Points: plots.points,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}

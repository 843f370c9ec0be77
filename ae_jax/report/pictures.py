"""Saves figures as PNG files. `_KINDS` maps each type of figure to the function that saves it."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ae_jax.data import ranges
from ae_jax.evaluators import figures
from ae_jax.report import canvas, channels, plots

_MAX_ROWS = 49  # maximum number of rows of images; more would be unreadable
_MAX_SERIES = 16  # maximum number of series, each in its own plot
_MAX_GRIDS = 6  # maximum number of grids beside each other

Figure = (
  figures.ExampleRows
  | figures.Gallery
  | figures.Heatmap
  | figures.Bars
  | figures.Lines
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
  _KINDS[type(item)](path, channels.titled(item), value_range)


def limits(examples: np.ndarray, value_range: str) -> tuple[float, float]:
  """Returns the bounds of a value range; for an unbounded range, the extrema of the finite values in `examples`."""
  low, high = ranges.INTERVALS[value_range]
  if not np.isfinite(low):
    finite = examples[np.isfinite(examples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
  return low, high if high > low else low + 1.0


def reconstructed(item: figures.ExampleRows) -> bool:
  """Returns whether the figure has exactly two rows: examples and their reconstructions."""
  return len(item.rows) == 2 and [*item.rows][1] == "reconstructions"


def heads(item: figures.Attention) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, attention weights averaged over the queries) for each head of each layer.

  The weights have shape [N, H, W, 1] for images, whose tokens are patches in row-major order, and [N, T, 1] for series,
  where the number of tokens T may be smaller than the number of steps.
  """
  height, width = item.examples.shape[1:3]
  for layer, weights in item.weights.items():
    for head in range(weights.shape[1]):
      mean = weights[:, head].mean(1)
      if item.examples.ndim == 4:
        patch = _side_of_patch(height, width, mean.shape[-1])
        tiles = mean.reshape(len(mean), -(-height // patch), -1)
        mean = np.kron(tiles, np.ones((1, patch, patch), np.float32))[:, :height, :width]
      yield f"{layer} {head + 1}", mean[..., None]


def _side_of_patch(height: int, width: int, count: int) -> int:
  """Returns the side of the square patches if `count` patches cover an image; see `models.transformer.patchify`."""
  sides = range(1, max(height, width) + 1)
  return next((side for side in sides if -(-height // side) * -(-width // side) == count), max(height, width))


def _rows(path: pathlib.Path, item: figures.ExampleRows, value_range: str) -> None:
  """Saves the rows of examples.

  If the second row contains reconstructions of images, a third row shows the errors (red: too bright; blue: too dark).
  """
  first, *others = item.rows.values()
  if first.ndim == 3:
    (_overlaid if reconstructed(item) else _rows_of_series)(path, item)
    return
  low, high = limits(first, value_range)
  rows = [(name, images, low, high, "gray", high) for name, images in item.rows.items()]
  if reconstructed(item):
    difference = (others[0] - first).mean(-1, keepdims=True)
    name = "difference" if first.shape[-1] == 1 else "mean difference"
    rows.append((name, difference, low - high, high - low, "RdBu_r", 0.0))
  _strips(path, rows, item.title)


def _overlaid(path: pathlib.Path, item: figures.ExampleRows) -> None:
  """Saves a small plot for each series, with its reconstruction in the same plot."""
  series, reconstructions = (examples[:_MAX_SERIES] for examples in item.rows.values())
  figure = canvas.figure(9, 1.1 * -(-len(series) // 4) + 0.4, item.title)
  grid = figure.subplots(-(-len(series) // 4), 4, squeeze=False).ravel()
  for axes in grid:
    canvas.bare(axes)
  for axes, original, reconstruction in zip(grid, series, reconstructions, strict=False):
    axes.plot(original, color="tab:gray", linewidth=1.0)
    axes.plot(reconstruction, color="tab:orange", linewidth=1.0)
  figure.legend(grid[0].lines[:: series.shape[-1]], ["original", "reconstruction"], fontsize=7, loc="upper right")
  figure.savefig(path)


def _rows_of_series(path: pathlib.Path, item: figures.ExampleRows) -> None:
  """Saves small plots of the first series of each row, all with the same y axis."""
  count = min(_MAX_SERIES // 2, len(next(iter(item.rows.values()))))
  figure = canvas.figure(count * 1.1 + 1.5, 0.6 * len(item.rows) + 0.5, item.title)
  grid = figure.subplots(len(item.rows), count, squeeze=False, sharey=True)
  for row, (name, examples) in zip(grid, item.rows.items(), strict=True):
    for axes, series in zip(row, examples, strict=False):
      canvas.bare(axes)
      axes.plot(series, linewidth=0.8)
    canvas.bare(row[0], name)
  figure.savefig(path)


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
  low, high = limits(groups, value_range)
  for axes, name, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, names, groups, strict=False):
    canvas.bare(axes)
    axes.set_title(name, fontsize=7)
    if group.ndim == 3:
      _grid_of_series(axes, (group - low) / (high - low), columns)
      continue
    group = channels.shown(group)
    missing = -len(group) % columns
    padded = np.concatenate([group, np.full((missing, *group.shape[1:]), high, group.dtype)])
    strips = [_strip(padded[first : first + columns], high) for first in range(0, len(padded), columns)]
    square = _strip(np.stack(strips).swapaxes(1, 2), high).swapaxes(0, 1)
    square = np.clip((square - low) / (high - low), 0.0, 1.0)
    axes.imshow(square, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
  figure.savefig(path)


def _grid_of_series(axes: Any, group: Float[np.ndarray, "n t c"], columns: int) -> None:
  """Draws series with values in [0, 1] as lines, one series in each cell of a grid."""
  for number, series in enumerate(group):
    down, across = divmod(number, columns)
    axes.plot(across + np.linspace(0.05, 0.95, len(series)), 0.9 * series - down, color="tab:blue", linewidth=0.6)


def _attention(path: pathlib.Path, item: figures.Attention, value_range: str) -> None:
  """Saves a row of images, and below it a row of attention weights for each head of each layer."""
  if item.examples.ndim == 3:
    _attention_to_series(path, item)
    return
  low, high = limits(item.examples, value_range)
  rows = [("test images", item.examples, low, high, "gray", high)]
  rows += [(name, weights, 0.0, float(weights.max()), "viridis", 0.0) for name, weights in heads(item)]
  _strips(path, rows[:_MAX_ROWS], f"{item.title} (each row is scaled from 0 to its maximum)")


def _attention_to_series(path: pathlib.Path, item: figures.Attention) -> None:
  """Saves plots of the first four series, and below each a plot of the attention weights over time."""
  count = min(4, len(item.examples))
  figure = canvas.figure(9, 3, item.title)
  for number, (above, below) in enumerate(zip(*figure.subplots(2, count, squeeze=False), strict=True)):
    canvas.bare(above)
    canvas.bare(below)
    above.plot(item.examples[number], color="tab:gray", linewidth=1.0)
    for _, weights in heads(item):
      below.plot(weights[number], linewidth=1.0)
    below.set(ylim=(0, None))
  figure.savefig(path)


def _strips(path: pathlib.Path, rows: Sequence[tuple[Any, ...]], title: str) -> None:
  """Saves rows of images.

  Args:
    path: PNG file to write.
    rows: Tuples (name, images [N, H, W, C], low, high, colour map, gap). `low` and `high` are the values at the ends of
      the colour map, and `gap` is the value of the pixels between images.
    title: Title above the rows.
  """
  figure = canvas.figure(len(rows[0][1]) * 0.7 + 1.3, 0.88 * len(rows) + 0.46, title)
  grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
  for axes, (name, images, low, high, colours, gap) in zip(grid, rows, strict=True):
    strip = _strip(channels.shown(images), gap)
    if strip.shape[-1] == 1:
      axes.imshow(strip[..., 0], cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    else:
      axes.imshow(np.clip((strip - low) / (high - low), 0.0, 1.0), interpolation="nearest")
    canvas.bare(axes, name)
  figure.savefig(path)


def _strip(images: np.ndarray, fill: float | int) -> np.ndarray:
  """Joins images [N, H, W, C] to one row [H, N * (W + 1) - 1, C], with one column of `fill` between images."""
  gap = np.full((*images.shape[:2], 1, images.shape[3]), fill, images.dtype)
  padded = np.concatenate([images, gap], axis=2)
  return np.concatenate(list(padded), axis=1)[:, :-1]


_KINDS: dict[type, Callable[[pathlib.Path, Any, str], None]] = {
  figures.ExampleRows: _rows,
  figures.Gallery: _gallery,
  figures.Heatmap: plots.heatmap,
  figures.Bars: plots.bars,
  figures.Lines: plots.lines,
  figures.Points: plots.points,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}

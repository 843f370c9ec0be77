"""Draws figures of series and of table rows as small plots with labelled axes.

A series is a line over its time steps, one for each channel. A row of a table has one point for each column, because
its columns have no order. Values that are missing in the data are hollow points or dotted lines. `pictures` saves the
figures as PNG files, and `blocks` embeds them in a page. The plots of a figure are cells of one pair of axes:
Matplotlib needs seconds for many pairs of axes.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ae_jax.evaluators import figures
from ae_jax.report import canvas, channels, example_figures
from ae_jax.report.canvas import Axes

_MAX_EXAMPLES = 16  # maximum number of examples, each in its own plot
_MAX_ACROSS = 12  # maximum number of examples in a row
_MAX_GRIDS = 6  # maximum number of grids beside each other
_NAMES_PER_INCH = 9  # maximum number of names of columns below an axis; some names are left out if there are more
_CAPTION_PER_INCH = 22  # number of characters of a caption in an inch; longer captions have several lines
_LETTERS = 18  # maximum length of a name below an axis
_LEAST_LABELLED = 0.8  # inches: if the columns of a grid of series are narrower, only the first has tick labels
_WIDTH, _HEIGHT = 0.85, 0.75  # size of the plot in a cell of size 1
_CELL_INCHES = 1.1  # width of a cell if `_MAX_ACROSS` examples are in a row
_ACROSS = 4  # number of examples in a row if their reconstructions are in the same plots
_FEW = 20  # maximum number of columns of a table for large points
_MISSING = {"color": "tab:red", "markerfacecolor": "none", "markeredgewidth": 0.7}  # style of missing values

Limits = tuple[float, float]  # values at the lower and the upper edge of each plot
Entries = dict[str, tuple[str, dict[str, Any]]]  # of a legend: text -> style of its line


def applies(item: Any) -> bool:
  """Returns whether a figure shows series [N, T, C] or table rows [N, columns, 1]; other examples are images."""
  if isinstance(item, figures.ExampleRows):
    return next(iter(item.rows.values())).ndim == 3
  if isinstance(item, figures.Gallery | figures.Attention):
    return item.examples.ndim == 3
  return isinstance(item, figures.Explorer) and item.examples.ndim == 5


def figure(item: Any, value_range: str) -> canvas.Figure:
  """Returns a picture of a figure for which `applies` is true.

  Args:
    item: Figure of an evaluator.
    value_range: Value range of the examples, a key of `ranges.INTERVALS`.
  """
  return _KINDS[type(item)](channels.first_of_series(item), value_range)


def _rows(item: figures.ExampleRows, value_range: str) -> canvas.Figure:
  """Draws reconstructions over the originals; other rows of examples one below the other."""
  return (_overlaid if example_figures.reconstructed(item) else _below_each_other)(item, value_range)


def _overlaid(item: figures.ExampleRows, value_range: str) -> canvas.Figure:
  """Draws one plot for each example and channel, with the reconstruction in the same plot."""
  originals, reconstructions = (examples[:_MAX_EXAMPLES] for examples in item.rows.values())
  (count, steps, depth), both = originals.shape, np.stack([originals, reconstructions])
  limits = [example_figures.limits(both[..., channel], value_range) for channel in range(depth)]
  low, high = np.array(limits).T
  down = -(-count // _ACROSS)
  picture = canvas.figure(
    9, (1.1 if depth == 1 else 0.55 * depth + 0.15) * down + 1 + _room_for_names(item), item.title
  )
  axes = picture.subplots()
  observed = None if item.observed is None else _panels(item.observed[:count].astype(float)) == 1
  scaled = [_panels((examples - low) / (high - low)) for examples in both]
  _draw(axes, item, scaled[0], (0.0, 1.0), _ACROSS, colour="tab:gray", observed=observed)
  _draw(axes, item, scaled[1], (0.0, 1.0), _ACROSS, colour="tab:orange")
  names = _channel_names(item, depth) if depth > 1 else []
  _label(axes, item, steps, limits * down, (down * depth, min(_ACROSS, count)), 9, row_names=names * down)
  for number, caption in enumerate(item.captions[:count]):
    axes.text(number % _ACROSS + 0.03, _HEIGHT + 0.06 - number // _ACROSS * depth, canvas.plain(caption), fontsize=6)
  marks = ("o", "x") if item.x_names else ("-", "-")
  entries = {"original": (marks[0], {"color": "tab:gray"}), "reconstruction": (marks[1], {"color": "tab:orange"})}
  _legend(picture, axes, item, entries)
  return picture


def _panels(examples: Float[np.ndarray, "n t c"]) -> Float[np.ndarray, "cells t 1"]:
  """Returns the cells of a grid with `_ACROSS` columns, and one row for each channel below each other."""
  missing = np.full((-len(examples) % _ACROSS, *examples.shape[1:]), np.nan)
  blocks = np.concatenate([examples, missing]).reshape(-1, _ACROSS, *examples.shape[1:])
  return np.moveaxis(blocks, -1, 1).reshape(-1, examples.shape[1], 1)


def _below_each_other(item: figures.ExampleRows, value_range: str) -> canvas.Figure:
  """Draws the first examples of each row, with the name of the row to the left."""
  limits = example_figures.limits(np.stack([*item.rows.values()]), value_range)
  most = _MAX_ACROSS
  if item.x_names:  # fewer examples, if the names of all columns then fit
    most = max(_ACROSS, min(most, int(_MAX_ACROSS * _CELL_INCHES * _NAMES_PER_INCH / len(item.x_names))))
  count = min(most, len(next(iter(item.rows.values()))))
  width = count * _CELL_INCHES * _MAX_ACROSS / most + 1.9
  picture = canvas.figure(width, 0.7 * len(item.rows) + 1.1 + _room_for_names(item), item.title)
  axes = picture.subplots()
  examples = np.concatenate([row[:count] for row in item.rows.values()])
  observed = None
  if item.observed is not None:
    made = {"reconstructions": np.ones_like(item.observed)}  # of all elements
    observed = np.concatenate([made.get(name, item.observed)[:count] for name in item.rows])
    if not item.x_names:  # a line through values that replace missing ones would look like observed steps
      is_shown = np.repeat([name == "completed" for name in item.rows], count)[:, None, None]
      examples = np.where(observed | is_shown, examples, np.nan)
  _draw(axes, item, examples, limits, count, observed=observed)
  _label(axes, item, examples.shape[1], [limits] * len(item.rows), (len(item.rows), count), width - 1.9)
  _legend(picture, axes, item, _channel_entries(item, examples))
  axes.set_yticks(_HEIGHT / 2 - np.arange(len(item.rows)), [*item.rows], fontsize=7)
  axes.set_ylabel(f"{item.y_label},\n{limits[0]:.3g} to {limits[1]:.3g} in each row", fontsize=7)
  for number, caption in enumerate(item.captions[:count]):
    lines = textwrap.wrap(canvas.plain(caption), int(_CAPTION_PER_INCH * (width - 1.9) / count))
    axes.text(number + 0.03, _HEIGHT + 0.06, "\n".join(lines), fontsize=5)
  return picture


def _gallery(item: figures.Gallery, value_range: str) -> canvas.Figure:
  """Draws the examples as a nearly square grid."""
  width = 9 if item.x_names else 6
  columns = max(1, round(len(item.examples) ** 0.5))
  picture = canvas.figure(width, 5 + _room_for_names(item), item.title)
  axes, limits = picture.subplots(), example_figures.limits(item.examples, value_range)
  _draw(axes, item, item.examples, limits, columns)
  down = -(-len(item.examples) // columns)
  _label(axes, item, item.examples.shape[1], [limits] * down, (down, columns), width)
  _legend(picture, axes, item, _channel_entries(item, item.examples))
  return picture


def _explorer(item: figures.Explorer, value_range: str) -> canvas.Figure:
  """Draws a grid for each pair of latent directions; the first varies over the rows, the second over the columns."""
  groups = item.examples.reshape(len(item.examples), -1, *item.examples.shape[3:])[:_MAX_GRIDS]
  width = 7 if item.x_names else 5
  picture = canvas.figure(width * len(groups), 5 + _room_for_names(item), item.title)
  limits, side = example_figures.limits(groups, value_range), len(item.positions)
  for number, axes in enumerate(picture.subplots(1, len(groups), squeeze=False).flat):
    down, across = item.names[2 * number : 2 * number + 2]
    axes.set_title(f"{down} down, {across} across", fontsize=7)
    _draw(axes, item, groups[number], limits, side)
    _label(axes, item, groups.shape[2], [limits] * side, (side, side), width)
  _legend(picture, axes, item, _channel_entries(item, groups))
  return picture


def _attention(item: figures.Attention, value_range: str) -> canvas.Figure:
  """Draws the first four series, and below them the attention weights over their time steps."""
  series = item.examples[:4]
  picture = canvas.figure(9, 4, item.title)
  above, below = picture.subplots(2, 1)
  limits = example_figures.limits(series, value_range)
  _draw(above, item, series, limits, 4, colour="tab:gray" if series.shape[-1] == 1 else None)
  _label(above, item, series.shape[1], [limits], (1, len(series)), 9)
  for number, caption in enumerate(item.captions[: len(series)]):
    above.text(number + 0.03, _HEIGHT + 0.06, canvas.plain(caption), fontsize=6)
  weights = np.concatenate([of_head[:4] for _, of_head in example_figures.heads(item)], -1)
  largest = 0.0, max(float(weights.max()), 1e-30)
  _draw(below, item, weights, largest, 4)
  _label(below, item, weights.shape[1], [largest], (1, len(series)), 9)
  below.set_xlabel(item.x_label if weights.shape[1] == series.shape[1] else "token", fontsize=8)
  below.set_ylabel("attention weight", fontsize=8)
  _legend(picture, above, item, _channel_entries(item, series))
  return picture


def _draw(
  axes: Axes,
  item: figures.Plotted,
  examples: Float[np.ndarray, "n t c"],
  limits: Limits,
  columns: int,
  *,
  colour: str | None = None,
  observed: Bool[np.ndarray, "n t c"] | None = None,
) -> None:
  """Draws each example in its cell of a grid: a line for each channel of a series, or the points of a table row.

  The colour of a line is `colour`, or by default that of its channel. Values that are not `observed` are hollow points,
  or dotted lines to the neighbouring steps.
  """
  drawn = np.flatnonzero(~np.isnan(examples).all((1, 2)))  # the others fill the last row of the grid
  below, left = -(drawn // columns) - 0.03, drawn % columns
  axes.hlines(below, left, left + _WIDTH, color="tab:gray", linewidth=0.3)
  within, marks = _within(examples.shape[1]), "x" if colour == "tab:orange" else "o"
  style = marks if item.x_names else "o-" if examples.shape[1] == 1 else "-"
  sizes = {"linewidth": 0.8, "markersize": 3.5 if columns <= _ACROSS else 3 if examples.shape[1] <= _FEW else 1.5}
  for number, example in enumerate(_HEIGHT * (examples - limits[0]) / (limits[1] - limits[0])):
    down, across = divmod(number, columns)
    for channel, values in enumerate(example.T):
      seen = np.ones(len(values), bool) if observed is None else observed[number, :, channel]
      own = {"color": colour or f"C{channel}"} | sizes
      axes.plot(across + within, np.where(seen, values - down, np.nan), style, **own)
      if not seen.all() and item.x_names:
        axes.plot(across + within, np.where(seen, np.nan, values - down), marks, **sizes | _MISSING)
      elif not seen.all():
        beside = ~seen | np.roll(~seen, 1) | np.roll(~seen, -1)
        axes.plot(across + within, np.where(beside, values - down, np.nan), ":", **own)


def _within(steps: int) -> Float[np.ndarray, " {steps}"]:
  """Returns the horizontal positions of the time steps, or of the columns of a table, in a cell."""
  margin = min(0.5, 0.2 / steps) * _WIDTH
  return np.linspace(margin, _WIDTH - margin, steps) if steps > 1 else np.array([_WIDTH / 2])


def _label(
  axes: Axes,
  item: figures.Plotted,
  steps: int,
  limits: Sequence[Limits],
  shape: Sequence[int],
  inches: float | int,
  *,
  row_names: Sequence[str] = (),
) -> None:
  """Labels the axes of a grid of plots.

  Args:
    axes: Axes of the grid.
    item: The figure.
    steps: Number of time steps, or of columns of a table.
    limits: Values at the edges of the plots of each row.
    shape: Number of rows and columns of the grid.
    inches: Width of the grid.
    row_names: Name of each row; () for none.
  """
  down, across = shape
  if item.x_names:
    chosen = np.arange(0, steps, -(-steps // max(1, int(inches * _NAMES_PER_INCH / across))))
    names = [_short(item.x_names[number]) for number in chosen]
  else:
    chosen = np.unique(np.linspace(0, steps - 1, 3 if across <= 4 else 2).astype(int))
    names = [f"{number:,}" for number in chosen]
  labelled = across if item.x_names or inches / across > _LEAST_LABELLED else 1
  ticks = np.arange(labelled)[:, None] + _within(steps)[chosen]
  axes.set_xticks(ticks.ravel(), names * labelled, rotation=90 if item.x_names else 0, fontsize=6)
  heights = -np.arange(down)[:, None] + np.array([0, _HEIGHT])
  middles = heights[: len(row_names), 0] + _HEIGHT / 2
  values = [f"{limit:.3g}" for pair in limits for limit in pair]
  axes.set_yticks([*heights.ravel(), *middles], [*values, *row_names], fontsize=6)
  axes.set(xlim=(-0.05, across), ylim=(0.9 - down - 0.05, 1), frame_on=False)
  axes.set_xlabel(item.x_label, fontsize=8)
  axes.set_ylabel(item.y_label, fontsize=8)


def _channel_entries(item: figures.Plotted, examples: Float[np.ndarray, "*n t c"]) -> Entries:
  """Returns the legend of the channels of series; {} if there is only one."""
  count = examples.shape[-1]
  names = _channel_names(item, count if count > 1 else 0)
  return {name: ("-", {"color": f"C{channel}"}) for channel, name in enumerate(names)}


def _channel_names(item: figures.Plotted, count: int) -> list[str]:
  """Returns the names of the first `count` channels."""
  names = item.channels or [f"channel {channel + 1}" for channel in range(count)]
  return [canvas.plain(name) for name in names[:count]]


def _legend(picture: canvas.Figure, axes: Axes, item: figures.Plotted, entries: Entries) -> None:
  """Adds a legend below the plots; with an entry for missing values, if there are any."""
  if isinstance(item, figures.ExampleRows) and item.observed is not None and not item.observed.all():
    missing = ("o", _MISSING) if item.x_names else (":", {"color": "black"})
    entries = entries | {"missing in the data": missing}
  lines = [axes.plot([], [], style, markersize=3.5, **options)[0] for style, options in entries.values()]
  if lines:
    picture.legend(lines, [*entries], fontsize=7, loc="outside lower center", ncols=len(lines))


def _short(name: str) -> str:
  """Returns a name with at most `_LETTERS` characters."""
  return canvas.plain(name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…")


def _room_for_names(item: figures.Plotted) -> float:
  """Returns the height in inches of the names below an axis."""
  return 0.055 * min(_LETTERS, max(map(len, item.x_names), default=0))


_KINDS: dict[type, Callable[[Any, str], canvas.Figure]] = {
  figures.ExampleRows: _rows,
  figures.Gallery: _gallery,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}

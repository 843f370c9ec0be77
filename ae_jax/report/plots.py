"""Saves figures of numbers as PNG files: heat maps, bar charts, line plots and scatter plots.

The functions do not use `value_range`. They have this argument because `pictures.draw` calls all functions alike.
"""

import pathlib
import textwrap

import numpy as np

from ae_jax.data import labels
from ae_jax.evaluators import figures
from ae_jax.report import axis_positions, canvas

_MAX_NAMED_CLASSES = 10  # maximum number of classes with a legend
_MANY_POINTS = 300  # more points of a scatter plot are smaller
_AXIS_LETTERS = 60  # number of letters that fit below an axis
_POINT_HEIGHT = 0.06  # inches, of each point in a row of points
_NAME_WIDTH = 30  # number of characters of a line of a name beside a row


def heatmap(path: pathlib.Path, item: figures.Heatmap, value_range: str) -> None:
  """Saves values [H, W] as a heat map, or values [T] as a line plot."""
  del value_range
  width, height = (4.6, 4) if item.values.ndim == 2 else (6, 2.6)
  figure = canvas.figure(width, height, item.title)
  axes = figure.subplots()
  if item.values.ndim == 2:
    if item.x_label or item.y_label:
      axes.set(xlabel=item.x_label, ylabel=item.y_label)
    else:
      canvas.bare(axes)
    height, width = item.values.shape
    extent = (0.5, width + 0.5, height + 0.5, 0.5)  # pixel n is centred at n
    colours = axes.imshow(item.values, cmap="magma", interpolation="nearest", extent=extent)
    figure.colorbar(colours, label=item.unit)
  else:
    axes.plot(item.values)
    axes.set(xlabel="time step", ylabel=item.unit)
  figure.savefig(path)


def bars(path: pathlib.Path, item: figures.Bars, value_range: str) -> None:
  """Saves a bar chart; values that are not finite have no bar."""
  del value_range
  values = np.where(np.isfinite(item.values), item.values, 0.0)
  is_short = len(item.names) * (max(map(len, item.names), default=0) + 1) <= _AXIS_LETTERS
  figure = canvas.figure(6, 2.6 if is_short else max(2.6, 0.16 * len(item.names) + 0.8), item.title)
  axes = figure.subplots()
  positions, names = range(1, len(item.values) + 1), [*map(canvas.plain, item.names)]
  if is_short:
    axes.bar(positions, values, color="tab:blue")
    axes.set(xlabel=item.x_label, ylabel=item.y_label)
    if item.names:
      axes.set_xticks(positions, names)
    else:  # bars are numbered
      axes.locator_params(axis="x", integer=True)
  else:  # long names fit only beside horizontal bars
    axes.barh(positions, values, color="tab:blue")
    axes.set(xlabel=item.y_label, ylabel=item.x_label)
    axes.set_yticks(positions, names, fontsize=8)
    axes.invert_yaxis()
  figure.savefig(path)


def lines(path: pathlib.Path, item: figures.Lines, value_range: str) -> None:
  """Saves a plot of lines with markers, or rows of points if the x values have names."""
  del value_range
  figure = _rows_of_points(item) if item.x_names else _lines(item)
  if item.lines:
    figure.legend(loc="outside lower center", ncols=min(3, len(item.lines)), fontsize=8)
  figure.savefig(path)


def _lines(item: figures.Lines) -> canvas.Figure:
  figure = canvas.figure(6, 3, item.title)
  axes = figure.subplots()
  for name, (x, y) in item.lines.items():
    style = {"color": "black", "linestyle": "--"} if axis_positions.is_vertical(x) else {"marker": "o"}
    axes.plot(x, y, label=canvas.plain(name), markersize=4, linewidth=1.2, **style)
  axes.set(xlabel=item.x_label, ylabel=item.y_label)
  if item.logarithmic_x:
    canvas.logarithmic(axes, "x")
  axes.grid(alpha=0.2)
  return figure


def _rows_of_points(item: figures.Lines) -> canvas.Figure:
  """Draws one row for each name of x, in which the points of the lines are below each other."""
  count, lines = len(item.x_names), len(item.lines)
  figure = canvas.figure(6, 1.1 + _POINT_HEIGHT * lines * count, item.title)
  axes = figure.subplots()
  for distance, (name, (rows, values)) in zip(axis_positions.within_rows(lines), item.lines.items(), strict=True):
    axes.plot(values, rows + distance, "o", label=canvas.plain(name), markersize=4, clip_on=False)
  for row in range(0, count, 2):
    axes.axhspan(row - 0.5, row + 0.5, color="tab:gray", alpha=0.12, linewidth=0)
  axes.set(xlabel=item.y_label, ylabel=item.x_label, ylim=(count - 0.5, -0.5))
  axes.set_xlim(axis_positions.limits_of_rows(item.lines.values(), item.y_bounds))
  axes.set_yticks(range(count), [textwrap.fill(canvas.plain(name), _NAME_WIDTH) for name in item.x_names], fontsize=8)
  axes.grid(alpha=0.2, axis="x")
  return figure


def points(path: pathlib.Path, item: figures.Points, value_range: str) -> None:
  """Saves a scatter plot for each view, with points coloured by label."""
  del value_range
  figure = canvas.figure(4.4 * len(item.views) + 0.6, 4.4, item.title)
  classes, numbers = np.unique(item.labels, return_inverse=True)
  few, size = len(classes) <= _MAX_NAMED_CLASSES, 6 if len(item.labels) > _MANY_POINTS else 20
  grid = figure.subplots(1, len(item.views), squeeze=False).flat
  for axes, (name, view) in zip(grid, item.views.items(), strict=True):
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("lightgray")
    axes.set_title(name, fontsize=8)
    for number, label in enumerate(classes):
      colour = f"C{number}" if few else canvas.shade("turbo", number / (len(classes) - 1))
      class_name = canvas.plain(labels.class_name(label, item.class_names))
      axes.scatter(*view[numbers == number].T, s=size, color=colour, label=class_name, linewidths=0)
  if len(classes) > 1 and few:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7, markerscale=2)
  figure.savefig(path)

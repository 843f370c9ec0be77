"""Saves figures of numbers as PNG files: heat maps, bar charts, line plots and scatter plots.

The functions do not use `value_range`. They have this argument because `pictures.draw` calls all functions alike.
"""

import pathlib

import numpy as np

from ae_jax.data import labels
from ae_jax.evaluators import figures
from ae_jax.report import canvas

_MAX_NAMED_CLASSES = 10  # maximum number of classes with a legend


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
  is_short = len("".join(item.names)) < 60
  figure = canvas.figure(6, 2.6 if is_short else max(2.6, 0.16 * len(item.names) + 0.8), item.title)
  axes = figure.subplots()
  positions = range(1, len(item.values) + 1)
  if is_short:
    axes.bar(positions, values, color="tab:blue")
    axes.set(xlabel=item.x_label, ylabel=item.y_label)
    if item.names:
      axes.set_xticks(positions, item.names)
    else:  # bars are numbered
      axes.locator_params(axis="x", integer=True)
  else:  # long names fit only beside horizontal bars
    axes.barh(positions, values, color="tab:blue")
    axes.set(xlabel=item.y_label, ylabel=item.x_label)
    axes.set_yticks(positions, item.names, fontsize=8)
    axes.invert_yaxis()
  figure.savefig(path)


def lines(path: pathlib.Path, item: figures.Lines, value_range: str) -> None:
  """Saves a plot of lines with markers."""
  del value_range
  figure = canvas.figure(6, 3, item.title)
  axes = figure.subplots()
  for name, (x, y) in item.lines.items():
    axes.plot(x, y, "o" if item.x_names else "o-", label=name, markersize=4, linewidth=1.2)  # names have no order
  axes.set(xlabel=item.x_label, ylabel=item.y_label)
  if item.x_names:
    axes.set_xticks(range(len(item.x_names)), item.x_names, rotation=30 if len("".join(item.x_names)) > 60 else 0)
  axes.grid(alpha=0.2)
  if item.lines:
    figure.legend(loc="outside lower center", ncols=min(3, len(item.lines)), fontsize=8)
  figure.savefig(path)


def points(path: pathlib.Path, item: figures.Points, value_range: str) -> None:
  """Saves a scatter plot for each view, with points coloured by label."""
  del value_range
  figure = canvas.figure(4.4 * len(item.views) + 0.6, 4.4, item.title)
  classes, numbers = np.unique(item.labels, return_inverse=True)
  few = len(classes) <= _MAX_NAMED_CLASSES
  grid = figure.subplots(1, len(item.views), squeeze=False).flat
  for axes, (name, view) in zip(grid, item.views.items(), strict=True):
    canvas.bare(axes)
    axes.set_title(name, fontsize=8)
    for number, label in enumerate(classes):
      colour = f"C{number}" if few else canvas.shade("turbo", number / (len(classes) - 1))
      class_name = labels.class_name(label, item.class_names)
      axes.scatter(*view[numbers == number].T, s=6, color=colour, label=class_name, linewidths=0)
  if len(classes) > 1 and few:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7, markerscale=2)
  figure.savefig(path)

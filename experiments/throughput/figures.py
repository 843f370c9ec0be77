"""Draws images per second by batch size and contestant, one panel per model."""

import statistics

import numpy as np
from matplotlib.figure import Figure

from experiments.throughput import peers, problem, tables

COLOURS = dict(
  zip(
    peers.ENTRIES,
    (
      *("#d62728", "#fc9272", "#fcbba1"),
      *("#08519c", "#6baed6", "#9ecae1"),
      *("#238b45", "#74c476", "#bae4b3"),
      *("#756bb1", "#fd8d3c"),
    ),
    strict=True,
  )
)


def draw(results, path):
  """Writes the figure; bars are medians, whiskers the minimum and maximum."""
  cells = tables.ordered(results["speed"])
  models = [model for model in problem.MODELS if any(cell["model"] == model for cell in cells)]
  figure = Figure(figsize=(10, 2.6 * -(-len(models) // 2) + 0.8), layout="constrained", dpi=150)
  grid = figure.subplots(-(-len(models) // 2), min(2, len(models)), squeeze=False).flat
  handles = {}
  for axes, model in zip(grid, models, strict=False):
    panel = [cell for cell in cells if cell["model"] == model]
    for group, cell in enumerate(panel):
      handles |= draw_bars(axes, group, cell["images_per_second"])
    axes.set_xticks(range(len(panel)), [f"batch {cell['batch_size']}" for cell in panel])
    axes.set_title(f"{model}: training images per second", fontsize=10)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
  for axes in list(grid):
    axes.set_visible(False)
  order = [contestant for contestant in COLOURS if contestant in handles]
  figure.legend(
    [handles[contestant] for contestant in order], order, loc="outside lower center", ncols=4, fontsize=9, frameon=False
  )
  figure.savefig(path)


def draw_bars(axes, group, rates):
  """Draws a group of bars around x = `group` and returns {contestant: handle of its bar}."""
  width = 0.85 / len(rates)
  positions = group + width * (np.arange(len(rates)) - (len(rates) - 1) / 2)
  handles = {}
  for position, (contestant, values) in zip(positions, rates.items(), strict=True):
    median = statistics.median(values)
    whiskers = [[median - min(values)], [max(values) - median]]
    options = {"capsize": 1.5, "error_kw": {"linewidth": 0.8}}
    handles[contestant] = axes.bar(position, median, 0.95 * width, yerr=whiskers, color=COLOURS[contestant], **options)
  return handles

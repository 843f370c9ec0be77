"""The figure: a panel for each model, bars of images per second by batch size and contestant."""

import statistics

import numpy as np
from matplotlib.figure import Figure

from experiments.throughput import peers, problem, tables

COLOURS = dict(
  zip(
    peers.ENTRIES,
    ("#d62728", "#fc9272", "#08519c", "#6baed6", "#238b45", "#74c476", "#bae4b3", "#756bb1", "#fd8d3c"),
    strict=True,
  )
)


def draw(results, path):
  """Writes the figure; bars are medians, their whiskers least and greatest."""
  cells = tables.ordered(results["speed"])
  models = [model for model in problem.MODELS if any(cell["model"] == model for cell in cells)]
  figure = Figure(figsize=(10, 2.6 * -(-len(models) // 2) + 0.8), layout="constrained", dpi=150)
  grid = figure.subplots(-(-len(models) // 2), min(2, len(models)), squeeze=False).flat
  shown = {}
  for axes, model in zip(grid, models, strict=False):
    panel = [cell for cell in cells if cell["model"] == model]
    for group, cell in enumerate(panel):
      shown |= bars(axes, group, cell["images_per_second"])
    axes.set_xticks(range(len(panel)), [f"batch {cell['batch_size']}" for cell in panel])
    axes.set_title(f"{model}: training images per second", fontsize=10)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
  for axes in list(grid):
    axes.set_visible(False)
  order = [who for who in COLOURS if who in shown]
  figure.legend([shown[who] for who in order], order, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
  figure.savefig(path)


def bars(axes, group, rates):
  """A group of bars around x = `group`; -> {contestant: its bar}."""
  width = 0.85 / len(rates)
  places = group + width * (np.arange(len(rates)) - (len(rates) - 1) / 2)
  shown = {}
  for place, (who, values) in zip(places, rates.items(), strict=True):
    median = statistics.median(values)
    whiskers = [[median - min(values)], [max(values) - median]]
    options = {"capsize": 1.5, "error_kw": {"linewidth": 0.8}}
    shown[who] = axes.bar(place, median, 0.95 * width, yerr=whiskers, color=COLOURS[who], **options)
  return shown

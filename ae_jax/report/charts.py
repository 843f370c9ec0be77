"""Charts that answer to the pointer: the only file that imports Bokeh. Each is {"item", "legend"}: a JSON object that
BokehJS draws, and [(name of a renderer, its colour)].

Text, axes and grids take their colours from the page (CSS variables --bk-...), so that they follow dark and light.
"""

import itertools
import math

import numpy as np
from bokeh import embed, palettes, resources
from bokeh.models import (
  BasicTicker,
  ColorBar,
  ColumnDataSource,
  FixedTicker,
  HoverTool,
  LinearColorMapper,
  PrintfTickFormatter,
)
from bokeh.plotting import figure

from ae_jax.runs import metric_names

TRAINING, TEST, RULER = "#3b7dce", "#e07b39", "#7d828b"
LINES = ("#3b7dce", "#e07b39", "#3a9e63", "#b05cc4", "#c9a227", "#d6453f", "#2aa5a0", "#8d6e4f", "#e377a8", "#7f8c3a")
_FORMATTED = ("@x", "@y", "@image", "$x", "$y")
_DOTTED = 100  # points of a curve up to which each is seen
_TICKS = 9  # of a logarithmic axis at most
_MAP = 230  # pixels of the height of a heat map
_MOST = 1_000  # points of a curve


def script():
  """The text of BokehJS, which draws the charts without a network."""
  return "\n".join(resources.Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)


def losses(measured):
  """The loss of the training and of the test set against the epoch, of what was `measured` (`logs.curves`)."""
  floor = {}
  nats, loss = measured.get("test/nats"), measured.get("test/loss")
  if nats and loss and np.allclose(nats[1][-1], loss[1][-1], rtol=1e-3):
    floor = {"the floor": _last(measured, "test/nats_floor")}
  found = {"training": measured.get("train/loss"), "test": loss}
  return curves(found, floor, "loss per example", (TRAINING, TEST))


def errors(measured):
  """The squared error of the test set against the epoch, beside that of PCA, of what was `measured`."""
  baselines = {"PCA": _last(measured, metric_names.pca_key(measured))}
  found = {"this model": measured.get("test/squared_error")}
  return curves(found, baselines, "squared error per test example", (TEST,))


def curves(lines, baselines, y_label, colours=LINES, groups=None):
  """{name: (epochs, values) or None} as lines, {name: value or None} dashed; None where there is no point to show.

  The axis is logarithmic where all values are positive. `groups` {name: group} are what the legend names instead.
  """
  colours = dict(zip(lines, itertools.cycle(colours)))
  lines = {name: _thinned(*line) for name, line in lines.items() if line is not None}
  baselines = {name: value for name, value in baselines.items() if value is not None and math.isfinite(value)}
  values = np.concatenate([*(line[1] for line in lines.values()), list(baselines.values()), []])
  finite = values[np.isfinite(values)]
  if not lines or not len(finite):
    return None
  logarithmic = bool((finite > 0).all())
  chart = _figure(300, "epoch", y_label, y_axis_type="log" if logarithmic else "linear")
  if logarithmic:
    _round_numbers(chart, finite.min(), finite.max())
  shown, legend = [], {}
  for name, (x, y) in lines.items():
    group = groups[name] if groups else name
    legend.setdefault(group, colours[name])
    shown.append(_line(chart, name, x, y, colours[name], 4 if len(x) <= _DOTTED else 0.1, group))
  ends = np.array([[line[0][0], line[0][-1]] for line in lines.values()])
  for name, value in baselines.items():
    said, data = f"{name}, {value:.4g}", {"x": [ends[:, 0].min(), ends[:, 1].max()], "y": [value, value]}
    chart.line("x", "y", source=data, color=RULER, line_dash="dashed", line_width=1.5, name=said)
    legend[said] = RULER
  _hover(chart, [("", "@name"), ("epoch", "@x{%.3g}"), ("", "@y{%.5g}")], renderers=shown)
  return _made(chart, legend)


def bars(item):
  """`figures.Bars`."""
  named = bool(item.names)
  names = [str(name) for name in item.names] or [str(number + 1) for number in range(len(item.values))]
  if len(set(names)) < len(names):  # an axis of names has each once
    names = [f"{name} ({number + 1})" for number, name in enumerate(names)]
  chart = _figure(260, item.x_label, item.y_label, **({"x_range": names} if named else {}))
  x = names if named else np.arange(1, len(names) + 1)
  data = {"x": x, "y": np.asarray(item.values, np.float64), "name": names}
  drawn = chart.vbar("x", top="y", width=0.8, source=data, color=TRAINING, line_color=None)
  chart.xgrid.visible = False
  if named and len("".join(names)) > 60:
    chart.xaxis.major_label_orientation = 0.9
  _hover(chart, [(item.x_label, "@name"), (item.y_label, "@y{%.4g}")], renderers=[drawn])
  return _made(chart)


def lines(item):
  """`figures.Lines`."""
  chart = _figure(300, item.x_label, item.y_label)
  legend = dict(zip(item.lines, itertools.cycle(LINES)))
  shown = [
    _line(chart, name, *np.asarray(points, np.float64), legend[name], 6, name) for name, points in item.lines.items()
  ]
  hints = [("", "@name"), (item.x_label, "@x{%.4g}"), (item.y_label, "@y{%.4g}")]
  _hover(chart, hints, renderers=shown)
  return _made(chart, legend)


def heatmap(item):
  """`figures.Heatmap`: pixels in colours, or a line over the steps of a series."""
  values = np.asarray(item.values, np.float64)
  if values.ndim == 1:
    chart = _figure(260, "step", item.unit)
    data = {"x": np.arange(len(values)), "y": values}
    drawn = chart.line("x", "y", source=data, color=TRAINING, line_width=2)
    _hover(chart, [("step", "@x"), (item.unit, "@y{%.4g}")], renderers=[drawn], mode="vline")
    return _made(chart)
  height, width = values.shape
  low, high = (float(end) for end in (np.nanmin(values), np.nanmax(values)))
  colours = LinearColorMapper(palettes.Magma256, low=low, high=high if high > low else low + 1.0)
  spans = {"x_range": (0.5, width + 0.5), "y_range": (height + 0.5, 0.5)}  # a pixel is around its number
  sizes = {"frame_width": round(_MAP * min(2.0, width / height)), "frame_height": _MAP}
  chart = _figure(None, item.x_label, item.y_label, **spans, **sizes)
  chart.sizing_mode, chart.grid.visible = None, False
  chart.axis.visible = bool(item.x_label or item.y_label)
  drawn = chart.image([values], 0.5, 0.5, width, height, color_mapper=colours)
  bar = ColorBar(color_mapper=colours, title=item.unit, ticker=BasicTicker(desired_num_ticks=5), width=10)
  bar.title_text_color = bar.major_label_text_color = RULER  # the page's colours do not reach it
  bar.title_text_font_style, bar.title_text_font_size, bar.background_fill_alpha = "normal", "12px", 0
  chart.add_layout(bar, "right")
  places = [(item.x_label or "column", "$x{%.0f}"), (item.y_label or "row", "$y{%.0f}")]
  _hover(chart, [*places, (item.unit, "@image{%.4g}")], renderers=[drawn])
  return _made(chart)


def points(item, sheet):
  """`figures.Points`, each class a group of its own; the sheet has the pictures that appear under the pointer.

  The columns x0, y0, x1, y1, ... are the views.
  """
  chart = figure(height=520, sizing_mode="stretch_width", tools="pan,wheel_zoom,reset", toolbar_location="above")
  chart.toolbar.active_drag = chart.toolbar.active_scroll = chart.toolbar.logo = None
  chart.axis.visible = chart.grid.visible = False
  classes, of_class = np.unique(item.labels, return_inverse=True)
  colours, numbers = class_colours(len(classes)), np.arange(len(item.labels))
  k, across = sheet.scale, numbers % sheet.columns
  columns = {}
  for view, places in enumerate(item.views.values()):
    columns |= {f"x{view}": places[:, 0], f"y{view}": places[:, 1]}
  columns |= {"left": across * sheet.width * k, "top": numbers // sheet.columns * sheet.height * k}
  columns |= {"label": item.labels, "number": numbers}
  for number, (label, colour) in enumerate(zip(classes, colours, strict=True)):
    source = ColumnDataSource({name: values[of_class == number] for name, values in columns.items()})
    chart.scatter("x0", "y0", source=source, size=7, color=colour, alpha=0.8, line_color=None, name=str(label))
  said = "class @label" if len(classes) > 1 else "number @number"
  size = f"width:{sheet.width * k}px;height:{sheet.height * k}px"
  place = f"background:var(--{sheet.name}) -@{{left}}px -@{{top}}px/{sheet.columns * sheet.width * k}px auto no-repeat"
  chart.add_tools(
    HoverTool(
      tooltips=f'<div class="thumb" style="{size};{place};image-rendering:pixelated"></div><div>{said}</div>',
      point_policy="snap_to_data",
      limit=1,
      show_arrow=False,
    )
  )
  return _made(chart, zip(map(str, classes), colours, strict=True) if len(classes) > 1 else ())


def class_colours(count):
  """So many colours that can be told apart, and be seen on light and dark."""
  if count <= len(LINES):
    return list(LINES[:count])
  return [palettes.Turbo256[round(20 + 215 * number / (count - 1))] for number in range(count)]


def _figure(height, x_label, y_label, **options):
  chart = figure(
    height=height,
    sizing_mode="stretch_width",
    toolbar_location=None,
    tools="",
    x_axis_label=x_label or None,
    y_axis_label=y_label or None,
    **options,
  )
  return chart


def _round_numbers(chart, least, most):
  """Few round numbers on a logarithmic axis, instead of many or of none."""
  powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
  for mantissas in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,)):
    ticks = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
    ticks = [tick for tick in ticks if least / 1.1 <= tick <= most * 1.1]
    if len(ticks) <= _TICKS:
      break
  chart.yaxis.ticker = FixedTicker(ticks=ticks[:: -(-len(ticks) // _TICKS)]) if len(ticks) > 2 else BasicTicker()
  chart.yaxis.formatter = PrintfTickFormatter(format="%g")


def _hover(chart, tooltips, renderers, mode="mouse"):
  formatters = {place: "printf" for _, text in tooltips for place in _FORMATTED if f"{place}{{" in text}
  chart.add_tools(HoverTool(tooltips=tooltips, renderers=renderers, formatters=formatters, mode=mode))


def _line(chart, name, x, y, colour, size, group):
  """Draws a line and its points, whose renderers have the name of a group; those of the points."""
  data = {"x": x, "y": y, "name": [name] * len(x)}
  chart.line("x", "y", source=data, color=colour, line_width=2, name=group)
  return chart.scatter("x", "y", source=data, color=colour, size=size, name=group)


def _made(chart, legend=()):
  """{"item", "legend"}: what BokehJS draws, and the colours of the names of its renderers."""
  return {"item": embed.json_item(chart), "legend": list(dict(legend).items())}


def _last(measured, name):
  return measured[name][1][-1] if name in measured else None


def _thinned(x, y):
  """A curve of at most so many points, each the mean of equally many."""
  every = -(-len(x) // _MOST)
  means = lambda values: np.array([values[first : first + every].mean() for first in range(0, len(values), every)])
  return means(x), means(y)

"""Interactive Bokeh charts. No other module imports Bokeh.

Each function that draws a chart returns a dict. Its "item" is the JSON object that BokehJS draws, and its "legend" is
[(name of a Bokeh renderer, colour)]. Text, axes and grids use the CSS variables --bk-... of the page, so they follow
the light and dark colour schemes of the page.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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

from ae_jax.data import labels
from ae_jax.evaluators import figures
from ae_jax.report import axis_positions, sprites
from ae_jax.runs import metric_names

TRAINING, TEST, VALIDATION, BASELINE = "#3b7dce", "#e07b39", "#3a9e63", "#7d828b"
LINES = ("#3b7dce", "#e07b39", "#3a9e63", "#b05cc4", "#c9a227", "#d6453f", "#2aa5a0", "#8d6e4f", "#e377a8", "#7f8c3a")
_FORMATTED = ("@x", "@y", "@image", "$x", "$y")  # fields of tooltips that have a printf format
_MAX_DOTS = 100  # curves with more points are drawn without visible dots
_POINT_HEIGHT = 6  # pixels, of each point in a row of points
_HEATMAP_HEIGHT = 230  # pixels
_MAX_POINTS = 1_000  # maximum number of points of a curve

Curve = tuple[np.ndarray, np.ndarray]  # epochs [n] and values [n]
Curves = Mapping[str, Curve]  # metric name -> curve; see `logs.curves`
Chart = dict[str, Any]


def script() -> str:
  """Returns the JavaScript source of BokehJS. A page that contains it draws its charts without network access."""
  return "\n".join(resources.Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)


def losses(measured: Curves, examples: str = "") -> Chart | None:
  """Returns a chart of the training, test and validation loss over the epochs; None if no value is finite.

  `examples` is the name of the test and validation examples, if the loss does not cover all; "" if it does.

  If the test loss is the cross-entropy alone (the last values of test/loss and test/nats are equal), the chart also
  shows the lower bound of the cross-entropy.
  """
  lower_bound = {}
  nats, loss = measured.get("test/nats"), measured.get("test/loss")
  if nats and loss and np.allclose(nats[1][-1], loss[1][-1], rtol=1e-3):
    lower_bound = {"lower bound of the test loss": _last(measured, "test/nats_floor")}
  covered = f", {examples}" if examples else ""
  evaluated = {f"test{covered}": loss, f"validation{covered}": measured.get("validation/loss")}
  lines = {"training": measured.get("train/loss"), **evaluated}
  return curves(lines, lower_bound, "loss per example", (TRAINING, TEST, VALIDATION))


def errors(measured: Curves, tested: str = "test example", unit: str = "") -> Chart | None:
  """Returns a chart of the squared test error and the PCA baseline over the epochs.

  Returns None if there is no curve or no finite value. `tested` is the name of a test example, and `unit` is the unit
  of the errors, see `measured.Result`.
  """
  baselines = {"baseline: PCA": _last(measured, metric_names.pca_key(measured))}
  lines = {"autoencoder": measured.get("test/squared_error")}
  return curves(lines, baselines, axis_positions.error_label(unit, tested), (TEST,))


def curves(
  lines: Mapping[str, Curve | None],
  baselines: Mapping[str, float | None],
  y_label: str,
  colours: Sequence[str] = LINES,
  groups: Mapping[str, str] | None = None,
) -> Chart | None:
  """Returns a chart of curves over the epochs, with baselines as dashed lines.

  The y axis is logarithmic if all values are positive. Returns None if there is no curve or no finite value.

  Args:
    lines: {name: curve}; curves that are None are left out.
    baselines: {name: value}; values that are None or not finite are left out.
    y_label: Label of the y axis.
    colours: Colours of the lines, repeated if there are more lines than colours.
    groups: {name of a line: name of its group}. If set, the legend lists the groups instead of the lines.
  """
  colour_of = dict(zip(lines, itertools.cycle(colours)))
  lines = {name: _thinned(*line) for name, line in lines.items() if line is not None}
  baselines = {name: value for name, value in baselines.items() if value is not None and math.isfinite(value)}
  values = np.concatenate([*(line[1] for line in lines.values()), list(baselines.values()), []])
  finite = values[np.isfinite(values)]
  if not lines or not len(finite):
    return None
  logarithmic = bool((finite > 0).all())
  chart = _figure(300, "epoch", y_label, y_axis_type="log" if logarithmic else "linear")
  if logarithmic:
    _set_round_ticks(chart.yaxis, finite.min(), finite.max())
  renderers, legend = [], {}
  for name, (x, y) in lines.items():
    group = groups[name] if groups else name
    legend.setdefault(group, colour_of[name])
    renderers.append(_line(chart, name, (x, y), colour_of[name], 4 if len(x) <= _MAX_DOTS else 0.1, group))
  low, high = min(x[0] for x, _ in lines.values()), max(x[-1] for x, _ in lines.values())
  chart.xaxis.ticker = BasicTicker(min_interval=1) if high - low >= 1 else BasicTicker()  # whole epochs, if several
  span = [low, high] if high > low else [low - 0.5, high + 0.5]  # a baseline of one evaluation is visible, too
  for name, value in baselines.items():
    label = f"{name}, {value:.4g}"
    data = {"x": span, "y": [value, value]}
    chart.line("x", "y", source=data, color=BASELINE, line_dash="dashed", line_width=1.5, name=label)
    legend[label] = BASELINE
  _add_hover(chart, [("", "@name"), ("epoch", "@x{%.3g}"), ("", "@y{%.5g}")], renderers=renderers)
  return _exported(chart, legend)


def bars(item: figures.Bars) -> Chart:
  """Returns a bar chart with one bar for each value."""
  named = bool(item.names)
  names = [str(name) for name in item.names] or [str(number + 1) for number in range(len(item.values))]
  if len(set(names)) < len(names):  # a categorical axis needs distinct names
    names = [f"{name} ({number + 1})" for number, name in enumerate(names)]
  chart = _figure(260, item.x_label, item.y_label, **({"x_range": names} if named else {}))
  x = names if named else np.arange(1, len(names) + 1)
  data = {"x": x, "y": np.asarray(item.values, np.float64), "name": names}
  renderer = chart.vbar("x", top="y", width=0.8, source=data, color=TRAINING, line_color=None)
  chart.xgrid.visible = False
  if named and len("".join(names)) > 60:
    chart.xaxis.major_label_orientation = 0.9
  _add_hover(chart, [(item.x_label, "@name"), (item.y_label, "@y{%.4g}")], renderers=[renderer])
  return _exported(chart)


def lines(item: figures.Lines) -> Chart:
  """Returns a line chart with markers and a legend, or rows of points if the x values have names."""
  if item.x_names:
    return _rows_of_points(item)
  chart = _figure(300, item.x_label, item.y_label, x_axis_type="log" if item.logarithmic_x else "linear")
  legend = dict(zip(item.lines, itertools.cycle(LINES)))
  points = {name: np.asarray(line, np.float64) for name, line in item.lines.items()}
  if item.logarithmic_x:
    x = np.concatenate([line[0] for line in points.values()])
    _set_round_ticks(chart.xaxis, x.min(), x.max())
  renderers = []
  for name, (x, y) in points.items():
    is_mark = axis_positions.is_vertical(x)
    legend[name] = BASELINE if is_mark else legend[name]
    renderers.append(_line(chart, name, (x, y), legend[name], 0.1 if is_mark else 6, name))
  tooltips = [("", "@name"), (item.x_label, "@x{%.4g}"), (item.y_label, "@y{%.4g}")]
  _add_hover(chart, tooltips, renderers=renderers)
  return _exported(chart, legend)


def _rows_of_points(item: figures.Lines) -> Chart:
  """Returns a chart with one row for each name of x, in which the points of the lines are below each other."""
  count, legend = len(item.x_names), dict(zip(item.lines, itertools.cycle(LINES)))
  limits = axis_positions.limits_of_rows(item.lines.values(), item.y_bounds)
  height = 90 + _POINT_HEIGHT * len(legend) * count
  chart = _figure(height, item.y_label, item.x_label, y_range=(count - 0.5, -0.5), x_range=limits)
  chart.yaxis.ticker, chart.yaxis.major_label_overrides = list(range(count)), dict(enumerate(item.x_names))
  chart.ygrid.ticker, chart.ygrid.grid_line_color = FixedTicker(ticks=[row - 0.5 for row in range(count + 1)]), None
  chart.ygrid.band_fill_color, chart.ygrid.band_fill_alpha = BASELINE, 0.12
  renderers = []
  for distance, (name, (rows, values)) in zip(axis_positions.within_rows(len(legend)), item.lines.items(), strict=True):
    data = {"x": values, "y": rows + distance, "name": [name] * len(rows)}
    data["row"] = [item.x_names[int(row)] for row in rows]
    renderers.append(chart.scatter("x", "y", source=data, color=legend[name], size=6, name=name, level="annotation"))
  _add_hover(chart, [(item.x_label, "@row"), ("", "@name"), (item.y_label, "@x{%.4g}")], renderers=renderers)
  return _exported(chart, legend)


def heatmap(item: figures.Heatmap) -> Chart:
  """Returns a heat map of values [H, W], or a line chart of values [T] over the steps of a series."""
  values = np.asarray(item.values, np.float64)
  if values.ndim == 1:
    chart = _figure(260, "time step", item.unit)
    data = {"x": np.arange(len(values)), "y": values}
    renderer = chart.line("x", "y", source=data, color=TRAINING, line_width=2)
    _add_hover(chart, [("time step", "@x"), (item.unit, "@y{%.4g}")], renderers=[renderer], mode="vline")
    return _exported(chart)
  height, width = values.shape
  low, high = (float(end) for end in (np.nanmin(values), np.nanmax(values)))
  colours = LinearColorMapper(palettes.Magma256, low=low, high=high if high > low else low + 1.0)
  spans = {"x_range": (0.5, width + 0.5), "y_range": (height + 0.5, 0.5)}  # pixel n is centred at n
  sizes = {"frame_width": round(_HEATMAP_HEIGHT * min(2.0, width / height)), "frame_height": _HEATMAP_HEIGHT}
  chart = _figure(None, item.x_label, item.y_label, **spans, **sizes)
  chart.sizing_mode, chart.grid.visible = None, False
  chart.axis.visible = bool(item.x_label or item.y_label)
  renderer = chart.image([values], 0.5, 0.5, width, height, color_mapper=colours)
  bar = ColorBar(color_mapper=colours, title=item.unit, ticker=BasicTicker(desired_num_ticks=5), width=10)
  bar.title_text_color = bar.major_label_text_color = BASELINE  # a colour bar ignores the CSS variables of the page
  bar.title_text_font_style, bar.title_text_font_size, bar.background_fill_alpha = "normal", "12px", 0
  chart.add_layout(bar, "right")
  positions = [(item.x_label or "column", "$x{%.0f}"), (item.y_label or "row", "$y{%.0f}")]
  _add_hover(chart, [*positions, (item.unit, "@image{%.4g}")], renderers=[renderer])
  return _exported(chart)


def points(item: figures.Points, sheet: sprites.Sheet) -> Chart:
  """Returns a scatter plot with one renderer for each class. Hovering over a point shows its image from `sheet`.

  A figure may have several views, e.g. PCA and t-SNE. The columns x0, y0, x1, y1, ... of the data source hold the
  coordinates of the points in views 0, 1, ...
  """
  chart = figure(height=520, sizing_mode="stretch_width", tools="pan,wheel_zoom,reset", toolbar_location="above")
  chart.toolbar.active_drag = chart.toolbar.active_scroll = chart.toolbar.logo = None
  chart.axis.visible = chart.grid.visible = False
  classes, of_class = np.unique(item.labels, return_inverse=True)
  colours, numbers = class_colours(len(classes)), np.arange(len(item.labels))
  columns = {}
  for view, coordinates in enumerate(item.views.values()):
    columns |= {f"x{view}": coordinates[:, 0], f"y{view}": coordinates[:, 1]}
  columns |= {"left": numbers % sheet.columns * sheet.width * sheet.scale}
  columns |= {"top": numbers // sheet.columns * sheet.height * sheet.scale}
  names = [labels.class_name(label, item.class_names) for label in classes]
  columns |= {"label": item.labels, "number": numbers}
  columns |= {"caption": np.array(item.captions)} if item.captions else {}
  for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
    data = {column: values[of_class == number] for column, values in columns.items()}
    source = ColumnDataSource(data | ({"label": [name] * len(data["number"])} if item.class_names else {}))
    chart.scatter("x0", "y0", source=source, size=7, color=colour, alpha=0.8, line_color=None, name=name)
  caption = ("class @label" if len(classes) > 1 else "example @number") + (", @caption" if item.captions else "")
  tooltip = f'<div class="thumb" style="{_thumbnail_style(sheet)}"></div><div>{caption}</div>'
  chart.add_tools(HoverTool(tooltips=tooltip, point_policy="snap_to_data", limit=1, show_arrow=False))
  return _exported(chart, zip(names, colours, strict=True) if len(classes) > 1 else ())


def _thumbnail_style(sheet: sprites.Sheet) -> str:
  """Returns the CSS that shows the image of a point, which is a part of the sheet.

  Bokeh inserts the position of the image in the sheet, from the columns `left` and `top` of the data source.
  """
  width, height = sheet.width * sheet.scale, sheet.height * sheet.scale
  image = f"background:var(--{sheet.name}) -@{{left}}px -@{{top}}px/{sheet.columns * width}px auto no-repeat"
  return f"width:{width}px;height:{height}px;{image};image-rendering:pixelated"


def class_colours(count: int) -> list[str]:
  """Returns `count` distinct colours that are visible on light and dark backgrounds."""
  if count <= len(LINES):
    return list(LINES[:count])
  return [palettes.Turbo256[round(20 + 215 * number / (count - 1))] for number in range(count)]


def _figure(height: int | None, x_label: str, y_label: str, **options: Any) -> figure:
  return figure(
    height=height,
    sizing_mode="stretch_width",
    toolbar_location=None,
    tools="",
    x_axis_label=x_label or None,
    y_axis_label=y_label or None,
    **options,
  )


def _set_round_ticks(axis: Any, least: float, most: float) -> None:
  """Sets the ticks of a logarithmic axis; see `axis_positions.round_ticks`."""
  ticks = axis_positions.round_ticks(least, most)
  axis.ticker, axis.formatter = FixedTicker(ticks=ticks) if ticks else BasicTicker(), PrintfTickFormatter(format="%.4g")


def _add_hover(
  chart: figure, tooltips: Sequence[tuple[str, str]], renderers: Sequence[Any], mode: str = "mouse"
) -> None:
  formatters = {field: "printf" for _, text in tooltips for field in _FORMATTED if f"{field}{{" in text}
  chart.add_tools(HoverTool(tooltips=list(tooltips), renderers=renderers, formatters=formatters, mode=mode))


def _line(chart: figure, name: str, curve: Curve, colour: str, size: float | int, group: str) -> Any:
  """Draws a curve as a line and as points, with two renderers named `group`; returns the renderer of the points."""
  x, y = curve
  data = {"x": x, "y": y, "name": [name] * len(x)}
  chart.line("x", "y", source=data, color=colour, line_width=2, name=group)
  return chart.scatter("x", "y", source=data, color=colour, size=size, name=group)


def _exported(chart: figure, legend: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> Chart:
  """Returns {"item": JSON object for BokehJS, "legend": [(name of a renderer, colour)]}."""
  return {"item": embed.json_item(chart), "legend": list(dict(legend).items())}


def _last(measured: Curves, name: str) -> float | None:
  return float(measured[name][1][-1]) if name in measured else None


def _thinned(x: np.ndarray, y: np.ndarray) -> Curve:
  """Reduces a curve to at most `_MAX_POINTS` points, each of which is the mean of consecutive points."""
  every = -(-len(x) // _MAX_POINTS)
  means = lambda values: np.array([values[first : first + every].mean() for first in range(0, len(values), every)])
  return means(x), means(y)

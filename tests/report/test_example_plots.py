"""Plots of series and table rows: names on the axes, positions of windows, and marks of table rows."""

import made_runs
import numpy as np
import pytest

from ae_jax.evaluators import display, figures
from ae_jax.report import blocks, example_plots

SERIES = made_runs.series(20, steps=50, channels=2)
ROWS = SERIES[:, :3, 0]
NAMES = ("age", "glucose mg/dL", "cost $")
MAKERS = {
  "overlaid": lambda x: figures.ExampleRows("title", {"test": x, "reconstructions": 0.5 * x}),
  "rows": lambda x: figures.ExampleRows("title", {"test": x, "noisy": 0.5 * x}),
  "gallery": lambda x: figures.Gallery("title", x),
  "explorer": lambda x: figures.Explorer("title", ("a", "b"), np.arange(2.0), x[:4].reshape(1, 2, 2, *x.shape[1:])),
}


def axes_of(figure):
  """Returns the axes of the picture of a figure."""
  return example_plots.figure(figure, "real").axes[0]


@pytest.mark.parametrize("make", MAKERS.values(), ids=[*MAKERS])
def test_series_have_time_steps_and_table_rows_the_names_of_their_columns(make):
  of_series = axes_of(display.drawable(make(SERIES), "series", value="standardised value"))
  assert of_series.get_xlabel() == "time step"
  assert {label.get_text() for label in of_series.get_xticklabels()} >= {"0", "49"}
  assert "standardised value" in of_series.get_ylabel()
  of_table = axes_of(display.drawable(make(ROWS), "table", NAMES))
  assert of_table.get_xlabel() == "column"
  assert {label.get_text() for label in of_table.get_xticklabels()} == {"age", "glucose mg/dL", r"cost \$"}
  assert {line.get_linestyle() for line in of_table.lines} == {"None"}  # no line joins columns, which have no order
  assert {line.get_linestyle() for line in of_series.lines} == {"-"}


def test_each_window_has_its_position_in_the_recording():
  captions = tuple(f"from step {500 * number}" for number in range(20))
  rows = {"series": SERIES, "reconstructions": SERIES}
  axes = axes_of(figures.ExampleRows("title", rows, x_label="time step", captions=captions))
  assert [text.get_text() for text in axes.texts] == [*captions[:16]]
  assert figures.shape_error(figures.ExampleRows("title", rows, captions=captions[:3])) is not None


def test_pages_contain_the_same_plots_and_name_the_axis_of_thumbnails():
  figure = display.drawable(MAKERS["overlaid"](ROWS), "table", NAMES)
  assert blocks.of_figure(figure, "real")["url"].startswith("data:image/webp")
  explorer = blocks.of_figure(display.drawable(MAKERS["explorer"](ROWS), "table", NAMES), "real")
  assert (explorer["kind"], "glucose mg/dL" in explorer["note"]) == ("explorer", True)
  for kind, x, name in (("table", ROWS, "glucose mg/dL"), ("series", SERIES, "time step")):
    views = {"PCA": np.zeros((len(x), 2))}
    points = display.drawable(figures.Points("title", views, x, np.zeros(len(x), int)), kind, NAMES[: 3 * (x.ndim < 3)])
    assert name in blocks.of_figure(points, "real")["note"]

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


def test_each_channel_of_a_series_has_its_own_panel_and_limits():
  series = np.stack([SERIES[..., 0], 100 * SERIES[..., 1]], -1)
  rows = {"series": series, "reconstructions": 0 * series}
  figure = figures.ExampleRows("title", rows, x_label="time step", captions=tuple(map(str, range(20))))
  axes = axes_of(figure)
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels.count("channel 1") == labels.count("channel 2") == 4  # 16 examples in 4 columns
  originals = [line.get_ydata() for line in axes.lines[:32]]
  span = lambda values: values.max() - values.min()
  for position, (example, channel) in {0: (0, 0), 4: (0, 1), 9: (5, 0), 14: (6, 1)}.items():
    expected = 0.75 * SERIES[example, :, channel] / span(SERIES[:16, :, channel])
    np.testing.assert_allclose(np.diff(originals[position]), np.diff(expected), atol=1e-6)
  assert [text.get_position()[1] > -1.9 for text in axes.texts] == [True] * 8 + [False] * 8


@pytest.mark.parametrize("name", ["rows", "gallery", "explorer"])
def test_legends_name_the_channels_of_series_that_share_a_plot(name):
  picture = example_plots.figure(display.drawable(MAKERS[name](SERIES), "series"), "real")
  assert [text.get_text() for text in picture.legends[0].get_texts()] == ["channel 1", "channel 2"]
  single = example_plots.figure(display.drawable(MAKERS[name](SERIES[..., :1]), "series"), "real")
  assert not single.legends


def test_titles_and_notes_count_the_channels_that_are_drawn():
  many = np.repeat(SERIES, 4, -1)
  block = blocks.of_figure(display.drawable(MAKERS["gallery"](many), "series"), "real")
  assert block["title"] == "title (channels 1 to 6 of 8)"
  block = blocks.of_figure(display.drawable(MAKERS["explorer"](SERIES), "series"), "real")
  assert block["note"].endswith("colours of the channels: 1 blue, 2 orange")


def test_missing_values_of_a_table_are_hollow_except_in_reconstructions():
  observed = np.ones(ROWS.shape, bool)
  observed[2, 1] = observed[3, 0] = False
  for others in ({"reconstructions": 0.5 * ROWS}, {"reconstructions": 0.5 * ROWS, "completed": ROWS}):
    figure = display.drawable(figures.ExampleRows("title", {"test": ROWS, **others}, observed), "table", NAMES)
    picture = example_plots.figure(figure, "real")
    hollow = [line for line in picture.axes[0].lines if line.get_markerfacecolor() == "none"]
    drawn = [np.flatnonzero(np.isfinite(line.get_ydata())).tolist() for line in hollow if len(line.get_ydata())]
    assert drawn == [[1], [0]] * len(others)
    assert picture.legends[0].get_texts()[-1].get_text() == "missing in the data"


def test_missing_steps_of_series_are_left_out_and_their_completion_is_dotted():
  observed = np.ones(SERIES.shape, bool)
  observed[0, 10:20, 1] = False
  rows = {"series": SERIES, "reconstructions": SERIES, "completed": SERIES}
  axes = axes_of(figures.ExampleRows("title", rows, observed, x_label="time step"))
  dotted = [np.flatnonzero(np.isfinite(line.get_ydata())) for line in axes.lines if line.get_linestyle() == ":"]
  assert [steps.tolist() for steps in dotted if len(steps)] == [[9, 20], [*range(9, 21)]]
  solid = np.isfinite(axes.lines[1].get_ydata())
  np.testing.assert_array_equal(solid, observed[0, :, 1])


@pytest.mark.parametrize(("columns", "examples"), [(3, 12), (12, 9), (99, 4)])
def test_small_tables_have_the_names_of_all_columns_below_fewer_rows(columns, examples):
  rows = np.random.default_rng(0).normal(size=(20, columns))
  figure = figures.ExampleRows("title", {"test rows": rows, "completed": rows})
  axes = axes_of(display.drawable(figure, "table", tuple(f"column {number}" for number in range(columns))))
  names = {label.get_text() for label in axes.get_xticklabels()}
  assert (len(names) == columns) == (columns < 99)
  assert len(axes.lines) == 2 * examples


def test_cells_without_an_example_have_no_baseline():
  figure = display.drawable(MAKERS["overlaid"](SERIES[:5]), "series")
  baselines = [path for lines in axes_of(figure).collections for path in lines.get_paths()]
  assert len(baselines) == 2 * 2 * 5  # originals and reconstructions, of two channels

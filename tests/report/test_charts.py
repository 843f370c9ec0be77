"""Charts: the JSON for BokehJS holds every value, in the colour of the legend."""

import base64
import gzip
import json
import math
import struct

import made_runs
import numpy as np
import pytest

from ae_jax.evaluators import figures
from ae_jax.report import axis_positions, charts, plots, sprites
from ae_jax.runs import logs


def every(node, kind):
  """Returns the attributes of all Bokeh objects of a type in a JSON tree."""
  if isinstance(node, list):
    return [attributes for child in node for attributes in every(child, kind)]
  if not isinstance(node, dict):
    return []
  own = [node.get("attributes", {}) | {"id": node["id"]}] if node.get("name") == kind and "id" in node else []
  return own + every(list(node.values()), kind)


def column(data, name):
  """Returns the values of a column of a Bokeh data source."""
  (values,) = [value for key, value in data["data"]["entries"] if key == name]
  if isinstance(values, dict) and values["dtype"] == "object":  # texts
    return list(values["array"])
  if isinstance(values, dict):
    size, kind = math.prod(values["shape"]), {"float64": "d", "int32": "i", "int64": "q"}[values["dtype"]]
    values = struct.unpack(f"{size}{kind}", gzip.decompress(base64.b64decode(values["array"]["data"])))
  return list(values)


def sources(chart):
  """Returns the data sources of a chart."""
  return every(chart["item"], "ColumnDataSource")


RECORDS = made_runs.records(5)
CURVES = logs.curves(RECORDS)


def test_curves_hold_every_record_and_the_baselines():
  losses, errors = charts.losses(CURVES), charts.errors(CURVES)
  assert [name for name, _ in losses["legend"]] == ["training", "test", "lower bound of the test loss, 45.53"]
  assert [name for name, _ in errors["legend"]] == ["autoencoder", "baseline: PCA, 13.19"]
  y_columns = [column(source, "y") for source in sources(losses)]
  assert [record["train/loss"] for record in RECORDS] in y_columns
  assert [record["test/loss"] for record in RECORDS if "test/loss" in record] in y_columns
  assert [13.193, 13.193] in [column(source, "y") for source in sources(errors)]
  assert every(losses["item"], "LogScale")


def test_names_of_curves_say_which_test_examples_they_cover():
  assert [name for name, _ in charts.losses(CURVES, "normal examples")["legend"]][:2] == [
    "training",
    "test, normal examples",
  ]
  assert "squared error per normal test example" in str(charts.errors(CURVES, "normal test example")["item"])


def test_the_baseline_of_a_single_evaluation_is_a_line_and_errors_have_their_unit():
  measured = {"test/squared_error": (np.array([1.0]), np.array([3.0]))}
  measured["test/pca_squared_error"] = (np.array([1.0]), np.array([2.0]))
  chart = charts.errors(measured, unit="in squared units")
  (x,) = [column(source, "x") for source in sources(chart) if column(source, "y") == [2.0, 2.0]]
  assert x[0] < 1 < x[1]
  labels = [axis.get("axis_label") for axis in every(chart["item"], "LogAxis")]
  assert labels == ["squared error per test example,\nin squared units"]


def test_lower_bound_is_shown_only_if_the_loss_is_the_cross_entropy():
  records = [record | {"test/loss": record["test/nats"] + 20} for record in RECORDS if "test/nats" in record]
  assert [name for name, _ in charts.losses(logs.curves(records))["legend"]] == ["training", "test"]


def test_colours_do_not_depend_on_missing_lines():
  test = lambda loss: {"test/loss": (np.array([1.0]), np.array([loss]))}
  assert charts.losses(test(3.0))["legend"] == [("test", charts.TEST)]
  assert charts.losses({}) is None
  assert charts.losses(test(math.nan)) is None


def test_logarithmic_axis_has_round_ticks():
  chart = charts.curves({"a": (np.array([1.0, 2.0]), np.array([0.2, 3.0]))}, {}, "y")
  (ticker,) = every(chart["item"], "FixedTicker")
  assert all(len(str(tick)) <= 3 for tick in ticker["ticks"])  # 3 * 10**-1 is 0.30000000000000004


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_axis_is_linear_if_a_value_is_not_positive(value):
  chart = charts.curves({"a": (np.array([1.0, 2.0]), np.array([value, 3.0]))}, {}, "y")
  assert not every(chart["item"], "LogScale")


def test_long_curve_is_reduced_to_means():
  values = np.random.default_rng(0).uniform(size=12_000)
  chart = charts.curves({"a": (np.arange(12_000.0), values)}, {}, "y")
  np.testing.assert_allclose(column(sources(chart)[0], "y"), values.reshape(-1, 12).mean(1))


def test_legend_lists_the_groups():
  line = (np.array([1.0, 2.0]), np.array([3.0, 4.0]))
  lines, groups = dict.fromkeys("abc", line), {"a": "one", "b": "one", "c": "two"}
  chart = charts.curves(lines, {}, "y", ["#111111", "#111111", "#222222"], groups)
  assert chart["legend"] == [("one", "#111111"), ("two", "#222222")]
  names = {renderer["name"] for renderer in every(chart["item"], "GlyphRenderer")}
  assert names == {"one", "two"}


@pytest.mark.parametrize("names", [(), ("a", "b", "c"), ("a", "a", "b")])
def test_bars_keep_every_value_even_with_equal_names(names):
  chart = charts.bars(figures.Bars("t", names, np.array([3.0, 1.0, 2.0]), "x", "y"))
  assert column(sources(chart)[0], "y") == [3.0, 1.0, 2.0]
  assert len(set(column(sources(chart)[0], "x"))) == 3


def test_lines_and_heatmaps_hold_their_values():
  lines = {"a": np.array([(0, 1), (2.0, 3.0)]), "b": np.array([(0, 1, 2), (4.0, 5.0, 6.0)])}
  chart = charts.lines(figures.Lines("t", lines, "x", "y"))
  assert [name for name, _ in chart["legend"]] == ["a", "b"]
  assert [2.0, 3.0] in [column(source, "y") for source in sources(chart)]
  series = charts.heatmap(figures.Heatmap("t", "unit", np.array([1.0, 4.0, 2.0])))
  assert column(sources(series)[0], "y") == [1.0, 4.0, 2.0]
  for values in (np.eye(3), np.zeros((2, 5))):
    assert every(charts.heatmap(figures.Heatmap("t", "unit", values))["item"], "Image")


def test_names_of_x_are_rows_in_which_the_points_are_apart():
  lines = {name: np.array([(0, 1, 2), (0.5, 0.5, 0.9)]) for name in ("squared error", "kNN distance")}
  chart = charts.lines(figures.Lines("t", lines, "class", "AUROC", ("bent", "a $5 part", "hole")))
  found = [(column(source, "x"), column(source, "y"), column(source, "row")) for source in sources(chart)]
  assert [x for x, _, _ in found] == [[0.5, 0.5, 0.9]] * 2
  assert [names for _, _, names in found] == [["bent", "a $5 part", "hole"]] * 2
  assert (np.diff([y for _, y, _ in found], axis=0) > 0.3).all()
  for _, y, _ in found:
    np.testing.assert_array_equal(np.round(y), [0, 1, 2])


def test_a_logarithmic_x_axis_has_ticks_in_the_unit_of_the_values_and_a_mark():
  lines = {"a": np.array([(0.1, 1, 20), (1.0, 2.0, 3.0)]), "threshold 1.5": np.array([(1.5, 1.5), (0.0, 3.0)])}
  chart = charts.lines(figures.Lines("t", lines, "score", "y", logarithmic_x=True))
  (ticker,) = every(chart["item"], "FixedTicker")
  assert ticker["ticks"] == [0.1, 0.3, 1, 3, 10]
  assert every(chart["item"], "LogScale")
  assert chart["legend"] == [("a", charts.LINES[0]), ("threshold 1.5", charts.BASELINE)]
  assert not every(charts.lines(figures.Lines("t", lines, "score", "y"))["item"], "LogScale")


def test_classes_with_names_are_shown_by_name():
  examples, labels = made_runs.images(6, side=4), np.array([0, 2, 0, 2, 2, 5])
  points = figures.Points("t", {"PCA": np.eye(6)[:, :2]}, examples, labels, ("good", "absent", "bent"))
  chart = charts.points(points, sprites.sheet(sprites.of_examples(examples, 0.0, 1.0), 3, shown=84))
  assert [name for name, _ in chart["legend"]] == ["good", "bent", "5"]
  assert {name for source in sources(chart) for name in column(source, "label")} == {"good", "bent", "5"}
  lines = charts.lines(figures.Lines("t", {"a": np.array([(0, 1), (2.0, 3.0)])}, "x", "y", ("bent", "hole")))
  assert '"hole"' in json.dumps(lines["item"])


@pytest.mark.parametrize("classes", [1, 3, 10, 25])
def test_points_have_the_right_thumbnail_and_class(classes):
  examples, labels = made_runs.images(50, side=4), np.arange(50) % classes
  views = {"PCA": np.random.default_rng(0).normal(size=(50, 2)), "t-SNE": np.random.default_rng(1).normal(size=(50, 2))}
  sheet = sprites.sheet(sprites.of_examples(examples, 0.0, 1.0), 7, shown=84)
  chart = charts.points(figures.Points("t", views, examples, labels), sheet)
  assert len(chart["legend"]) == (classes if classes > 1 else 0)
  assert len({colour for _, colour in chart["legend"]}) == len(chart["legend"])
  seen = set()
  for source in sources(chart):
    numbers = column(source, "number")
    seen |= set(numbers)
    assert len(set(labels[numbers])) == 1
    np.testing.assert_allclose(column(source, "x1"), views["t-SNE"][numbers, 0])
    cell = 4 * sheet.scale
    assert column(source, "left") == [number % 7 * cell for number in numbers]
    assert column(source, "top") == [number // 7 * cell for number in numbers]
  assert seen == set(range(50))


def test_script_is_the_complete_library():
  text = charts.script()
  assert "Bokeh" in text
  assert "</script" not in text
  assert len(text) > 500_000


def test_rows_of_points_have_an_axis_even_if_all_values_are_equal_or_not_finite():
  limits = lambda *values: axis_positions.limits_of_rows([np.array([np.arange(len(values)), values])])
  assert limits(1.0, 1.0) == pytest.approx((0.99, 1.01))
  assert limits(0.0, np.nan, 1.0) == pytest.approx((-0.04, 1.04))
  assert limits(np.nan) == pytest.approx((-0.01, 0.01))


def test_the_axis_of_rows_of_points_ends_at_the_bounds_of_the_values_and_does_not_clip_them(tmp_path, monkeypatch):
  line = np.array([[0, 1], [0.6, 2.0]])
  assert axis_positions.limits_of_rows([line], (0.0, 2.0)) == pytest.approx((0.544, 2.0))
  item = figures.Lines("areas", {"score": line}, "class", "area", ("a", "b"), y_bounds=(0.0, 2.0))
  figures.save(tmp_path / "areas.npz", item)
  item = figures.load(tmp_path / "areas.npz")
  chart = charts.lines(item)["item"]
  assert 2.0 in [each["end"] for each in every(chart, "Range1d")]
  assert [each.get("level") for each in every(chart, "GlyphRenderer")] == ["annotation"]  # Bokeh clips lower levels
  drawn = []
  monkeypatch.setattr(plots.canvas.Figure, "savefig", lambda figure, path: drawn.append(figure))
  plots.lines(tmp_path / "areas.png", item, "unit")
  (axes,) = drawn[0].axes
  assert axes.get_xlim()[1] == 2.0
  assert not any(points.get_clip_on() for points in axes.lines)

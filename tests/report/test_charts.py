"""Charts: what BokehJS is given holds every number, in the colour that the legend says."""

import base64
import gzip
import math
import struct

import made_runs
import numpy as np
import pytest

from ae_jax.evaluators import figures
from ae_jax.report import charts, sprites
from ae_jax.runs import logs


def every(found, kind):
  """All objects of a type that a chart consists of, as attributes."""
  if isinstance(found, list):
    return [one for each in found for one in every(each, kind)]
  if not isinstance(found, dict):
    return []
  own = [found.get("attributes", {}) | {"id": found["id"]}] if found.get("name") == kind and "id" in found else []
  return own + every(list(found.values()), kind)


def column(data, name):
  """The values of a column, as BokehJS will read them."""
  (found,) = [value for key, value in data["data"]["entries"] if key == name]
  if isinstance(found, dict):
    size, kind = math.prod(found["shape"]), {"float64": "d", "int32": "i", "int64": "q"}[found["dtype"]]
    found = struct.unpack(f"{size}{kind}", gzip.decompress(base64.b64decode(found["array"]["data"])))
  return list(found)


def sources(made):
  return every(made["item"], "ColumnDataSource")


RECORDS = made_runs.records(5)
CURVES = logs.curves(RECORDS)


def test_the_curves_hold_every_record_beside_the_floor_and_pca():
  losses, errors = charts.losses(CURVES), charts.errors(CURVES)
  assert [name for name, _ in losses["legend"]] == ["training", "test", "the floor, 45.53"]
  assert [name for name, _ in errors["legend"]] == ["this model", "PCA, 13.19"]
  found = [column(source, "y") for source in sources(losses)]
  assert [record["train/loss"] for record in RECORDS] in found
  assert [record["test/loss"] for record in RECORDS if "test/loss" in record] in found
  assert [13.193, 13.193] in [column(source, "y") for source in sources(errors)]
  assert every(losses["item"], "LogScale")


def test_the_floor_is_shown_only_under_what_has_it():
  records = [record | {"test/loss": record["test/nats"] + 20} for record in RECORDS if "test/nats" in record]
  assert [name for name, _ in charts.losses(logs.curves(records))["legend"]] == ["training", "test"]


def test_a_line_that_is_not_there_takes_no_colour_from_the_others():
  test = lambda loss: {"test/loss": (np.array([1.0]), np.array([loss]))}
  assert charts.losses(test(3.0))["legend"] == [("test", charts.TEST)]
  assert charts.losses({}) is None
  assert charts.losses(test(math.nan)) is None


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_what_has_no_logarithm_is_on_a_linear_axis(value):
  made = charts.curves({"a": (np.array([1.0, 2.0]), np.array([value, 3.0]))}, {}, "y")
  assert not every(made["item"], "LogScale")


def test_a_long_curve_is_thinned_to_means():
  values = np.random.default_rng(0).uniform(size=12_000)
  made = charts.curves({"a": (np.arange(12_000.0), values)}, {}, "y")
  found = column(sources(made)[0], "y")
  np.testing.assert_allclose(found, values.reshape(-1, 12).mean(1))


def test_groups_are_what_the_legend_names():
  line = (np.array([1.0, 2.0]), np.array([3.0, 4.0]))
  lines, groups = dict.fromkeys("abc", line), {"a": "one", "b": "one", "c": "two"}
  made = charts.curves(lines, {}, "y", ["#111111", "#111111", "#222222"], groups)
  assert made["legend"] == [("one", "#111111"), ("two", "#222222")]
  names = {renderer["name"] for renderer in every(made["item"], "GlyphRenderer")}
  assert names == {"one", "two"}


@pytest.mark.parametrize("names", [(), ("a", "b", "c"), ("a", "a", "b")])
def test_bars_have_each_value_even_of_equal_names(names):
  made = charts.bars(figures.Bars("t", names, np.array([3.0, 1.0, 2.0]), "x", "y"))
  assert column(sources(made)[0], "y") == [3.0, 1.0, 2.0]
  assert len(set(column(sources(made)[0], "x"))) == 3


def test_lines_and_heatmaps_hold_their_numbers():
  lines = {"a": np.array([(0, 1), (2.0, 3.0)]), "b": np.array([(0, 1, 2), (4.0, 5.0, 6.0)])}
  made = charts.lines(figures.Lines("t", lines, "x", "y"))
  assert [name for name, _ in made["legend"]] == ["a", "b"]
  assert [2.0, 3.0] in [column(source, "y") for source in sources(made)]
  series = charts.heatmap(figures.Heatmap("t", "unit", np.array([1.0, 4.0, 2.0])))
  assert column(sources(series)[0], "y") == [1.0, 4.0, 2.0]
  for values in (np.eye(3), np.zeros((2, 5))):
    assert every(charts.heatmap(figures.Heatmap("t", "unit", values))["item"], "Image")


@pytest.mark.parametrize("classes", [1, 3, 10, 25])
def test_points_know_their_picture_and_their_class(classes):
  examples, labels = made_runs.images(50, side=4), np.arange(50) % classes
  views = {"PCA": np.random.default_rng(0).normal(size=(50, 2)), "t-SNE": np.random.default_rng(1).normal(size=(50, 2))}
  sheet = sprites.sheet(sprites.of_examples(examples, 0.0, 1.0), 7, shown=84)
  made = charts.points(figures.Points("t", views, examples, labels), sheet)
  assert len(made["legend"]) == (classes if classes > 1 else 0)
  assert len({colour for _, colour in made["legend"]}) == len(made["legend"])
  seen = set()
  for source in sources(made):
    numbers = column(source, "number")
    seen |= set(numbers)
    assert len(set(labels[numbers])) == 1
    np.testing.assert_allclose(column(source, "x1"), views["t-SNE"][numbers, 0])
    cell = 4 * sheet.scale
    assert column(source, "left") == [number % 7 * cell for number in numbers]
    assert column(source, "top") == [number // 7 * cell for number in numbers]
  assert seen == set(range(50))


def test_the_library_is_all_there():
  text = charts.script()
  assert "Bokeh" in text
  assert "</script" not in text
  assert len(text) > 500_000

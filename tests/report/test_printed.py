"""Lines of results that `ae_jax evaluate` prints."""

import math

import pytest

from ae_jax.data import schema
from ae_jax.report import printed

COLUMNS = (
  schema.Column("size", "numeric"),
  schema.Column("city", "categorical", words=("a", "b")),
  schema.Column("day", "date"),
  schema.Column("pixels", "boolean"),
)


def of(results, **options):
  """Returns {name: text of the value}."""
  return {line[:40].strip(): line[41:] for line in printed.lines(results, **options)}


def test_classes_have_their_names():
  found = of({"squared_error/class_1": 2.5, "reconstruction/ssim": "no images"}, class_names=("good", "bent"))
  assert found == {"squared_error/class bent": "2.5", "reconstruction/ssim": "no images"}


def test_errors_of_columns_have_a_unit():
  names = ("size", "city", "day", "pixels")
  found = of({f"column_errors/{name}": 0.5 for name in names}, schema=schema.Schema(COLUMNS), kind="table")
  assert found == {
    "column_errors/size": "0.5 in the unit of the column (RMSE)",
    "column_errors/city": "0.5 (fraction of wrong values)",
    "column_errors/day": "0.5 days (RMSE)",
    "column_errors/pixels": "0.5 (fraction of wrong values)",
  }
  (stored,) = of({"reconstruction/column_rmse/day": 2.0}, schema=schema.Schema(COLUMNS)).values()
  assert stored == "2 days"


@pytest.mark.parametrize(
  ("name", "bounds", "text"),
  [
    ("squared_error", {"_low": 1.0, "_high": 3.5}, "2 (1 to 3.5, 95 % interval)"),
    ("squared_error", {"_low": math.nan, "_high": math.nan}, "2"),
    ("linear_few", {"_low": 1.0, "_high": 3.5}, "2 (1 to 3.5, lowest and highest draw)"),
    ("codes_dimension_twonn", {"_low": 1.0, "_high": 99.0}, "2 (at least 1, 95 % interval)"),
    ("nll", {"_standard_error": 0.25}, "2 ± 0.25 (standard error)"),
  ],
)
def test_a_value_has_its_interval_in_its_line(name, bounds, text):
  assert of({name: 2.0} | {name + end: value for end, value in bounds.items()}) == {name: text}


def test_bounds_are_found_behind_the_name_of_an_evaluator_but_not_in_the_names_of_columns():
  found = of({"probe/linear_few/code": 2.0, "probe/linear_few_low/code": 1.0, "probe/linear_few_high/code": 3.0})
  assert found == {"probe/linear_few/code": "2 (1 to 3, lowest and highest draw)"}
  columns = {f"column_errors/{name}": 1.0 for name in ("pressure", "pressure_low", "pressure_high")}
  assert of(columns).keys() == columns.keys()


@pytest.mark.parametrize(
  ("kind", "shown"), [("images", "pixels"), ("table", "raw elements"), ("series", "raw elements")]
)
def test_only_elements_of_images_are_called_pixels(kind, shown):
  assert of({"probe/linear/pixels": 0.5}, kind=kind) == {f"probe/linear/{shown}": "0.5"}

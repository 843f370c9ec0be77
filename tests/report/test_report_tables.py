"""Metrics of a run as tables of texts."""

import math

import numpy as np
import pytest
from scipy import stats

from ae_jax.report import tables
from ae_jax.runs import logs


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (3, "3"),
    (3.0, "3"),
    (419120, "419,120"),
    (3.14159, "3.142"),
    (12345.678, "12,345.7"),
    (0.000012345, "1.234e-05"),
    (-0.5, "-0.5"),
    (math.nan, "not finite"),
    (None, "not finite"),
    (2.248673678500904e21, "2.249e+21"),
    (-1e15, "-1e+15"),
    (999999999999999, "999,999,999,999,999"),
    (math.inf, "∞"),
    (-math.inf, "-∞"),
  ],
)
def test_number_formats(value, text):
  assert tables.number(value) == text


def test_numbers_with_few_digits_have_no_exponent_below_ten_thousand():
  assert tables.number(5432.1, 3) == "5,432"
  assert tables.number(543.21, 3) == "543"
  assert tables.number(9999.7, 4) == "1e+04"


def test_readable_names():
  assert tables.readable("pca_squared_error") == "PCA squared error"
  assert tables.readable("codes_dimension_twonn") == "codes dimension TwoNN"


RECORDS = [
  {"step": 1, "epoch": 0.5, "train/loss": 9.0},
  {"step": 2, "epoch": 1.0, "train/loss": 7.0, "test/squared_error": 5.0, "test/psnr": 20.0, "test/nats_floor": 4.0},
  {"step": 3, "epoch": 2.0, "train/loss": 8.0, "test/squared_error": 4.0, "test/psnr": 22.0, "test/nats_floor": 4.0},
  {"step": 4, "epoch": 3.0, "train/loss": math.nan, "test/squared_error": 6.0, "test/psnr": 21.0, "test/active": 3}
  | {"test/mean_predictor_squared_error": 9.0},
]


def test_best_value_is_the_lowest_error_and_the_highest_psnr():
  lines, more = tables.over_epochs(logs.curves(RECORDS))
  found = {line[0]: line[1:] for line in lines}
  assert found == {
    "training loss": ["not finite", "7", "1"],
    "test squared error": ["6", "4", "2"],
    "test PSNR": ["21", "22", "2"],
    "test nats lower bound": ["4", "", ""],  # a baseline
    "test mean predictor squared error": ["9", "", ""],
    "test active": ["3", "", ""],  # the name does not say which value is best
  }
  assert more == []
  assert tables.over_epochs({}) == ([], [])


def test_best_loss_is_of_the_last_stage():
  stages = [0, 0, 1, 1]
  losses, error = [1.0, 2.0, 9.0, 8.0], [3.0, 1.0, 5.0, 4.0]
  records = [
    {"step": n, "epoch": n / 2, "stage": stages[n], "train/loss": losses[n], "test/loss": losses[n]}
    | {"test/squared_error": error[n]}
    for n in range(4)
  ]
  lines, _ = tables.over_epochs(logs.curves(records))
  found = {line[0]: line[1:] for line in lines}
  assert found["training loss"] == found["test loss"] == ["8", "8", "1.5"]
  assert found["test squared error"] == ["4", "1", "0.5"]  # the same measure in all stages


def test_interval_with_a_bound_that_is_not_finite_is_left_out():
  values = {"nll": 5.0, "nll_standard_error": math.nan, "a": 2.0, "a_low": 1.0, "a_high": math.inf}
  assert tables.of_values(values)[0] == [["NLL", "5"], ["a", "2"]]


def test_metrics_with_parts_get_their_own_table():
  psnr = {"test/psnr_in/a": 1.0, "test/psnr_in/b": 2.0, "test/psnr_out/a": 3.0, "test/psnr_out/b": 4.0}
  lines, more = tables.over_epochs(logs.curves([{"step": 1, "epoch": 1.0} | psnr]))
  assert lines == []
  assert more == [(["", "PSNR in", "PSNR out"], [["a", "1", "3"], ["b", "2", "4"]])]


def test_values_are_shown_with_their_intervals():
  values = {"dimension": 12.0, "dimension_low": 11.0, "dimension_high": 13.0, "nll": 100.5, "nll_standard_error": 0.25}
  lines, more = tables.of_values(values | {"low": 1.0, "a_low": 2.0})
  assert lines == [["dimension", "12 (11 to 13)"], ["NLL", "100.5 ± 0.25"], ["low", "1"], ["a low", "2"]]
  assert more == []


@pytest.mark.parametrize(
  ("interval", "text"),
  [
    ((3.311, 2.15061, 3.69204), "3.31 (2.15 to 3.69)"),
    ((0.711667, 0.641667, 0.775), "0.712 (0.642 to 0.775)"),
    ((13.193, 13.1901, 13.1963), "13.1930 (13.1901 to 13.1963)"),
    ((12, 11, 13), "12 (11 to 13)"),
    ((0.5, 0.5, 0.5), "0.5 (0.5 to 0.5)"),
    ((-0.25, -1.5, 1.25), "-0.25 (-1.50 to 1.25)"),
    ((0, 0, 0), "0 (0 to 0)"),
    ((12345.6, 12000.4, 12500.3), "12,346 (12,000 to 12,500)"),
    ((1.792, 1.79, 192), "1.79 (1.79 to 192.00)"),
  ],
)
def test_bounds_have_the_precision_of_their_value(interval, text):
  assert tables.with_bounds(*interval) == text


def test_upper_end_of_a_dimension_that_is_no_bound_is_left_out():
  names = ("data_dimension_twonn", "data_dimension_twonn_low", "data_dimension_twonn_high")
  lines, _ = tables.of_values(dict(zip(names, (1.792, 1.743, 192.0), strict=True)))
  assert lines == [["data dimension TwoNN", "1.792 (at least 1.743)"]]
  lines, _ = tables.of_values(dict(zip(names, (1.79, 1.64, 3.0), strict=True)))
  assert lines == [["data dimension TwoNN", "1.79 (1.64 to 3.00)"]]


def test_bounds_are_found_with_and_without_the_name_of_an_evaluator_but_not_in_the_names_of_columns():
  for prefix in ("", "probe/"):
    names = [f"{prefix}linear_few{end}/code" for end in ("", "_low", "_high")]
    assert tables.bounds(names[0], names) == {"_low": names[1], "_high": names[2]}
    assert tables.names_of_bounds(names) == {*names[1:]}
    assert tables.names_of_bounds([f"{prefix}column_rmse/{name}" for name in ("heat", "heat_low")]) == set()
  values = {"probe/linear_few/code": 2.0, "probe/linear_few_low/code": 1.0, "probe/linear_few_high/code": 3.0}
  assert tables.of_values(values)[1] == [(["", "probe / linear few"], [["code", "2 (1 to 3)"]])]


def test_every_value_is_shown_once():
  values = {f"{what}/{which}": hash((what, which)) % 97 for what in "abc" for which in ("x", "y")}
  values |= {"a_low/x": 1, "a_high/x": 2, "d/z": 5, "e": 6}
  lines, more = tables.of_values(values)
  texts = [text for line in [*lines, *(line for _, table in more for line in table)] for text in line[1:]]
  assert len(texts) == len(values) - 2
  assert sum("(1 to 2)" in text for text in texts) == 1


def test_names_of_columns_are_exact_and_errors_of_dates_have_a_unit():
  values = {"column_rmse/glucose mg%2FdL": 2.0, "column_rmse/heart_rate": 3.0, "column_rmse/kl": 1.0}
  values |= {"column_rmse/visit": 1.5, "column_rmse/class 0": 4.0, "auroc/class_0": 0.5}
  _, more = tables.of_values(values, class_names=("good",), dates=("visit",))
  assert dict(map(tuple, more[0][1])) == {
    "glucose mg/dL": "2",
    "heart_rate": "3",
    "kl": "1",
    "visit": "1.5 days",
    "class 0": "4",
  }
  assert more[1][1] == [["class good", "0.5"]]
  assert tables.readable("column_rmse/heart_rate mg%2FdL") == "column RMSE / heart_rate mg/dL"


def test_metrics_of_classes_have_the_names_of_the_classes():
  exact = {
    "auroc/distance/class_1": "auroc/distance/class broken_large",
    "auroc/distance/class_2": "auroc/distance/class 2",
    "column_rmse/class_1": "column_rmse/class_1",
    "column_rmse/a%2Fb": "column_rmse/a/b",
  }
  for name, text in exact.items():
    assert tables.exact(name, ("good", "broken_large")) == text
  assert tables.exact("auroc/class_0", ()) == "auroc/class_0"
  _, more = tables.over_epochs({"test/auroc/class_0": (np.ones(1), np.ones(1))}, ("good",))
  assert more == [(["", "AUROC"], [["class good", "1"]])]


@pytest.mark.parametrize(
  ("days", "text"), [(12.5, "12.5 days"), (0.5, "12 hours"), (1 / 96, "15 minutes"), (1e-4, "8.64 seconds")]
)
def test_durations_have_a_suitable_unit(days, text):
  assert tables.duration(days) == text


def test_wide_table_is_transposed():
  said = {f"{what}/{which}": f"{what}{which}" for what in "abcd" for which in "xy"}
  ((head, lines),) = tables.pivots(said)
  assert head == ["", "x", "y"]
  assert lines[2] == ["c", "cx", "cy"]


@pytest.mark.parametrize("count", [3, 5, 20])
def test_interval_agrees_with_scipy(count):
  values = np.random.default_rng(count).normal(size=count)
  low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
  assert tables.interval(values) == pytest.approx((high - low) / 2, rel=1e-12)
  assert tables.interval(values[:2]) is None


def test_interval_has_the_nominal_coverage():
  draws = np.random.default_rng(0).normal(size=(400, 4))
  assert abs(np.mean([abs(each.mean()) < tables.interval(each) for each in draws]) - 0.95) < 0.03

"""Tests of dates in texts and numbers."""

import pandas as pd
import pytest

from ae_jax.data import dates

DAY = pd.Timestamp("2026-03-01 00:15", tz="UTC")


@pytest.mark.parametrize(
  "text",
  [
    "2026-03-01 00:15",
    "2026-03-01T00:15:00Z",
    "2026/03/01 00:15",
    "01.03.2026 00:15",
    "1.3.2026 0:15",
    "2026-3-1 00:15",
  ],
)
def test_dates_of_one_meaning_are_recognised(text):
  assert dates.are_dates([text]).all()
  assert dates.parse(pd.Series([text, "n/a"])).tolist() == [DAY, pd.NaT]
  assert dates.are_dates([text, "n/a"]).tolist() == [True, False]


@pytest.mark.parametrize(
  "text", ["00:15", "3", "1.5", "v1.2.2026x", "99.99.2026", "20260301", "", "03/01/2026", "word"]
)
def test_other_texts_are_no_dates(text):
  assert not dates.are_dates([text]).any()


def test_many_texts_are_examined_if_the_first_ones_are_dates():
  texts = pd.date_range("2026", periods=5000, freq="h").astype(str).tolist()
  assert dates.are_dates(texts).all()
  assert dates.are_dates([*texts, "x"]).sum() == 5000
  assert not dates.are_dates(["x"] * 9000 + texts).any()


def test_slashes_are_read_with_the_month_first_unless_a_number_is_no_month():
  assert dates.parse(pd.Series(["03/01/2026 00:15"])).tolist() == [DAY]
  found = dates.parse(pd.Series(["01/03/2026 00:15", "13/03/2026"]))
  assert found.tolist() == [DAY, pd.Timestamp("2026-03-13", tz="UTC")]
  assert dates.parse(pd.Series(["03/01/2026 12:15 AM"])).tolist() == [DAY]


def test_times_without_a_date_are_not_those_of_today():
  assert dates.parse(pd.Series(["00:15:00", "12:00"])).isna().all()


@pytest.mark.parametrize("per_second", [1, 1e3, 1e6, 1e9])
def test_numbers_are_times_since_1970(per_second):
  found = dates.of_numbers(pd.Series([DAY.timestamp() * per_second, None]))
  assert found.tolist() == [DAY, pd.NaT]


def test_numbers_of_eight_digits_are_dates():
  assert dates.of_numbers(pd.Series([20260301])).tolist() == [DAY.normalize()]
  assert dates.of_numbers(pd.Series([1.0, 2.0])).isna().all()


@pytest.mark.parametrize(
  ("first", "expected"),
  [
    ("2024-05-31T12:00:00+02:00", True),
    ("2024-05-31 12:00Z", True),
    ("2024-05-31 12:00:00.5 -0500", True),
    ("2024-05-31 12:00", False),
    ("2024-05-31", False),
    (pd.Timestamp("2024"), False),
  ],
)
def test_dates_with_a_time_zone_are_recognised(first, expected):
  assert dates.have_zone(pd.Series([None, first, None])) is expected
  assert dates.have_zone(pd.Series(pd.date_range("2024", periods=2, tz="Asia/Seoul")))
  assert not dates.have_zone(pd.Series([None], dtype=object))

"""Names of columns in names of metrics: any name, and names that are equal but for "/"."""

import pytest

from ae_jax.runs import metric_names

NAMES = ("age", "glucose mg/dL", "glucose mg_dL", "a%2Fb", "a/b", "a%252Fb", "100 %", "%25", "/", "a//b%2F%252F/")


@pytest.mark.parametrize("name", NAMES)
def test_names_come_back_and_have_no_separator(name):
  part = metric_names.part(name)
  assert "/" not in part
  assert metric_names.in_words(part) == name
  assert metric_names.in_words(f"column_rmse/{part}") == f"column_rmse/{name}"


def test_different_names_stay_different_and_names_without_a_slash_are_kept():
  assert len({metric_names.part(name) for name in NAMES}) == len(NAMES)
  assert [metric_names.part(name) for name in ("age", "100 %", "%25")] == ["age", "100 %", "%25"]

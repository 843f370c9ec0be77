import pathlib

import pytest

from ae_jax.report import words

METRICS = {
  "epoch": 3.0,
  "test/squared_error": 5.0,
  "test/pca_squared_error": 10.0,
  "test/nats": 70.0,
  "test/nats_floor": 45.5,
  "images_per_second": 12345.6,
  "compile_seconds": 2.25,
}


def test_a_code_as_large_as_the_data_is_not_held_against_pca():
  said = words.closing({**METRICS, "test/pca_squared_error": 1e-9}, pathlib.Path("runs/x"))
  assert "no better" not in said.splitlines()[0]
  assert "as large as the data" in said.splitlines()[0]


@pytest.mark.parametrize(
  ("error", "verdict"),
  [(5.0, "that is 50% of PCA's"), (11.0, "no better than PCA"), (float("nan"), "diverged"), (float("inf"), "diverged")],
)
def test_the_closing_words_judge(error, verdict):
  said = words.closing({**METRICS, "test/squared_error": error}, pathlib.Path("runs/x"))
  assert verdict in said.splitlines()[0]


def test_the_closing_words_name_every_figure_and_where_to_look():
  said = words.closing(METRICS, pathlib.Path("runs/x"))
  for part in (
    "3 epochs",
    "5.000",
    "10.000",
    "70.00",
    "45.50",
    "12,346",
    "2.2 s",
    "runs/x/pictures/reconstructions.png",
  ):
    assert part in said
  assert "Cross-entropy" not in words.closing({k: v for k, v in METRICS.items() if "nats" not in k}, pathlib.Path("x"))

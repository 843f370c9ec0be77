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
GAUSSIAN = {name: value for name, value in METRICS.items() if "nats" not in name}
DENSE = {"name": "dense", "latent": 32, "bottleneck": "identity"}


def test_a_code_as_large_as_the_data_is_not_held_against_pca():
  said = words.closing({**METRICS, "test/pca_squared_error": 1e-9}, DENSE, pathlib.Path("runs/x"))
  assert "no better" not in said.splitlines()[0]
  assert "as large as the data" in said.splitlines()[0]


@pytest.mark.parametrize(
  ("error", "verdict"),
  [(5.0, "that is 50% of PCA's"), (11.0, "no better than PCA"), (float("nan"), "diverged"), (float("inf"), "diverged")],
)
def test_the_closing_words_judge(error, verdict):
  said = words.closing({**METRICS, "test/squared_error": error}, DENSE, pathlib.Path("runs/x"))
  assert verdict in said.splitlines()[0]


def test_the_closing_words_name_every_figure_and_where_to_look():
  said = words.closing(METRICS, DENSE, pathlib.Path("runs/x"))
  for part in (
    "3 epochs",
    "5.000",
    "10.000",
    "70.00",
    "45.50",
    "12,346",
    "2.2 s",
    "runs/x/report.html",
  ):
    assert part in said
  assert "Cross-entropy" not in words.closing(GAUSSIAN, DENSE, pathlib.Path("x"))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({}, "squared error of 5, 50% of the 10 that PCA leaves with the same 32 numbers. The cross-entropy is 24.5 nats"),
    ({"test/squared_error": 11.0}, "no better than PCA with its 32 numbers, 10: train longer"),
    ({"test/pca_squared_error": 1e-9}, "so large that PCA with its 32 numbers would make none"),
    ({"test/squared_error": float("nan")}, "diverged: lower the learning rate"),
    ({"test/nats": float("nan")}, "the same 32 numbers."),
    ({"test/auroc": 0.926, "test/pca_auroc": 0.54}, "an AUROC of 0.926, by PCA's with 0.540."),
  ],
)
def test_the_headline_judges(changes, said):
  assert said in words.headline(METRICS | changes, DENSE)


def test_a_quantised_code_is_not_told_to_train_longer():
  quantised, worse = DENSE | {"bottleneck": "fsq5"}, METRICS | {"test/squared_error": 11.0}
  for said in (words.headline(worse, quantised), words.closing(worse, quantised, pathlib.Path("runs/x"))):
    assert "no better than PCA" in said
    assert "more units or levels" in said
    assert "train longer" not in said


def test_the_headline_of_a_run_that_was_not_evaluated_yet():
  assert "has begun" in words.headline({"epoch": 0.1, "train/loss": 3.0}, DENSE)
  assert "the same 1 number." in words.headline(GAUSSIAN, DENSE | {"latent": 1})

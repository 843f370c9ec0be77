"""Results of a sweep: rows, the knee and its interval, the rate-distortion curves, and the answer."""

import csv
import json
import math
import types

import pytest
from stubs import stub_member

from ae_jax.report import tables
from ae_jax.runs import logs
from ae_jax.sweep import summary, trainer


def row(latent, error, seed=0, **others):
  return {
    "name": f"latent={latent},seed={seed}" + "".join(f",{key.split('.')[-1]}={value}" for key, value in others.items()),
    "latent": latent,
    "seed": seed,
    "status": "done",
    "squared_error": error,
    **others,
  }


def answer(rows):
  return summary.sentence(rows, summary.conclusion(rows, {}))


def test_the_knee_is_the_first_size_whose_doubling_gains_little():
  rows = [row(2, 8.0), row(4, 4.0), row(8, 2.0), row(16, 1.96), row(32, 1.96)]
  assert answer(rows) == "Latent size 8 is enough: doubling it reduces the error by 2%."
  assert summary.knee({2: [8.0], 8: [4.0], 32: [3.9]})["latent"] == 8  # two doublings of 1 % each


def test_the_error_of_a_single_size_has_its_unit():
  conclusion = summary.conclusion([row(4, 2.0)], {}, "in squared standard deviations")
  assert summary.sentence([row(4, 2.0)], conclusion).endswith("4 is 2.000 in squared standard deviations.")
  assert answer([row(4, 2.0)]).endswith("4 is 2.000.")


def test_settings_and_sizes_are_chosen_on_the_validation_set_if_there_is_one():
  rows = [
    row(latent, test, beta=beta) | {"validation_squared_error": validation}
    for latent, beta, test, validation in [(2, 1, 8.0, 8.0), (4, 1, 4.0, 7.9), (2, 2, 9.0, 6.0), (4, 2, 5.0, 5.9)]
  ]
  assert summary.best(rows) == "beta=2"
  conclusion = summary.conclusion(rows, {})
  assert (conclusion["curve"], conclusion["knee"]["latent"]) == ("beta=2", 2)
  assert summary.curves(rows)["beta=2"] == {2: [9.0], 4: [5.0]}  # the chart shows the test errors
  for each in rows:
    del each["validation_squared_error"]
  assert summary.best(rows) == "beta=1"
  assert summary.conclusion(rows, {})["knee"] is None


@pytest.mark.parametrize("name", ["test/squared_error", "validation/squared_error"])
def test_halving_compares_the_errors_on_the_validation_set_if_there_is_one(tmp_path, name):
  records = [{"step": 1, "epoch": 1.0, "test/squared_error": 3.0} | {name: 2.0}]
  (tmp_path / "m").mkdir()
  (tmp_path / "m" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
  assert summary.error_after(tmp_path, stub_member("m", 4), 1) == 2.0


@pytest.mark.parametrize("ratio", [2, 4, 16])
def test_the_gain_of_a_doubling_does_not_depend_on_the_ratio_of_the_sizes(ratio):
  for gain, enough in ((0.04, True), (0.06, False)):
    curve = {3: [7.0], 3 * ratio: [7.0 * (1 - gain) ** math.log2(ratio)]}
    knee = summary.knee(curve)
    assert (knee is not None) == enough
    assert not enough or knee["gain"] == pytest.approx(gain)


@pytest.mark.parametrize(("rare", "latent", "low", "high"), [(3.3, 8, 4, 8), (3.79, 4, 4, 8)])
def test_the_interval_contains_a_knee_of_one_in_sixteen_bootstrap_samples(rare, latent, low, high):
  # two of four seeds have the error `rare` at 8: a sample has four of them, or none, with probability 1/16 each
  curve = {2: [8.0] * 4, 4: [4.0] * 4, 8: [3.9, 3.9, rare, rare], 16: [3.9] * 4}
  knee = summary.knee(curve)
  assert (knee["latent"], knee["low"], knee["high"]) == (latent, low, high)


def test_the_interval_excludes_a_knee_of_one_in_256_bootstrap_samples():
  # 4 is not enough only if all eight draws of a sample are 3.79
  curve = {2: [8.0] * 8, 4: [4.0] * 8, 8: [3.9] * 4 + [3.79] * 4, 16: [3.9] * 8}
  knee = summary.knee(curve)
  assert (knee["latent"], knee["low"], knee["high"]) == (4, 4, 4)


def test_the_interval_of_the_knee_reflects_the_seeds():
  errors = {2: (8.0, 8.1, 7.9), 4: (4.0, 4.1, 3.9), 8: (3.7, 4.3, 3.4), 16: (3.6, 3.7, 3.6)}
  rows = [row(latent, error, seed) for latent, seeds in errors.items() for seed, error in enumerate(seeds)]
  knee = summary.conclusion(rows, {})["knee"]
  assert knee["low"] <= knee["latent"] <= knee["high"]
  assert knee["low"] < knee["high"]
  assert "over the seeds" in answer(rows)


@pytest.mark.parametrize(
  ("rows", "sentence"),
  [
    (
      [row(2, 8.0), row(4, 4.0)],
      "No latent size is enough: from 2 to 4 the error still falls by 50%; try larger ones.",
    ),
    ([row(2, 8.0)], "The squared error per test example at latent size 2 is 8.000."),
    ([row(2, 8.0), row(4, 9.0)], "Latent size 2 is enough: a larger one does not reduce the error."),
    (
      [{"name": "latent=2", "latent": 2, "status": "diverged at step 3"}],
      "No member was trained to the end without diverging: lower the learning rate.",
    ),
  ],
)
def test_the_answer_without_a_knee(rows, sentence):
  assert answer(rows) == sentence


def test_the_best_member_was_trained_to_the_end_and_has_the_smallest_validation_error():
  stopped = row(2, 1.0, beta=1) | {"status": "stopped after epoch 2"}
  diverged = row(2, math.nan, beta=2)
  assert summary.best_member([stopped, diverged]) is None
  assert summary.best_member([stopped, row(2, 3.0, beta=4), row(2, 2.0, beta=8)]) == row(2, 2.0, beta=8)["name"]
  validated = [row(2, error, beta=error) | {"validation_squared_error": 9 - error} for error in (3, 4)]
  assert summary.best_member(validated) == validated[1]["name"]


def test_the_answer_is_that_of_the_best_setting():
  rows = [row(2, 3.0, beta=0.5), row(4, 2.0, beta=0.5), row(2, 9.0, beta=4), row(4, 8.0, beta=4)]
  assert summary.best(rows) == "beta=0.5"
  assert answer(rows).endswith("(with beta=0.5).")


def test_the_best_setting_has_the_smallest_error_at_the_largest_latent_size():
  crossing = [row(2, 3.0, beta=1), row(4, 2.0, beta=1), row(2, 9.0, beta=4), row(4, 1.0, beta=4)]
  assert summary.best(crossing) == "beta=4"
  assert summary.best([row(2, 3.0, beta=1), row(4, 2.0, beta=1), row(2, 0.5, beta=4)]) == "beta=1"
  assert summary.best([]) is None


@pytest.mark.parametrize("status", ["stopped after epoch 2", "diverged at step 7", summary.TRAINING])
def test_curves_contain_only_members_that_are_done(status):
  rows = [row(4, 2.0, 0), row(2, 3.0, 1), row(2, 5.0, 0), row(2, 1.0, 2) | {"status": status}]
  assert list(summary.curves(rows).items()) == [("autoencoder", {2: [3.0, 5.0], 4: [2.0]})]
  assert list(summary.curves(rows)["autoencoder"]) == [2, 4]
  beta = {"objective.beta": 1.0, "kl": 1.0}
  both = [row(2, 3.0, **beta), row(2, 4.0, 1, **beta | {"objective.beta": 2.0})]
  assert summary.frontier(both) is not None
  assert summary.frontier([both[0], both[1] | {"status": status}]) is None


def test_table_aligns_values_with_their_names():
  rows = [
    row(2, 3.0, kl=1.5) | {"optimizer.learning_rate": 1e-3, "psnr": math.inf, "validation_squared_error": 12345.678},
    {"name": "latent=4,seed=1", "latent": 4, "seed": 1, "status": "diverged at step 3", "parameters": 9},
    {"kl": 2.5, "squared_error": 12.34567, "status": "done", "seed": 2, "latent": 8, "name": "latent=8,seed=2"},
  ]
  names, texts = summary.table(rows)
  metrics = ["test squared error", "test KL", "test PSNR", "validation squared error"]
  assert names == ["latent size", "seed", "status", *metrics[:2], "optimizer.learning_rate", *metrics[2:]]
  assert texts == [
    ["2", "0", "done", "3", "1.5", "0.001", "∞", "12,345.7"],
    ["4", "1", "diverged at step 3", "", "", "", "", ""],
    ["8", "2", "done", "12.35", "2.5", "", "", ""],
  ]
  records = [{"step": 1, "epoch": 1.0, "test/squared_error": 3.0, "test/kl": 1.0, "test/psnr": 2.0}]
  records[0] |= {"validation/squared_error": 4.0}
  assert {*metrics} == {line[0] for line in tables.over_epochs(logs.curves(records))[0]}  # as in the report of a run


def test_written_rows_can_be_read_from_json_and_csv(tmp_path):
  rows = [row(2, 3.0), {"name": "latent=4,seed=0", "latent": 4, "status": "diverged at step 3"}]
  summary.write(tmp_path, rows, {"answer": "2 is enough."})
  assert summary.read(tmp_path) == rows
  assert json.loads((tmp_path / "sweep.json").read_text())["answer"] == "2 is enough."
  with (tmp_path / "sweep.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  assert [(line["name"], line["latent"], line["squared_error"]) for line in table] == [
    ("latent=2,seed=0", "2", "3.0"),
    ("latent=4,seed=0", "4", ""),
  ]


@pytest.mark.parametrize(
  ("epochs", "diverged", "status"), [(3, None, "done"), (2, None, "training"), (2, 17, "diverged at step 17")]
)
def test_row_has_the_status_and_the_last_metrics_of_a_member(tmp_path, epochs, diverged, status):
  member = stub_member(
    "a",
    4,
    axes={"objective.beta": 0.5},
    config={"seed": 11},
    model=types.SimpleNamespace(parameter_count=lambda: 99),
    stages=[types.SimpleNamespace(epochs=range(1)), types.SimpleNamespace(epochs=range(1, 3))],
  )
  (tmp_path / "a").mkdir()
  records = [{"step": n, "epoch": float(n), "test/squared_error": 9.0 - n, "train/loss": 1.0} for n in (1, epochs)]
  (tmp_path / "a" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
  result = summary.row(member, tmp_path, trainer.MemberResult(diverged, "in turn", 2.345, 7))
  wanted = {"name": "a", "objective.beta": 0.5, "latent": 4, "seed": 11, "status": status, "epochs": epochs}
  wanted |= {"seconds": 2.35, "way": "in turn", "peak_bytes": 7, "parameters": 99}
  assert result == wanted | ({"squared_error": 9.0 - epochs} if diverged is None else {})


def test_frontier_needs_beta_as_an_axis():
  rows = [
    row(2, 3.0, seed, **{"objective.beta": beta, "kl": 8 / beta + seed, "nats": beta})
    for beta in (1, 4)
    for seed in (0, 2)
  ]
  assert summary.frontier(rows) == ({2: {1: (9.0, 1.0), 4: (3.0, 4.0)}}, "nats")
  assert summary.frontier([row(2, 3.0, kl=1.0)]) is None
  assert summary.frontier(rows[:2]) is None


def test_error_after_is_that_of_the_first_evaluation_from_an_epoch_on(tmp_path):
  (tmp_path / "a").mkdir()
  numbers = {"1.0": 2.5, "2.5": None, "3.0": 1.5, "6.0": "NaN"}
  lines = [
    f'{{"step": {n}, "epoch": {epoch}' + (f', "test/squared_error": {error}' if error else "") + "}\n"
    for n, (epoch, error) in enumerate(numbers.items())
  ]
  (tmp_path / "a" / "metrics.jsonl").write_text("".join(lines))
  member = stub_member("a", 2)
  errors_after = [summary.error_after(tmp_path, member, epochs) for epochs in (1, 2, 3, 5, 7)]
  assert errors_after == [2.5, 1.5, 1.5, math.inf, math.inf]  # diverged at epoch 6, and did not reach epoch 7

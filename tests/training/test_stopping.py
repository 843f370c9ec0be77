"""Early stopping, the time limit, and the extension of a finished run."""

import itertools

import jax
import numpy as np
import pytest

import ae_jax
from ae_jax import errors
from ae_jax.runs import logs
from ae_jax.training import setup, stopping, train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

LOSS = "test/squared_error"


def early(**options):
  return stopping.EarlyStopping(**{"metric": LOSS, "patience": 2, "min_change": 0.0, "mode": "min", **options})


def stopped_after(values, **options):
  """The number of evaluations with these values after which the training stops, or None."""
  rule = early(**options)
  return next((n for n in range(1, len(values) + 1) if rule.reason(values[:n])), None)


@pytest.mark.parametrize(
  ("values", "options", "stop"),
  [
    ([5, 4, 3, 2, 1], {}, None),
    ([5, 4, 4, 4, 4], {}, 4),
    ([5, 4, 6, 3, 6, 6], {}, 6),
    ([5, 4.95, 4.9, 4.85], {"min_change": 0.2}, 3),
    ([5, 4.9, 4.7, 4.5], {"min_change": 0.2}, None),
    ([1, 2, 3, 3, 3], {"mode": "max"}, 5),
    ([5, 6], {"patience": 1}, 2),
    ([float("nan")] * 3, {}, 2),
  ],
)
def test_training_stops_after_evaluations_without_improvement(values, options, stop):
  assert stopped_after([float(value) for value in values], **options) == stop


def test_resumed_run_stops_like_an_uninterrupted_one():
  values = [5.0, 4.0, 3.5, 3.6, 3.7]
  records = [{"step": n, LOSS: value} for n, value in enumerate(values)]
  uninterrupted = stopping.progress(early(), [])
  stops = [bool(uninterrupted([record])) for record in records]
  for cut in range(1, len(values)):
    resumed = stopping.progress(early(), [{"step": 0, "train/loss": 1.0}, *records[:cut]])
    assert bool(resumed([])) == stops[cut - 1]
    assert [bool(resumed([record])) for record in records[cut:]] == stops[cut:]


def test_unknown_metric_is_refused_with_a_suggestion():
  watch = stopping.progress(early(metric="test/squared_eror"), [])
  with pytest.raises(errors.UserError, match="test/squared_error"):
    watch([{LOSS: 1.0}])


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("mode", "least", "early_stopping.mode"),
    ("patience", 0, "early_stopping.patience=0"),
    ("min_change", -1.0, "early_stopping.min_change"),
    ("metric", "validation/loss", r"the data have no validation set; .* set config.data.validation"),
    ("metric", "train/loss", "a metric of the validation or test set"),
  ],
)
def test_invalid_options_are_refused(tiny, key, value, message):
  tiny.early_stopping[key] = value
  with pytest.raises(errors.UserError, match=message):
    setup.build_experiment(tiny, 1)


def test_time_limit_counts_minutes(monkeypatch):
  clock = itertools.count(step=20.0)
  monkeypatch.setattr(stopping.time, "monotonic", lambda: next(clock))
  limit = stopping.time_limit(0.9)  # 54 seconds
  assert [bool(limit()) for _ in range(4)] == [False, False, True, True]
  assert not stopping.time_limit(0.0)()


def stop_early(config):
  """Makes a run of up to 8 epochs stop after 3, as no change is large enough to be an improvement."""
  config.epochs = 8
  config.early_stopping = {"metric": LOSS, "patience": 2, "min_change": 1e6, "mode": "min"}
  return config


def test_validation_set_chooses_the_checkpoint_and_ends_the_training(tiny, tmp_path, capsys):
  rng = np.random.default_rng(0)
  dark = rng.integers(0, 5, (96, 4, 4), np.uint8)  # the model learns dark images, so the error of bright ones grows
  np.savez(tmp_path / "a.npz", x_train=dark[:64], x_val=dark[64:], x_test=255 - dark[:32])
  tiny.update_from_flattened_dict({"data.name": "npz", "data.path": str(tmp_path / "a.npz"), "batch_size": 16})
  tiny.early_stopping = {"metric": "validation/squared_error", "patience": 1, "min_change": 0.0, "mode": "min"}
  train.train_and_evaluate(tiny, tmp_path / "run")
  errors_of = {
    split: [record[f"{split}/squared_error"] for record in logs.read(tmp_path / "run") if f"{split}/loss" in record]
    for split in ("test", "validation")
  }
  assert len(errors_of["test"]) == 3
  assert np.argmin(errors_of["test"]) == 0
  assert np.argmin(errors_of["validation"]) == 2
  best = ae_jax.load(tmp_path / "run", "best")
  assert best.metrics["epoch"] == 3
  assert best.score(dark[64:]).mean() == pytest.approx(errors_of["validation"][2], rel=1e-5)
  assert "64 training, 32 validation and 32 test examples" in capsys.readouterr().out
  assert "validation" in (tmp_path / "run" / "report.html").read_text()
  tiny.early_stopping.metric = "test/squared_error"
  assert "no longer independent" in setup.build_experiment(tiny, 1).early_stopping.remarks(True)[0]
  tiny.data.read_validation = False
  with pytest.raises(errors.UserError, match="number of validation examples, validation examples"):
    train.train_and_evaluate(tiny, tmp_path / "run")


def test_early_stopped_run_is_saved_and_analyzed_and_stays_stopped(tiny, tmp_path, capsys):
  train.train_and_evaluate(stop_early(tiny), tmp_path)
  epochs = [record["epoch"] for record in logs.read(tmp_path) if LOSS in record]
  assert epochs == [1, 2, 3]
  assert "stopped after epoch 3: test/squared_error has not improved by more than 1e+06" in capsys.readouterr().out
  before = ae_jax.load(tmp_path)
  train.train_and_evaluate(tiny, tmp_path)
  after = ae_jax.load(tmp_path)
  assert after.step == before.step
  tiny.early_stopping.metric = ""  # without it the same run continues
  train.train_and_evaluate(tiny, tmp_path)
  assert ae_jax.load(tmp_path).metrics["epoch"] == 8


def test_run_stopped_by_the_time_limit_resumes_bitwise(tiny, tmp_path):
  tiny.epochs = 3
  train.train_and_evaluate(tiny, tmp_path / "straight")
  tiny.max_minutes = 1e-9
  for epoch in (1, 2, 3):
    train.train_and_evaluate(tiny, tmp_path / "limited")
    assert ae_jax.load(tmp_path / "limited").metrics["epoch"] == epoch
  runs = [ae_jax.load(tmp_path / name) for name in ("straight", "limited")]
  jax.tree.map(np.testing.assert_array_equal, *(run.variables for run in runs))


def test_extended_run_with_constant_learning_rate_equals_a_longer_run(tiny, tmp_path, capsys):
  tiny.optimizer.schedule = "constant"
  for name, epochs in (("longer", (3,)), ("extended", (2, 3))):
    for tiny.epochs in epochs:
      train.train_and_evaluate(tiny, tmp_path / name)
  runs = [ae_jax.load(tmp_path / name) for name in ("longer", "extended")]
  jax.tree.map(np.testing.assert_array_equal, *(run.variables for run in runs))
  assert runs[1].config.epochs == 3
  assert "config.epochs: the run is extended from 2 to 3 epochs; the learning rate stays constant" in (
    capsys.readouterr().out
  )


def test_extension_reports_the_new_schedule_and_a_shorter_run_is_refused(tiny, tmp_path, capsys):
  for tiny.epochs in (1, 2):
    train.train_and_evaluate(tiny, tmp_path)
  assert "the cosine schedule of the learning rate now ends after epoch 2" in capsys.readouterr().out
  tiny.epochs = 1
  with pytest.raises(errors.UserError, match=r"epochs \(2, now 1\)"):
    train.train_and_evaluate(tiny, tmp_path)

"""Fewer epochs, so that the training ends within config.max_minutes."""

import math
import time

import pytest
from ml_collections import ConfigDict

import ae_jax
from ae_jax import overrides
from ae_jax.system import distributed
from ae_jax.training import setup, time_budget, train

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]


PENALISED = ConfigDict({"name": "sparse", "penalty": "l1", "weight": 1.0, "target": 0.1, "likelihood": "bernoulli"})
BY_EPOCHS = {"key": "objective.weight", "name": "linear", "start": 0.0, "epochs": 76}
BY_STEPS = {"key": "objective.target", "name": "cosine", "start": 0.2, "steps": 5}


@pytest.mark.parametrize(("minutes", "epochs"), [(0.5, 1), (100.0, 12), (200.0, 24), (1000.0, None)])
def test_epochs_fit_in_the_limit_and_keep_the_proportions(tiny, tmp_path, monkeypatch, minutes, epochs):
  tiny.epochs, tiny.eval_every_epochs, tiny.checkpoint_every_epochs, tiny.optimizer.warmup_epochs = 80, 4, 20, 8.0
  tiny.objective = PENALISED
  tiny.schedules = (BY_EPOCHS, BY_STEPS)
  experiment = setup.build_experiment(tiny, 1)
  chunk_seconds = 390.0 / experiment.batch_schedule.chunks_per_epoch
  monkeypatch.setattr(time_budget, "_measure", lambda *_: (10.0, chunk_seconds, 8.0))  # 392 seconds per epoch
  chosen = time_budget.shorter(experiment, distributed.mesh(), tmp_path, 60 * minutes, time.monotonic())
  if epochs is None:
    assert chosen == {}
    return
  assert chosen["epochs"] == epochs
  assert chosen["optimizer.warmup_epochs"] == pytest.approx(epochs / 10)
  assert chosen["eval_every_epochs"] == max(1, math.floor(epochs / 20))
  assert chosen["checkpoint_every_epochs"] == max(1, math.floor(epochs / 4))
  first, second = chosen["schedules"]
  assert first == BY_EPOCHS | {"epochs": pytest.approx(epochs * 76 / 80)}
  assert second == BY_STEPS | {"steps": max(1, epochs // 16)}
  assert ("may take longer" in time_budget.sentence(chosen, tiny)) == (epochs == 1)
  setup.build_experiment(overrides.apply(tiny, chosen), 1)


@pytest.mark.parametrize("epochs", range(1, 25))
def test_shorter_warmup_and_schedules_are_valid(tiny, tmp_path, monkeypatch, epochs):
  tiny.epochs, tiny.optimizer.warmup_epochs, tiny.objective = 25, 25.0, PENALISED
  tiny.schedules = (BY_EPOCHS | {"epochs": 25},)
  experiment = setup.build_experiment(tiny, 1)
  monkeypatch.setattr(time_budget, "_measure", lambda *_: (0.0, 60.0 / experiment.batch_schedule.chunks_per_epoch, 0.0))
  now = time.monotonic()
  chosen = time_budget.shorter(experiment, distributed.mesh(), tmp_path, 60 * (epochs + 0.5) / 0.8, now)
  assert chosen["epochs"] == epochs
  assert chosen["optimizer.warmup_epochs"] <= epochs
  assert chosen["schedules"][0]["epochs"] <= epochs


def test_shortened_run_ends_with_its_schedule_and_is_continued_with_the_same_length(
  tiny, tmp_path, monkeypatch, capsys
):
  measure, times = time_budget._measure, []

  def slow(*arguments):
    times.extend(measure(*arguments))
    return 0.0, 2000.0, 0.0

  monkeypatch.setattr(time_budget, "_measure", slow)
  tiny.epochs, tiny.max_minutes, tiny.shorten = 50, 100.0, True
  metrics = train.train_and_evaluate(tiny, tmp_path)
  assert metrics["epoch"] == ae_jax.load(tmp_path).config.epochs == 2
  assert all(seconds > 0 for seconds in times)
  line = (
    "config.epochs=2, config.eval_every_epochs=1, config.checkpoint_every_epochs=1, config.optimizer.warmup_epochs="
  )
  printed = capsys.readouterr().out
  assert line in printed
  assert "50 epochs take longer than config.max_minutes=100" in printed
  monkeypatch.setattr(time_budget, "_measure", lambda *_: pytest.fail("the speed is measured once per run"))
  assert train.train_and_evaluate(tiny, tmp_path)["step"] == metrics["step"]
  tiny.shorten, tiny.epochs = False, 3
  assert train.train_and_evaluate(tiny, tmp_path)["epoch"] == 3

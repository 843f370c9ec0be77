"""Fewer epochs, so that the training ends within config.max_minutes."""

import math
import time

import pytest

import ae_jax
from ae_jax.system import distributed
from ae_jax.training import setup, time_budget, train

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]


@pytest.mark.parametrize(("minutes", "epochs"), [(0.5, 1), (100.0, 12), (200.0, 24), (1000.0, None)])
def test_epochs_fit_in_the_limit_and_keep_the_proportions(tiny, tmp_path, monkeypatch, minutes, epochs):
  tiny.epochs, tiny.eval_every_epochs, tiny.checkpoint_every_epochs, tiny.optimizer.warmup_epochs = 80, 4, 20, 8.0
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

"""The learning-rate range test, and the rate that a run takes from it."""

import json

import jax
import numpy as np
import pytest
from conftest import learned, train_until

import ae_jax
from ae_jax import errors
from ae_jax.sweep import run as sweeps
from ae_jax.system import distributed
from ae_jax.training import range_test, setup, train

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]

RATES = range_test.rates()


@pytest.mark.parametrize("blow_up", [1e-2, 0.3, 3.0])
@pytest.mark.parametrize("after", [50.0, np.nan])
def test_rate_is_a_fifth_of_that_of_the_smallest_loss(blow_up, after):
  losses = np.where(blow_up >= RATES, 10 - np.log(RATES), after)
  losses[1::2] += 0.5  # batches differ
  assert 0.08 * blow_up < range_test.pick(losses) <= 0.2 * blow_up


@pytest.mark.parametrize("noise", range(3))
def test_rate_of_a_model_that_begins_at_its_best_follows_from_the_doubled_loss(noise):
  losses = np.where(RATES < 0.1, 10.0, 1000.0) + np.random.default_rng(noise).normal(size=len(RATES))
  assert 0.3 * 0.1 / 100 <= range_test.pick(losses) <= 0.2 * 0.1


def test_losses_may_be_negative_or_never_finite():
  assert 1e-6 < range_test.pick(np.where(RATES < 0.1, -10.0 - np.log(RATES), 50.0)) <= 0.02
  assert np.isfinite(range_test.pick(np.full(len(RATES), np.nan)))


@pytest.mark.parametrize(
  ("rate", "nearest"), [(1.3e-3, 1e-3), (1.5e-3, 2e-3), (3.1e-3, 2e-3), (3.3e-3, 5e-3), (7.2e-3, 1e-2), (1.0, 1.0)]
)
def test_rate_is_rounded_to_the_nearest_of_1_2_and_5(rate, nearest):
  assert range_test.rounded(rate) == nearest


def auto(config):
  config.optimizer.learning_rate = "auto"
  return config


def rate_of(config):
  return range_test.choose(config, None)[0]


def test_rate_depends_neither_on_the_devices_nor_on_the_microbatches(tiny, monkeypatch):
  rate = rate_of(auto(tiny))
  assert 2e-3 <= rate <= 0.1
  tiny.accumulate = 4
  assert rate_of(tiny) == rate
  tiny.accumulate, tiny.batch_size, mesh = 1, 127, distributed.mesh
  odd = rate_of(tiny)
  monkeypatch.setattr(distributed, "mesh", lambda devices=None: mesh(jax.devices()[:2]))
  assert rate_of(tiny) == odd  # 127 examples are padded to 128


def test_losses_of_a_model_that_starts_as_pca_are_above_the_entropy_of_the_batches(tiny):
  tiny.model.linear_path, tiny.objective.likelihood = "pca", "bernoulli"
  trial = setup.build_experiment(tiny, 1)
  above = range_test.losses(trial)[:5]
  x = np.asarray(trial.dataset.train, np.float64)
  x = np.clip(x / x.max(), 1e-12, 1 - 1e-12)
  entropy = -(x * np.log(x) + (1 - x) * np.log1p(-x)).sum(axis=(1, 2, 3)).mean()
  assert above.min() > 0
  assert above.max() < entropy


def test_run_prints_stores_and_keeps_the_rate(tiny, tmp_path, monkeypatch, capsys):
  run = train.train_run(auto(tiny), tmp_path / "straight")
  rate = run.config.optimizer.learning_rate
  assert f"config.optimizer.learning_rate={rate:g}: chosen by a range test" in capsys.readouterr().out
  assert ae_jax.load(tmp_path / "straight").config.optimizer.learning_rate == rate
  stored = json.loads((tmp_path / "straight" / "config.json").read_text())
  assert stored["chosen"] == {"optimizer.learning_rate": ["auto", rate]}
  train_until(tiny, tmp_path / "broken", 2, monkeypatch)
  monkeypatch.setattr(range_test, "losses", lambda experiment: pytest.fail("the test runs once per run"))
  train.train_and_evaluate(tiny, tmp_path / "broken")
  assert "as chosen at the start of the run" in capsys.readouterr().out
  (params, records), (other_params, other_records) = (learned(tmp_path / name) for name in ("straight", "broken"))
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records
  tiny.optimizer.learning_rate = rate  # the printed number is the same config
  assert train.train_run(tiny, tmp_path / "broken").step == run.step
  tiny.optimizer.learning_rate = 50.0
  with pytest.raises(errors.UserError, match=r"learning_rate \(.*, now 50.0\)"):
    train.train_and_evaluate(tiny, tmp_path / "broken")


def test_auto_is_refused_for_stages_sweeps_and_begun_runs(tiny, tmp_path):
  with pytest.raises(errors.UserError, match="learning_rate='auto': works only in `ae_jax train`"):
    sweeps.run(auto(tiny).lock(), [("seed", [0, 1])], tmp_path / "sweep")
  with tiny.unlocked():
    tiny.stages = ({"epochs": 1, "objective": {"name": "layerwise", "layer": 0}},)
  with pytest.raises(errors.UserError, match=r"does not work with config\.stages"):
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert not list(tmp_path.iterdir())
  (tmp_path / "config.json").write_text(json.dumps({"format": 2, "config": {}, "data": {"shape": [8, 8, 1]}}))
  with tiny.unlocked():
    tiny.stages = ()
  with pytest.raises(errors.UserError, match="began with a given rate"):
    train.train_and_evaluate(tiny, tmp_path)


@pytest.mark.parametrize("rate", ["automatic", float("nan"), True])
def test_other_words_are_refused(tiny, tmp_path, rate):
  with tiny.ignore_type():
    tiny.optimizer.learning_rate = rate
  with pytest.raises(errors.UserError, match="learning_rate="):
    train.train_and_evaluate(tiny, tmp_path / "run")

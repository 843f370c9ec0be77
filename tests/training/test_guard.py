"""The divergence guard: half the learning rate for a chunk in which the training diverges."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import learned, train_until

import ae_jax
from ae_jax import errors
from ae_jax.data import batch_schedule
from ae_jax.runs import logs
from ae_jax.sweep import run as sweeps
from ae_jax.system import distributed
from ae_jax.training import guard, train
from ae_jax.training.optimizers import Guard
from ae_jax.training.state import TrainState

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]


def made_chunk(levels_at, calls):
  """A chunk of two steps of several members; `levels_at(scales)` are their levels, NaN or above 3 if they diverge."""

  def train_chunk(state, rows):
    scale = np.asarray(state.opt_state[-1].scale)
    calls.append(scale.tolist())
    level = np.asarray(levels_at(scale), np.float32)
    finite = np.stack([np.ones(len(scale), bool), level <= 3.0], 1)
    new = (*state.opt_state[:-1], Guard(state.opt_state[-1].scale, jax.numpy.asarray(level)))
    return dataclasses.replace(state, step=state.step + 2, opt_state=new), {"loss": np.ones((len(scale), 2))}, finite

  return train_chunk


def start(members):
  ones = jax.numpy.ones(members)
  return TrainState(np.int32(0), (), ((), Guard(ones, ones)))


def test_only_diverging_members_get_half_the_rate_until_they_do_not_diverge():
  calls = []
  levels = lambda scale: np.where(np.arange(3) * scale > 0.3, [1.0, 5.0, np.nan], 1.0)
  state, terms, finite = guard.halving(made_chunk(levels, calls))(start(3), 0)
  assert calls == [[1, 1, 1], [1, 0.5, 0.5], [1, 0.25, 0.25], [1, 0.25, 0.125]]
  assert terms[guard.HALVED].tolist() == [[0, 0], [2, 0], [3, 0]]
  assert finite.all()
  assert int(state.step) == 2  # once, not once for each trial


def test_high_loss_is_accepted_with_the_old_rate_if_no_rate_lowers_it():
  calls = []
  state, terms, finite = guard.halving(made_chunk(lambda scale: np.full(1, 9.0), calls))(start(1), 0)
  assert np.asarray(state.opt_state[-1].scale).tolist() == [1.0]
  assert calls[-1] == [1.0]
  assert terms[guard.HALVED].sum() == 0
  assert finite.all()


def test_training_fails_if_no_rate_helps():
  *_, finite = guard.halving(made_chunk(lambda scale: np.full(1, np.nan), []))(start(1), 0)
  assert finite.tolist() == [[True, False]]


def test_failed_run_names_the_batch_that_no_rate_helps(tmp_path):
  x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
  x[50, 2] = 3e19
  options = {"model": "dense", "latent": 2, "epochs": 1, "batch_size": 20, "model__widths": (8,), "evaluators": ()}
  options |= {
    "optimizer__name": "sgd",
    "on_nan": "halve",
    "model__linear_path": "none",
    "test": x[:9],
    "objective__likelihood": "gaussian",
  }
  with pytest.raises(errors.UserError, match="No smaller learning rate helped: check the values of this batch"):
    ae_jax.fit(x, workdir=tmp_path / "run", verbose=False, data__range="real", data__scale="none", **options)
  with np.load(tmp_path / "run" / "nan.npz") as stored:
    assert np.abs(stored["x"]).max() == pytest.approx(3e19)


def wild(config, rate=50.0):
  """Makes a config diverge without the guard; chunks of 6 steps, two per epoch."""
  config.update_from_flattened_dict(
    {"optimizer.name": "sgd", "optimizer.learning_rate": rate, "optimizer.warmup_epochs": 0.0, "on_nan": "halve"}
  )
  return config


@pytest.fixture
def chunks_of_6(monkeypatch):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 6)


def halvings(folder):
  return [record["train/halved"] for record in logs.read(folder)]


@pytest.mark.usefixtures("chunks_of_6")
def test_wild_run_ends_finite_says_so_and_resumes_bitwise(tiny, tmp_path, monkeypatch, capsys):
  metrics = train.train_and_evaluate(wild(tiny), tmp_path / "straight")
  assert np.isfinite(metrics["test/squared_error"])
  count = sum(halvings(tmp_path / "straight"))
  assert count >= 5
  rate = f"{50 * 0.5**count:.3g}"
  assert f"The learning rate was halved {count} times to {rate}, because" in capsys.readouterr().out
  train_until(tiny, tmp_path / "broken", 2, monkeypatch)
  assert sum(halvings(tmp_path / "broken")) >= 5
  train.train_and_evaluate(tiny, tmp_path / "broken")
  (params, records), (other_params, other_records) = (learned(tmp_path / name) for name in ("straight", "broken"))
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records


@pytest.mark.parametrize("changes", [{"parallel_state": "sharded"}, {"accumulate": 4}])
def test_devices_and_microbatches_do_not_change_the_halvings(tiny, tmp_path, monkeypatch, changes):
  tiny.epochs = 1
  train.train_and_evaluate(wild(tiny), tmp_path / "one")
  if "accumulate" not in changes:
    mesh = distributed.mesh
    monkeypatch.setattr(distributed, "mesh", lambda devices=None: mesh(jax.devices()[:2]))
  tiny.update(changes)
  train.train_and_evaluate(tiny, tmp_path / "other")
  assert halvings(tmp_path / "one") == halvings(tmp_path / "other")
  assert sum(halvings(tmp_path / "one"))


def test_guard_changes_a_steady_run_only_by_rounding(tiny, tmp_path):
  for tiny.on_nan in ("stop", "halve"):
    train.train_and_evaluate(tiny, tmp_path / tiny.on_nan)
  (params, records), (guarded, guarded_records) = (learned(tmp_path / name) for name in ("stop", "halve"))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, guarded)
  assert not any("train/halved" in record for record in records)
  assert [record["train/halved"] for record in guarded_records] == [0] * len(records)


def test_members_of_a_sweep_are_halved_apart(tiny, tmp_path):
  wild(tiny).epochs = 1
  rates = ("optimizer.learning_rate", [0.002, 50.0])
  rows = sweeps.run(tiny.lock(), [rates], tmp_path / "sweep")
  assert [row["status"] for row in rows] == ["done", "done"]
  steady, halved = (sum(halvings(tmp_path / "sweep" / f"learning_rate={rate}")) for rate in ("0.002", "50"))
  train.train_and_evaluate(tiny, tmp_path / "single")
  assert steady == 0
  assert halved == sum(halvings(tmp_path / "single")) > 0

"""Packs of a sweep: cut to a budget, spread over devices, halved, computed in the faster way; and always the same."""

import contextlib
import json
import types

import jax
import numpy as np
import pytest
from conftest import learned

from ae_jax import errors
from ae_jax.sweep import compiled_pack, grid, trainer
from ae_jax.sweep import run as sweep_run
from ae_jax.system import distributed
from ae_jax.training import preemption
from ae_jax.training.state import TrainState

pytestmark = pytest.mark.runs_optax

LATENTS = ("model.latent", [2, 4])
SEEDS = ("seed", [0, 1])
TURN = trainer.SweepOptions(way="in turn")


@pytest.fixture
def sweep(tiny, tmp_path):
  """A function: a sweep of the tiny run -> {name: row}."""

  def run(*axes, folder="run", options=TURN, factor=0, **keys):
    tiny.update_from_flattened_dict(keys)
    return {row["name"]: row for row in sweep_run.run(tiny, list(axes), tmp_path / folder, options, factor)}

  return run


@pytest.fixture
def three_devices(monkeypatch):
  """Sweeps are spread over three virtual devices."""
  three = distributed.mesh(jax.devices()[:3])
  monkeypatch.setattr(distributed, "mesh", lambda: three)


def same(one, other):
  """Whether two runs learned the same, bit for bit."""
  (params, records), (other_params, others) = learned(one), learned(other)
  pairs = zip(*map(jax.tree.leaves, (params, other_params)), strict=True)
  return records == others and all(np.array_equal(x, y) for x, y in pairs)


def test_members_that_do_not_fit_together_go_in_packs_and_are_the_same(sweep, tmp_path, capsys):
  rows = sweep(LATENTS, SEEDS, folder="together")
  budget = rows["latent=2,seed=0"]["peak_bytes"] - 1
  capsys.readouterr()
  apart = sweep(LATENTS, SEEDS, folder="apart", options=trainer.SweepOptions("in turn", budget / 2**30))
  assert "of 4 members at a time" in capsys.readouterr().out
  assert all(row["peak_bytes"] <= budget for row in apart.values())
  for name in rows:
    assert same(tmp_path / "together" / name, tmp_path / "apart" / name)


@pytest.mark.parametrize("look", [0, 1, 2])
def test_a_sweep_that_is_stopped_when_its_state_is_saved_already_goes_on(sweep, tmp_path, monkeypatch, look):
  """Before the first epoch, and after the save at the end of one; and once more before anything is trained."""
  sweep(SEEDS, folder="straight")
  for stop in (look, 0):
    looks = iter([""] * stop)
    caught = lambda looks=looks: contextlib.nullcontext(lambda: next(looks, "SIGTERM"))
    with monkeypatch.context() as patch:
      patch.setattr(preemption, "caught", caught)
      with pytest.raises(preemption.Interrupted, match=f"SIGTERM: stopped after epoch {look}, saved"):
        sweep(SEEDS)
  for name in sweep(SEEDS):
    assert same(tmp_path / "straight" / name, tmp_path / "run" / name)


def test_a_budget_that_not_even_one_member_fits_is_said(sweep):
  with pytest.raises(errors.UserError, match="--budget_gib: a member needs"):
    sweep(SEEDS, options=trainer.SweepOptions("in turn", 1e-6))


@pytest.mark.parametrize("placement", ["stream"])
def test_data_that_are_streamed_are_refused(sweep, tmp_path, placement):
  with pytest.raises(errors.UserError, match=r"config\.data\.placement: a sweep keeps the data on the device"):
    sweep(SEEDS, **{"data.placement": placement})
  assert not (tmp_path / "run").exists()


def test_an_odd_number_of_members_on_eight_devices_is_the_same_and_goes_on_with_one(sweep, tmp_path, eight_devices):
  seeds = ("seed", [0, 1, 2])
  eight = sweep(seeds, folder="eight")
  one_device = distributed.mesh(jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(distributed, "mesh", lambda: one_device)
    one = sweep(seeds, folder="one")
  assert {row["status"] for row in eight.values()} == {"done"}
  for name in eight:
    assert eight[name]["squared_error"] == pytest.approx(one[name]["squared_error"], rel=1e-4)


@pytest.mark.parametrize(("devices", "count"), [(1, 2), (2, 1), (2, 3), (3, 2), (8, 3)])
def test_states_reach_any_number_of_devices_from_packs_and_from_single_members(tiny, devices, count):
  mesh = distributed.mesh(jax.devices()[:devices])
  members = grid.members(tiny, ["model.latent", "seed"], [(2 + number % 2, number) for number in range(count)])
  filled = compiled_pack.filled(members, mesh)
  device_data = compiled_pack.place(filled, mesh)
  state = compiled_pack.start(filled, device_data)
  saved = compiled_pack.to_save(state, count)
  assert {leaf.shape[0] for leaf in jax.tree.leaves((saved.params, saved.opt_state))} == {count}
  own = list(compiled_pack.own_states(members, state))
  assert len(own) == count
  for found in (compiled_pack.from_saved(saved, device_data), compiled_pack.joined(members, own, device_data)):
    assert jax.tree.map(lambda leaf: leaf.sharding, found.params) == jax.tree.map(
      lambda leaf: leaf.sharding, state.params
    )
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True)
    assert all(leaf.shape == first.shape and np.array_equal(leaf, first) for leaf, first in pairs)


RATES = ("optimizer.learning_rate", [1e-6, 2e-3, 1e-5])


def statuses(rows):
  """{name: (status, epochs)} of rows."""
  return {name: (row["status"], row["epochs"]) for name, row in rows.items()}


def test_halving_stops_members_that_a_later_run_without_it_trains_to_the_end(sweep, tmp_path, three_devices):
  # six members, two survivors and four others: no count of them is a multiple of the devices in each run
  rows = sweep(LATENTS, RATES, factor=3, epochs=6)
  going = [f"latent={latent},learning_rate=0.002" for latent in (2, 4)]
  stopped = [name for name in rows if name not in going]
  assert statuses(rows) == dict.fromkeys(going, ("done", 6)) | dict.fromkeys(stopped, ("stopped after epoch 2", 2))
  assert all((tmp_path / "run" / name / "checkpoints").exists() for name in rows)
  logs = {name: tmp_path / "run" / name / "metrics.jsonl" for name in rows}
  times = {name: log.stat().st_mtime_ns for name, log in logs.items()}
  assert sweep(LATENTS, RATES, factor=3) == rows
  assert times == {name: log.stat().st_mtime_ns for name, log in logs.items()}
  json.loads((tmp_path / "run" / "sweep.json").read_text())

  at_the_rung = {name: learned(tmp_path / "run" / name)[1] for name in stopped}
  complete = sweep(LATENTS, RATES)
  assert statuses(complete) == dict.fromkeys(rows, ("done", 6))
  assert [times[name] for name in going] == [logs[name].stat().st_mtime_ns for name in going]
  for name in stopped:
    records = learned(tmp_path / "run" / name)[1]
    assert records[: len(at_the_rung[name])] == at_the_rung[name]
    assert records[-1]["epoch"] == 6
  assert sweep(LATENTS, RATES, factor=3) == complete  # trained to the end: halving has nothing to stop


@pytest.mark.parametrize(
  ("factor", "axes", "said"), [(3, [SEEDS], "needs a --grid"), (1, [LATENTS], "must be 2 or more")]
)
def test_halving_that_makes_no_sense_is_refused(sweep, factor, axes, said):
  with pytest.raises(errors.UserError, match=said):
    sweep(*axes, factor=factor)


@pytest.mark.parametrize(
  ("seconds", "way", "tried"),
  [
    ((1.0, 0.5), "side by side", True),
    ((1.0, 0.95), "in turn", True),
    ((1.0, 2.0), "in turn", True),
    ((1e-4,), "in turn", False),
  ],
)
def test_the_way_is_measured_where_that_can_pay_and_taken_where_it_is_clearly_faster(monkeypatch, seconds, way, tried):
  built, other = (types.SimpleNamespace(peak_bytes=1, compile_seconds=0.1) for _ in range(2))
  experiment = types.SimpleNamespace(
    schedule=types.SimpleNamespace(chunk=5, chunks_per_epoch=50), stages=[types.SimpleNamespace(epochs=range(3))]
  )
  member = types.SimpleNamespace(experiment=experiment)
  device_data = types.SimpleNamespace(split=types.SimpleNamespace(mesh=types.SimpleNamespace(size=1)))
  first, *others = seconds
  lines, clock = [], iter(others)
  pack = trainer._Pack([member], [member], device_data, 10.0, 2, "in turn", False, {}, lines.append, peak_bytes=1)
  monkeypatch.setattr(trainer, "_seconds", lambda *_: next(clock))
  monkeypatch.setattr(compiled_pack, "build", lambda *_: other)
  state = TrainState(step=np.int32(5), params=(), opt_state=())
  chosen = trainer._faster(pack, 0, built, state, (), first)
  assert pack.way == way
  assert chosen is (other if way == "side by side" else built)
  assert bool(lines) == tried
  assert pack.measured
  assert trainer._faster(pack, 0, chosen, state, (), first) is chosen  # and not again


def test_the_way_is_asked_once_after_the_first_chunk_which_counts(sweep, monkeypatch):
  asked, choose = [], trainer._faster

  def faster(pack, number, built, state, *rest):
    if not pack.measured:
      asked.append((number, int(state.step)) == (0, pack.members[0].experiment.batch_schedule.chunk))
    return choose(pack, number, built, state, *rest)

  monkeypatch.setattr(trainer, "_faster", faster)
  rows = sweep(LATENTS, options=trainer.SweepOptions(), epochs=3)
  assert asked == [True]
  assert {row["status"] for row in rows.values()} == {"done"}

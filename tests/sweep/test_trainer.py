"""Packs of a sweep: memory budget, number of devices, halving and way of computing do not change the results."""

import contextlib
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import learned
from stubs import stub, stub_member

from ae_jax import errors
from ae_jax.sweep import compiled_pack, grid, trainer
from ae_jax.sweep import pack as packs
from ae_jax.sweep import run as sweep_run
from ae_jax.system import distributed
from ae_jax.training import preemption
from ae_jax.training.compiled_stage import CompiledStage
from ae_jax.training.device_arrays import DeviceData
from ae_jax.training.state import TrainState

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

LATENTS = ("model.latent", [2, 4])
SEEDS = ("seed", [0, 1])
IN_TURN = trainer.SweepOptions(way="in turn")


@pytest.fixture
def sweep(tiny, tmp_path):
  """Returns a function that runs a sweep of the tiny config and returns {name: row}."""

  def run(*axes, folder="run", options=IN_TURN, factor=0, **keys):
    tiny.update_from_flattened_dict(keys)
    return {row["name"]: row for row in sweep_run.run(tiny, list(axes), tmp_path / folder, options, factor)}

  return run


@pytest.fixture
def three_devices(monkeypatch):
  """Sweeps use three virtual devices."""
  three = distributed.mesh(jax.devices()[:3])
  monkeypatch.setattr(distributed, "mesh", lambda: three)


def equal_runs(workdir, other_workdir):
  """Returns whether two runs have the same records and bitwise equal parameters."""
  (params, records), (other_params, other_records) = learned(workdir), learned(other_workdir)
  pairs = zip(*map(jax.tree.leaves, (params, other_params)), strict=True)
  return records == other_records and all(np.array_equal(x, y) for x, y in pairs)


def test_cutting_members_into_packs_for_memory_does_not_change_them(sweep, tmp_path, capsys):
  rows = sweep(LATENTS, SEEDS, folder="together")
  budget = rows["latent=2,seed=0"]["peak_bytes"] - 1
  capsys.readouterr()
  apart = sweep(LATENTS, SEEDS, folder="apart", options=trainer.SweepOptions("in turn", budget / 2**30))
  assert "of 4 members at a time" in capsys.readouterr().out
  assert all(row["peak_bytes"] <= budget for row in apart.values())
  for name in rows:
    assert equal_runs(tmp_path / "together" / name, tmp_path / "apart" / name)


@pytest.mark.parametrize("look", [0, 2])
def test_sweep_stopped_after_its_state_was_saved_continues_bitwise(sweep, tmp_path, monkeypatch, look):
  """The signal comes before the first epoch or after the save at its end, and again before any training."""
  sweep(SEEDS, folder="straight")
  for stop in (look, 0):
    looks = iter([""] * stop)
    caught = lambda looks=looks: contextlib.nullcontext(lambda: next(looks, "SIGTERM"))
    with monkeypatch.context() as patch:
      patch.setattr(preemption, "catch_signals", caught)
      with pytest.raises(preemption.Interrupted, match=f"SIGTERM: stopped after epoch {look} and saved the state"):
        sweep(SEEDS)
  for name in sweep(SEEDS):
    assert equal_runs(tmp_path / "straight" / name, tmp_path / "run" / name)


def test_a_budget_smaller_than_one_member_is_refused(sweep):
  with pytest.raises(errors.UserError, match="--budget_gib: one member needs"):
    sweep(SEEDS, options=trainer.SweepOptions("in turn", 1e-6))


@pytest.mark.parametrize("placement", ["stream"])
def test_streamed_data_are_refused(sweep, tmp_path, placement):
  with pytest.raises(errors.UserError, match=r"config\.data\.placement: a sweep keeps the data on the device"):
    sweep(SEEDS, **{"data.placement": placement})
  assert not (tmp_path / "run").exists()


def test_eight_devices_give_the_errors_of_one_device(sweep, tmp_path, eight_devices):
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
def test_a_state_is_restored_from_a_pack_or_from_members_on_any_number_of_devices(tiny, devices, count):
  mesh = distributed.mesh(jax.devices()[:devices])
  members = grid.members(tiny, ["model.latent", "seed"], [(2 + number % 2, number) for number in range(count)])
  padded_members = compiled_pack.pad_to_devices(members, mesh)
  device_data = compiled_pack.place_data(padded_members, mesh)
  state = compiled_pack.start(padded_members, device_data)
  saved = compiled_pack.to_save(state, count)
  assert {leaf.shape[0] for leaf in jax.tree.leaves((saved.params, saved.opt_state))} == {count}
  member_states = list(compiled_pack.member_states(members, state))
  assert len(member_states) == count
  joined = compiled_pack.join(members, member_states, device_data)
  for restored in (compiled_pack.from_saved(saved, device_data), joined):
    assert jax.tree.map(lambda leaf: leaf.sharding, restored.params) == jax.tree.map(
      lambda leaf: leaf.sharding, state.params
    )
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True)
    assert all(leaf.shape == first.shape and np.array_equal(leaf, first) for leaf, first in pairs)


RATES = ("optimizer.learning_rate", [1e-6, 2e-3, 1e-5])


def statuses(rows):
  """Returns {name: (status, epochs)}."""
  return {name: (row["status"], row["epochs"]) for name, row in rows.items()}


def test_members_stopped_by_halving_continue_in_a_sweep_without_it(sweep, tmp_path, three_devices):
  # six members, two that continue and four that stop: not all of these are multiples of three devices
  rows = sweep(LATENTS, RATES, factor=3, epochs=6)
  continuing = [f"latent={latent},learning_rate=0.002" for latent in (2, 4)]
  stopped = [name for name in rows if name not in continuing]
  assert statuses(rows) == dict.fromkeys(continuing, ("done", 6)) | dict.fromkeys(stopped, ("stopped after epoch 2", 2))
  assert all((tmp_path / "run" / name / "checkpoints").exists() for name in rows)
  logs = {name: tmp_path / "run" / name / "metrics.jsonl" for name in rows}
  times = {name: log.stat().st_mtime_ns for name, log in logs.items()}
  assert sweep(LATENTS, RATES, factor=3) == rows
  assert times == {name: log.stat().st_mtime_ns for name, log in logs.items()}
  json.loads((tmp_path / "run" / "sweep.json").read_text())

  at_the_rung = {name: learned(tmp_path / "run" / name)[1] for name in stopped}
  complete = sweep(LATENTS, RATES)
  assert statuses(complete) == dict.fromkeys(rows, ("done", 6))
  assert [times[name] for name in continuing] == [logs[name].stat().st_mtime_ns for name in continuing]
  for name in stopped:
    records = learned(tmp_path / "run" / name)[1]
    assert records[: len(at_the_rung[name])] == at_the_rung[name]
    assert records[-1]["epoch"] == 6
  assert sweep(LATENTS, RATES, factor=3) == complete  # all are done, so halving stops none


@pytest.mark.parametrize(
  ("factor", "axes", "message"), [(3, [SEEDS], "requires --grid"), (1, [LATENTS], "must be 2 or more")]
)
def test_invalid_halving_is_refused(sweep, factor, axes, message):
  with pytest.raises(errors.UserError, match=message):
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
def test_the_other_way_is_tried_if_that_can_pay_and_used_if_clearly_faster(monkeypatch, seconds, way, tried):
  built, other = (stub(CompiledStage, peak_bytes=1, compile_seconds=0.1) for _ in range(2))
  member = stub_member(
    "a",
    2,
    batch_schedule=types.SimpleNamespace(chunk=5, chunks_per_epoch=50),
    stages=[types.SimpleNamespace(epochs=range(3))],
  )
  device_data = stub(DeviceData, batch_sharding=distributed.sharded(distributed.mesh(jax.devices()[:1]), axis=0))
  first, *others = seconds
  lines, clock = [], iter(others)
  pack = packs.Pack([member], [member], device_data, 10.0, 2, "in turn", False, {}, lines.append, peak_bytes=1)
  monkeypatch.setattr(packs, "_chunk_seconds", lambda *_: next(clock))
  monkeypatch.setattr(compiled_pack, "build", lambda *_: other)
  state = TrainState(step=jnp.int32(5), params=(), opt_state=())
  chosen = packs.choose_way(pack, 0, built, state, (), first)
  assert pack.way == way
  assert chosen is (other if way == "side by side" else built)
  assert bool(lines) == tried
  assert pack.measured
  assert packs.choose_way(pack, 0, chosen, state, (), first) is chosen  # measured only once


def test_the_way_is_measured_once_after_the_first_chunk(sweep, monkeypatch):
  calls, choose = [], packs.choose_way

  def choose_way(pack, number, built, state, *rest):
    if not pack.measured:
      calls.append((number, int(state.step)) == (0, pack.members[0].experiment.batch_schedule.chunk))
    return choose(pack, number, built, state, *rest)

  monkeypatch.setattr(packs, "choose_way", choose_way)
  rows = sweep(LATENTS, options=trainer.SweepOptions(), epochs=3)
  assert calls == [True]
  assert {row["status"] for row in rows.values()} == {"done"}

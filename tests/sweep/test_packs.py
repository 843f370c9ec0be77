"""Packs of a sweep: cut to a budget, spread over devices, halved, computed in the faster way; and always the same."""

import json
import types

import jax
import numpy as np
import pytest
from conftest import learned

from ae_jax import errors, parallel, steps
from ae_jax.sweep import packs, programs, whole

pytestmark = pytest.mark.runs_optax

LATENTS = ("model.latent", [2, 4])
SEEDS = ("seed", [0, 1])
TURN = packs.Orders(way="in turn")


@pytest.fixture
def sweep(tiny, tmp_path):
  """A function: a sweep of the tiny run -> {name: row}."""

  def run(*axes, folder="run", orders=TURN, factor=0, **keys):
    tiny.update_from_flattened_dict(keys)
    return {row["name"]: row for row in whole.run(tiny, list(axes), tmp_path / folder, orders, factor)}

  return run


def same(one, other):
  """Whether two runs learned the same, bit for bit."""
  (params, records), (other_params, others) = learned(one), learned(other)
  pairs = zip(*map(jax.tree.leaves, (params, other_params)), strict=True)
  return records == others and all(np.array_equal(x, y) for x, y in pairs)


def test_members_that_do_not_fit_together_go_in_packs_and_are_the_same(sweep, tmp_path, capsys):
  rows = sweep(LATENTS, SEEDS, folder="together")
  budget = rows["latent=2,seed=0"]["peak_bytes"] - 1
  capsys.readouterr()
  apart = sweep(LATENTS, SEEDS, folder="apart", orders=packs.Orders("in turn", budget / 2**30))
  assert "of 4 members at a time" in capsys.readouterr().out
  assert all(row["peak_bytes"] <= budget for row in apart.values())
  for name in rows:
    assert same(tmp_path / "together" / name, tmp_path / "apart" / name)


def test_a_budget_that_not_even_one_member_fits_is_said(sweep):
  with pytest.raises(errors.UserError, match="--budget_gib: a member needs"):
    sweep(SEEDS, orders=packs.Orders("in turn", 1e-6))


@pytest.mark.parametrize("placement", ["stream"])
def test_data_that_are_streamed_are_refused(sweep, tmp_path, placement):
  with pytest.raises(errors.UserError, match=r"config\.data\.placement: a sweep keeps the data on the device"):
    sweep(SEEDS, **{"data.placement": placement})
  assert not (tmp_path / "run").exists()


def test_an_odd_number_of_members_on_eight_devices_is_the_same_and_goes_on_with_one(sweep, tmp_path, eight_devices):
  seeds = ("seed", [0, 1, 2])
  eight = sweep(seeds, folder="eight")
  one_device = parallel.mesh(jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, "mesh", lambda: one_device)
    one = sweep(seeds, folder="one")
  assert {row["status"] for row in eight.values()} == {"done"}
  for name in eight:
    assert eight[name]["squared_error"] == pytest.approx(one[name]["squared_error"], rel=1e-4)


def test_what_eight_devices_have_saved_one_restores(tiny, eight_devices):
  from ae_jax.sweep import grid

  members = grid.members(tiny, ["seed"], [(0,), (1,), (2,)])
  many, one = parallel.mesh(), parallel.mesh(jax.devices()[:1])
  placed = [programs.place(programs.filled(members, mesh), mesh) for mesh in (many, one)]
  state = programs.start(programs.filled(members, many), placed[0])
  saved = programs.to_save(state, 3)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(saved.params)} == {3}
  for place, count in zip(placed, (8, 3), strict=True):
    restored = programs.from_saved(saved, place, members)
    for leaf, first in zip(jax.tree.leaves(restored.params), jax.tree.leaves(state.params), strict=True):
      assert leaf.shape[0] == count
      assert np.array_equal(leaf[:3], first[:3])


def test_successive_halving_stops_the_worse_settings_of_each_latent_size(sweep, tmp_path):
  rates = ("optimizer.learning_rate", [1e-6, 2e-3, 1e-5])
  rows = sweep(LATENTS, rates, factor=3, epochs=6)
  whole_runs = [name for name, row in rows.items() if row["status"] == "done"]
  assert whole_runs == ["latent=2,learning_rate=0.002", "latent=4,learning_rate=0.002"]
  lost = rows["latent=2,learning_rate=1e-06"]
  assert lost["status"] == "stopped after epoch 2"
  assert lost["epochs"] == 2
  assert (tmp_path / "run" / lost["name"] / "checkpoints").exists()
  times = (tmp_path / "run" / whole_runs[0] / "metrics.jsonl").stat().st_mtime_ns
  assert sweep(LATENTS, rates, factor=3) == rows
  assert (tmp_path / "run" / whole_runs[0] / "metrics.jsonl").stat().st_mtime_ns == times
  json.loads((tmp_path / "run" / "sweep.json").read_text())


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
  plan = types.SimpleNamespace(chunk=5)
  member = types.SimpleNamespace(described=types.SimpleNamespace(plan=plan))
  mesh = types.SimpleNamespace(mesh=types.SimpleNamespace(size=1))
  placed = types.SimpleNamespace(everywhere=mesh)
  pack = types.SimpleNamespace(
    members=[member], filled=[member], placed=placed, way="in turn", budget=10.0, measured=False, peak_bytes=1
  )
  first, *others = seconds
  lines, clock = [], iter(others)
  monkeypatch.setattr(packs, "_seconds", lambda *_: next(clock))
  monkeypatch.setattr(programs, "build", lambda *_: other)
  state = steps.TrainState(np.int32(5), (), ())
  chosen = packs._faster(pack, 0, lines.append, 100, built, state, (), first)
  assert pack.way == way
  assert chosen is (other if way == "side by side" else built)
  assert bool(lines) == tried
  assert pack.measured


def test_the_way_is_asked_once_after_the_first_chunk_which_counts(sweep, monkeypatch):
  asked, choose = [], packs._faster

  def faster(pack, number, report, end, built, state, *rest):
    plan = pack.members[0].described.plan
    asked.append((int(state.step), end) == (plan.chunk, 3 * plan.chunks_per_epoch))
    return choose(pack, number, report, end, built, state, *rest)

  monkeypatch.setattr(packs, "_faster", faster)
  rows = sweep(LATENTS, orders=packs.Orders(), epochs=3)
  assert asked == [True]
  assert {row["status"] for row in rows.values()} == {"done"}

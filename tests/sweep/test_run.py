"""The sweep command: its files, continuation after a kill, diverged members, and invalid flags."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, learned, run_command, run_main, tiny_flags

import ae_jax
from ae_jax import errors
from ae_jax.sweep import run as sweep_run

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


def sweep(workdir, *flags, **keys):
  """Runs `python -m ae_jax.sweep` on digits; returns (exit status, stdout, stderr)."""
  base_flags = [flag for flag in tiny_flags(**keys) if "model.latent" not in flag]
  return run_command("sweep", f"--workdir={workdir}", *base_flags, *flags)


GRID = ("--latents=2,4", "--seeds=2")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """Returns the folder of a sweep of four members, and the output of the command."""
  workdir = tmp_path_factory.mktemp("sweep") / "run"
  status, output, stderr = sweep(workdir, *GRID)
  assert status == 0, stderr
  return workdir, output


def test_sweep_writes_tables_figures_and_an_answer(swept):
  workdir, output = swept
  rows = json.loads((workdir / "sweep.json").read_text())["members"]
  assert [row["name"] for row in rows] == [f"latent={k},seed={s}" for k in (2, 4) for s in (0, 1)]
  assert all(row["status"] == "done" and row["squared_error"] > 0 and row["pca_squared_error"] > 0 for row in rows)
  assert len((workdir / "sweep.csv").read_text().splitlines()) == 5
  assert (workdir / "sweep.png").stat().st_size > 10_000
  assert "data:image/png" in (workdir / "report.html").read_text()
  assert "enough" in output
  assert (
    len([line for line in output.splitlines() if not line.startswith("epoch ")]) == 3
  )  # a slow machine prints epochs
  assert not list(workdir.glob(".packs/*"))


def test_the_automatic_config_can_be_swept(tmp_path):
  """The choice of its keys reads the data with JAX before the sweep chooses the devices."""
  np.savez(tmp_path / "x.npz", x_train=np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32))
  flags = (f"--config=auto:{tmp_path / 'x.npz'}", "--config.epochs=1", "--latents=2", f"--workdir={tmp_path / 'sweep'}")
  status, output, stderr = run_command("sweep", *flags)
  assert status == 0, stderr
  assert "squared error per test example at latent size 2 is" in output
  assert "in squared standard deviations" in output


def test_main_finds_a_member_complete(swept):
  workdir, _ = swept
  one = workdir / "latent=4,seed=1"
  run = ae_jax.load(one)
  assert run.config.model.latent == 4
  assert run.config.seed == 1
  assert run.encode(np.zeros((3, 8, 8), np.uint8)).shape == (3, 4)
  before = learned(one)
  status, output, stderr = run_main(*tiny_flags(seed=1), f"--workdir={one}")
  assert status == 0, stderr
  assert "After 3 epochs" in output
  after = learned(one)
  assert before[1] == after[1]
  assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True))


def test_new_members_are_added_and_finished_ones_are_unchanged(swept):
  workdir, _ = swept
  times = {path: path.stat().st_mtime_ns for path in workdir.glob("*/metrics.jsonl")}
  status, output, stderr = sweep(workdir, "--latents=2,4,3", "--seeds=2")
  assert status == 0, stderr
  assert "4 of them trained already" in output
  assert {path: path.stat().st_mtime_ns for path in times} == times
  assert (workdir / "latent=3,seed=1" / "checkpoints").exists()


def test_folder_with_members_of_another_config_is_refused(swept):
  workdir, _ = swept
  before = (workdir / "sweep.json").read_bytes()
  status, _, stderr = sweep(workdir, *GRID, epochs=4)
  assert status == 1
  assert "holds a run of another config, which differs in epochs (3, now 4)" in stderr
  assert (workdir / "sweep.json").read_bytes() == before


def test_killed_sweep_continues_bitwise(swept, tmp_path):
  workdir, _ = swept
  killed = tmp_path / "run"
  command = [sys.executable, "-m", "ae_jax.sweep", f"--workdir={killed}", *GRID]
  command += [flag for flag in tiny_flags() if "model.latent" not in flag]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  while process.poll() is None and not list(killed.glob(".packs/*/checkpoints/[0-9]*")):
    time.sleep(0.01)
  process.kill()
  process.communicate()
  assert list(killed.glob(".packs/*/checkpoints/[0-9]*")), "it ended before it could be killed"
  assert not (killed / "sweep.json").exists()
  status, _, stderr = sweep(killed, *GRID)
  assert status == 0, stderr
  for name in ("latent=2,seed=0", "latent=4,seed=1"):
    (params, records), (other, others) = learned(workdir / name), learned(killed / name)
    assert records == others
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (params, other)), strict=True))


def test_diverged_member_is_marked_and_the_others_finish(tmp_path):
  workdir = tmp_path / "run"
  flags = ("--latents=2", "--grid", "optimizer.learning_rate=0.002,1e30", "--config.optimizer.schedule=constant")
  status, output, stderr = sweep(workdir, *flags)
  assert status == 0, stderr
  good, bad = json.loads((workdir / "sweep.json").read_text())["members"]
  assert good["status"] == "done"
  assert good["squared_error"] > 0
  assert bad["status"].startswith("diverged at step")
  assert "squared_error" not in bad
  assert f"{bad['name']} diverged" in output
  status, output, _ = sweep(workdir, *flags)
  assert status == 0
  assert "2 of them trained already" in output


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--latents=2,x"], "--latents"),
    (["--latents=2,2"], "twice"),
    (["--latents=2.5"], "must be an integer"),
    (["--grid", "optimizer.learning_rte=1"], "did you mean 'optimizer.learning_rate'"),
    (["--grid", "objective.name=1"], "is not a numeric config key"),
    (["--grid", "data.budget_gib=1,2"], "must be the same for all members"),
    (["--grid", "seed=1,2"], "already an axis"),
    (["--latents=0"], "config.model.latent=0"),
  ],
)
def test_invalid_grid_is_refused_in_one_line_before_anything_is_written(tmp_path, flags, message):
  status, output, stderr = sweep(tmp_path / "run", *flags)
  assert status == 1
  assert message in stderr
  assert stderr.startswith("ae_jax: ")
  assert not output
  assert len(stderr.splitlines()) == 1
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value"), [("early_stopping.metric", "test/loss"), ("max_minutes", 1.0)])
def test_keys_that_end_a_run_early_are_refused(tiny, tmp_path, key, value):
  tiny.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=f"config.{key}="):
    sweep_run.run(tiny, [("model.latent", (2, 4))], tmp_path / "sweep")
  assert not (tmp_path / "sweep").exists()

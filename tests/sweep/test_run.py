"""A sweep by its command: killed and begun again, with members that fail, and what it leaves behind."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, learned, run_main, tiny_flags

import ae_jax
from ae_jax import errors
from ae_jax.sweep import run as sweep_run

pytestmark = pytest.mark.runs_optax


def sweep(workdir, *flags, **keys):
  """`python -m ae_jax.sweep` on digits: (exit status, output, complaints)."""
  given = [flag for flag in tiny_flags(**keys) if "model.latent" not in flag]
  command = [sys.executable, "-m", "ae_jax.sweep", f"--workdir={workdir}", *given, *flags]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
  return done.returncode, done.stdout, done.stderr


GRID = ("--latents=2,4", "--seeds=2")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """The folder of a sweep of four members, and what the command said."""
  workdir = tmp_path_factory.mktemp("sweep") / "run"
  status, output, complaints = sweep(workdir, *GRID)
  assert status == 0, complaints
  return workdir, output


def test_it_leaves_a_table_a_picture_and_a_sentence(swept):
  workdir, output = swept
  rows = json.loads((workdir / "sweep.json").read_text())["members"]
  assert [row["name"] for row in rows] == [f"latent={k},seed={s}" for k in (2, 4) for s in (0, 1)]
  assert all(row["status"] == "done" and row["squared_error"] > 0 and row["pca_squared_error"] > 0 for row in rows)
  assert len((workdir / "sweep.csv").read_text().splitlines()) == 5
  assert (workdir / "sweep.png").stat().st_size > 10_000
  assert "data:image/png" in (workdir / "report.html").read_text()
  assert "enough" in output
  assert len([line for line in output.splitlines() if not line.startswith("epoch ")]) == 3  # on a slow machine
  assert not list(workdir.glob(".packs/*"))


def test_a_member_is_an_ordinary_run_that_main_finds_complete(swept):
  workdir, _ = swept
  one = workdir / "latent=4,seed=1"
  run = ae_jax.load(one)
  assert run.config.model.latent == 4
  assert run.config.seed == 1
  assert run.encode(np.zeros((3, 8, 8), np.uint8)).shape == (3, 4)
  before = learned(one)
  status, output, complaints = run_main(*tiny_flags(seed=1), f"--workdir={one}")
  assert status == 0, complaints
  assert "After 3 epochs" in output
  after = learned(one)
  assert before[1] == after[1]
  assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True))


def test_finished_members_are_left_alone_and_new_ones_join(swept):
  workdir, _ = swept
  times = {path: path.stat().st_mtime_ns for path in workdir.glob("*/metrics.jsonl")}
  status, output, complaints = sweep(workdir, "--latents=2,4,3", "--seeds=2")
  assert status == 0, complaints
  assert "4 of them trained already" in output
  assert {path: path.stat().st_mtime_ns for path in times} == times
  assert (workdir / "latent=3,seed=1" / "checkpoints").exists()


def test_members_of_another_config_are_not_taken_for_those_of_this_one(swept):
  workdir, _ = swept
  before = (workdir / "sweep.json").read_bytes()
  status, _, complaints = sweep(workdir, *GRID, epochs=4)
  assert status == 1
  assert "holds a run of another config: it differs in epochs (3, now 4)" in complaints
  assert (workdir / "sweep.json").read_bytes() == before


def test_a_sweep_that_is_killed_continues_bit_for_bit(swept, tmp_path):
  workdir, _ = swept
  killed = tmp_path / "run"
  command = [sys.executable, "-m", "ae_jax.sweep", f"--workdir={killed}", *GRID]
  command += [flag for flag in tiny_flags() if "model.latent" not in flag]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  while process.poll() is None and not list(killed.glob(".packs/*/checkpoints/[0-9]*")):
    pass
  process.kill()
  process.communicate()
  assert list(killed.glob(".packs/*/checkpoints/[0-9]*")), "it ended before it could be killed"
  assert not (killed / "sweep.json").exists()
  status, _, complaints = sweep(killed, *GRID)
  assert status == 0, complaints
  for name in ("latent=2,seed=0", "latent=4,seed=1"):
    (params, records), (other, others) = learned(workdir / name), learned(killed / name)
    assert records == others
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (params, other)), strict=True))


def test_a_member_that_diverges_is_marked_and_hurts_no_other(tmp_path):
  workdir = tmp_path / "run"
  flags = ("--latents=2", "--grid", "optimizer.learning_rate=0.002,1e30", "--config.optimizer.schedule=constant")
  status, output, complaints = sweep(workdir, *flags)
  assert status == 0, complaints
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
  ("flags", "said"),
  [
    (["--latents=2,x"], "--latents"),
    (["--latents=2,2"], "twice"),
    (["--latents=2.5"], "must be an integer"),
    (["--grid", "optimizer.learning_rte=1"], "did you mean 'optimizer.learning_rate'"),
    (["--grid", "objective.name=1"], "is no number"),
    (["--grid", "data.budget_gib=1,2"], "same for a whole sweep"),
    (["--grid", "seed=1,2"], "an axis already"),
    (["--latents=0"], "config.model.latent=0"),
  ],
)
def test_what_is_wrong_with_the_grid_is_said_in_a_line_before_anything_is_written(tmp_path, flags, said):
  status, output, complaints = sweep(tmp_path / "run", *flags)
  assert status == 1
  assert said in complaints
  assert complaints.startswith("ae_jax: ")
  assert not output
  assert len(complaints.splitlines()) == 1
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value"), [("early_stopping.metric", "test/loss"), ("max_minutes", 1.0)])
def test_what_ends_a_single_run_early_is_refused(tiny, tmp_path, key, value):
  tiny.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=f"config.{key}="):
    sweep_run.run(tiny, [("model.latent", (2, 4))], tmp_path / "sweep")
  assert not (tmp_path / "sweep").exists()

"""Sweeps by other processes: a worker that is killed, jobs, and what cannot be."""

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import ROOT, learned, tiny_flags

from ae_jax import errors
from ae_jax.sweep import engines
from ae_jax.training import preemption

GRID = ("--latents=2,4", "--seeds=2", "--shares=2")


def begun(workdir, engine, *flags, **keys):
  """`python -m ae_jax.sweep` by an engine, in two shares, as a process that runs."""
  given = [flag for flag in tiny_flags(**keys) if "model.latent" not in flag]
  command = [sys.executable, "-m", "ae_jax.sweep", f"--workdir={workdir}", f"--engine={engine}", *GRID, *given, *flags]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(process):
  """The processes that train for a sweep on Ray."""
  found = []
  for child in psutil.Process(process.pid).children(recursive=True):
    with contextlib.suppress(psutil.Error):  # it has ended
      found += [child] if "ray::_work" in " ".join(child.cmdline()) else []
  return found


def test_a_ray_worker_that_is_killed_costs_its_members_nothing(tmp_path):
  process = begun(tmp_path / "run", "ray", epochs=60, checkpoint_every_epochs=5)
  until = time.monotonic() + 120
  while process.poll() is None and time.monotonic() < until:
    if list((tmp_path / "run").glob(".packs/*/checkpoints/[0-9]*/metrics/metrics")) and len(workers(process)) == 2:
      break
    time.sleep(0.02)
  (lost, *_), before = workers(process), {worker.pid for worker in workers(process)}
  lost.kill()
  output, complaints = process.communicate(timeout=240)
  assert process.returncode == 0, complaints
  assert len(before) == 2
  assert "members in 1 program" in output
  rows = json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]
  assert [row["status"] for row in rows] == ["done"] * 4
  for row in rows:
    _, records = learned(tmp_path / "run" / row["name"])
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps))
    assert records[-1]["epoch"] == 60


def test_jobs_of_submitit_train_the_members(tmp_path):
  output, complaints = begun(tmp_path / "run", "slurm", "--slurm", "timeout_min=5").communicate(timeout=240)
  assert "Look at" in output, complaints
  rows = json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]
  assert all(row["status"] == "done" and np.isfinite(row["squared_error"]) for row in rows)


def collected(answers, received=lambda: "", starts=None):
  """Returns the results of `_collected` for one task whose n-th try gives answers[n], and the task of each try."""
  starts = [] if starts is None else starts

  def begin(task):
    starts.append(task)
    return len(starts) - 1

  found = engines._collected(["task"], begin, lambda running: ((n, answers[n]) for n in running), received)
  return list(found), starts


def test_what_is_lost_is_begun_again_but_not_for_ever():
  assert collected([None, None, [{"a": 1}]]) == ([{"a": 1}], ["task"] * 3)
  starts = []
  with pytest.raises(errors.UserError, match="5 workers were lost"):
    collected([None] * 9, starts=starts)
  assert len(starts) == 5


def test_a_mistake_of_the_user_is_passed_on_and_a_signal_ends_it():
  with pytest.raises(errors.UserError, match="the disk is full"):
    collected(["the disk is full"])
  with pytest.raises(preemption.Interrupted, match="SIGTERM"):
    collected([None], lambda: "SIGTERM")


def test_options_of_slurm_are_names_and_values():
  assert engines.options(["slurm_partition=gpu", "timeout_min=5"]) == {"slurm_partition": "gpu", "timeout_min": 5}
  with pytest.raises(errors.UserError, match="--slurm gpu: must be KEY=VALUE"):
    engines.options(["gpu"])


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(errors.UserError, match=r"pip install 'ae_jax\[ray\]'"):
    engines.ray(lambda: "", "", 0)

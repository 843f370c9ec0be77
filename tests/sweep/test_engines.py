"""Engines: a Ray worker that is killed, Slurm jobs, lost workers, and invalid options."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import ROOT, learned, tiny_flags

from ae_jax import errors
from ae_jax.sweep import engines, trainer
from ae_jax.training import preemption

pytestmark = pytest.mark.quick_compile

GRID = ("--latents=2,4", "--seeds=2", "--shares=2")


def start_sweep(workdir, engine, *flags, **keys):
  """Starts `python -m ae_jax.sweep` with an engine and two shares; returns the process."""
  base_flags = [flag for flag in tiny_flags(**keys) if "model.latent" not in flag]
  command = [sys.executable, "-m", "ae_jax.sweep", f"--workdir={workdir}", f"--engine={engine}", *GRID]
  command += [*base_flags, *flags]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(process):
  """Returns the worker processes of a sweep on Ray."""
  processes = []
  for child in psutil.Process(process.pid).children(recursive=True):
    with contextlib.suppress(psutil.Error):  # it has ended
      processes += [child] if "ray::_work" in " ".join(child.cmdline()) else []
  return processes


@pytest.mark.slow  # starts Ray; `_collect`, which repeats the work of lost workers, is tested below
def test_members_of_a_killed_ray_worker_are_trained_to_the_end(tmp_path):
  process = start_sweep(tmp_path / "run", "ray", epochs=24, checkpoint_every_epochs=3)
  until = time.monotonic() + 120
  while process.poll() is None and time.monotonic() < until:
    if list((tmp_path / "run").glob(".packs/*/checkpoints/[0-9]*/metrics/metrics")) and len(workers(process)) == 2:
      break
    time.sleep(0.02)
  (lost, *_), before = workers(process), {worker.pid for worker in workers(process)}
  lost.kill()
  output, stderr = process.communicate(timeout=240)
  assert process.returncode == 0, stderr
  assert len(before) == 2
  assert "members in 1 program" in output
  rows = json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]
  assert [row["status"] for row in rows] == ["done"] * 4
  for row in rows:
    _, records = learned(tmp_path / "run" / row["name"])
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps))
    assert records[-1]["epoch"] == 24


def test_submitit_jobs_train_the_members(tmp_path):
  output, stderr = start_sweep(tmp_path / "run", "slurm", "--slurm", "timeout_min=5").communicate(timeout=240)
  assert "Look at" in output, stderr
  rows = json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]
  assert all(row["status"] == "done" and np.isfinite(row["squared_error"]) for row in rows)


TASK = engines.Task({}, [], [], pathlib.Path("sweep"), trainer.SweepOptions())


def collect(answers, received=lambda: "", starts=None):
  """Returns the results of `_collect` for one task whose n-th try gives answers[n], and the task of each try."""
  starts = [] if starts is None else starts

  def start(task):
    starts.append(task)
    return len(starts) - 1

  results = engines._collect([TASK], start, lambda running: ((n, answers[n]) for n in running), received)
  return list(results), starts


def test_a_lost_task_is_started_again_a_limited_number_of_times():
  assert collect([None, None, [{"a": 1}]]) == ([{"a": 1}], [TASK] * 3)
  starts = []
  with pytest.raises(errors.UserError, match="5 workers were lost"):
    collect([None] * 9, starts=starts)
  assert len(starts) == 5


def test_collect_raises_a_workers_user_error_and_stops_at_a_signal():
  with pytest.raises(errors.UserError, match="the disk is full"):
    collect(["the disk is full"])
  with pytest.raises(preemption.Interrupted, match="SIGTERM"):
    collect([None], lambda: "SIGTERM")


def test_slurm_options_are_parsed_from_key_value_texts():
  assert engines.parse_options(["slurm_partition=gpu", "timeout_min=5"]) == {"slurm_partition": "gpu", "timeout_min": 5}
  with pytest.raises(errors.UserError, match="--slurm gpu: must be KEY=VALUE"):
    engines.parse_options(["gpu"])


def test_a_missing_engine_raises_with_the_extra_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(errors.UserError, match=r"pip install 'ae_jax\[ray\]'"):
    engines.ray(lambda: "", "", 0)

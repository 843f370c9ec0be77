"""Runs with several processes, started on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import OLD_JAX, ROOT, learned, run_main, tiny_flags

import ae_jax
from ae_jax.runs import logs, run_folder

pytestmark = pytest.mark.quick_compile


def start(count, workdir, devices=1, flags=None, **keys):
  """Starts the processes of a run by the command line; `flags` replace `tiny_flags(**keys)`."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  command = [sys.executable, "-m", "ae_jax.main", *(flags or tiny_flags(**keys)), f"--workdir={workdir}"]
  command += [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
  xla_flags = f"--xla_force_host_platform_device_count={devices} {os.environ.get('XLA_FLAGS', '')}"
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return [
    subprocess.Popen(
      [*command, *([f"--process={number}"] if count > 1 else [])], env={**os.environ, "XLA_FLAGS": xla_flags}, **options
    )
    for number in range(count)
  ]


def train_alone(workdir, **keys):
  """Trains the same run with one process, which the command server starts faster."""
  status, _, complaints = run_main(*tiny_flags(**keys), f"--workdir={workdir}")
  assert status == 0, complaints


def finish(processes, timeout=240):
  """Waits until the processes have ended without error; returns their (stdout, stderr)."""
  outputs = [process.communicate(timeout=timeout) for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), outputs
  return outputs


def assert_runs_agree(a, b):
  """Asserts that two runs have the same parameters and records to rounding."""
  (params, records), (other_params, other_records) = learned(a), learned(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), params, other_params)
  assert [record["step"] for record in records] == [record["step"] for record in other_records]
  for record, other in zip(records, other_records, strict=True):
    assert record == pytest.approx(other, rel=1e-4)


def wait_for_records(workdir, count, seconds=120):
  end = time.monotonic() + seconds
  while len(logs.read(workdir)) < count:
    assert time.monotonic() < end, "the run does not start"
    time.sleep(0.05)


@pytest.fixture(scope="module")
def single_process_run(tmp_path_factory):
  """The folder of a run with one process."""
  workdir = tmp_path_factory.mktemp("one") / "run"
  train_alone(workdir)
  return workdir


@pytest.mark.parametrize(
  ("count", "devices", "keys"),
  [
    (2, 2, {"parallel_state": "sharded"}),
    (2, 1, {"data.placement": "stream"}),
  ],
)
def test_several_processes_agree_with_one(single_process_run, tmp_path, count, devices, keys):
  outputs = finish(start(count, tmp_path / "many", devices, **keys))
  assert_runs_agree(single_process_run, tmp_path / "many")
  printed = ["training examples" in output for output, _ in outputs]
  assert printed == [True] + [False] * (count - 1)
  assert len(run_folder.read_description(tmp_path / "many")["devices"]) == count * devices


STATEFUL = [
  "--config=configs/vqvae.py:digits",
  "--config.epochs=2",
  "--config.batch_size=128",
  "--config.model.channels=(4,)",
  "--config.model.latent=3",
  "--config.model.codebook_size=8",
  "--config.model.dropout=0.1",
  "--config.ema_decay=0.9",
  "--config.data.augment=({'name': 'shift', 'pixels': 1},)",
  "--config.evaluators=()",
]


@pytest.mark.slow
def test_codebook_and_moving_averages_of_two_processes_agree_with_one(tmp_path):
  finish(start(1, tmp_path / "one", flags=STATEFUL))
  finish(start(2, tmp_path / "two", flags=STATEFUL))
  assert_runs_agree(tmp_path / "one", tmp_path / "two")
  one, two = (ae_jax.load(tmp_path / name, weights="raw").variables for name in ("one", "two"))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), one, two)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_process_is_killed_all_end_and_any_number_can_continue(tmp_path, victim):
  keys = {"epochs": 40}
  train_alone(tmp_path / "straight", **keys)
  processes = start(2, tmp_path / "broken", **keys)
  wait_for_records(tmp_path / "broken", 4)
  processes[victim].kill()
  begun = time.monotonic()
  _, complaints = processes[1 - victim].communicate(timeout=90)
  assert time.monotonic() - begun < 60
  assert processes[1 - victim].returncode not in (0, None)
  message = "ae_jax: another process of the run has ended; start all processes again"
  if OLD_JAX:  # JAX itself ends the process with status 1
    assert "another task died" in complaints
  else:
    assert complaints.splitlines()[-1].startswith(message)
  processes[victim].communicate()
  finish(start(1, tmp_path / "broken", devices=3, **keys))
  assert_runs_agree(tmp_path / "straight", tmp_path / "broken")


def test_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
  keys = {"epochs": 200}
  processes = start(2, tmp_path / "run", **keys)
  wait_for_records(tmp_path / "run", 4)
  processes[1].send_signal(signal.SIGTERM)
  outputs = finish(processes)
  assert "stopped after epoch" in outputs[0][0]


def test_all_processes_report_an_invalid_config(tmp_path):
  processes = start(2, tmp_path / "run", epochs=0)
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [1, 1]
  assert all("config.epochs=0: must be an integer from 1" in error for error in errors)
  assert not (tmp_path / "run").exists()

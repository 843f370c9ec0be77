"""Several processes of one run, real ones, on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import OLD_JAX, ROOT, learned, tiny_flags

import ae_jax
from ae_jax.runs import logs


def started(count, workdir, devices=1, flags=None, **keys):
  """The processes of a run, as a user starts them; `flags` describe another run than `tiny_flags`."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  command = [sys.executable, "-m", "ae_jax.main", *(flags or tiny_flags(**keys)), f"--workdir={workdir}"]
  command += [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
  xla_flags = f"--xla_force_host_platform_device_count={devices}"
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return [
    subprocess.Popen(
      [*command, *([f"--process={number}"] if count > 1 else [])], env={**os.environ, "XLA_FLAGS": xla_flags}, **options
    )
    for number in range(count)
  ]


def finished(processes, timeout=240):
  """What they all said, once they have ended well."""
  said = [process.communicate(timeout=timeout) for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), said
  return said


def alike(a, b):
  (params, records), (other_params, other_records) = learned(a), learned(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), params, other_params)
  assert [record["step"] for record in records] == [record["step"] for record in other_records]
  for record, other in zip(records, other_records, strict=True):
    assert record == pytest.approx(other, rel=1e-4)


def wait_for_records(workdir, count, seconds=120):
  end = time.monotonic() + seconds
  while len(logs.read(workdir)) < count:
    assert time.monotonic() < end, "the run does not begin"
    time.sleep(0.05)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  """What one process learned."""
  workdir = tmp_path_factory.mktemp("one") / "run"
  finished(started(1, workdir))
  return workdir


@pytest.mark.parametrize(
  ("count", "devices", "keys"),
  [
    (2, 2, {"parallel_state": "sharded"}),
    (4, 1, {"data.placement": "stream"}),
  ],
)
def test_processes_learn_together_what_one_learns(one, tmp_path, count, devices, keys):
  said = finished(started(count, tmp_path / "many", devices, **keys))
  alike(one, tmp_path / "many")
  spoke = ["training examples" in output for output, _ in said]
  assert spoke == [True] + [False] * (count - 1)


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
def test_two_processes_learn_the_codebook_and_averages_of_one(tmp_path):
  finished(started(1, tmp_path / "one", flags=STATEFUL))
  finished(started(2, tmp_path / "two", flags=STATEFUL))
  alike(tmp_path / "one", tmp_path / "two")
  one, two = (ae_jax.load(tmp_path / name, weights="raw").variables for name in ("one", "two"))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), one, two)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_is_killed_the_others_end_and_any_number_continues(tmp_path, victim):
  keys = {"epochs": 40}
  finished(started(1, tmp_path / "straight", **keys))
  processes = started(2, tmp_path / "broken", **keys)
  wait_for_records(tmp_path / "broken", 4)
  processes[victim].kill()
  begun = time.monotonic()
  _, complaints = processes[1 - victim].communicate(timeout=90)
  assert time.monotonic() - begun < 60
  assert processes[1 - victim].returncode not in (0, None)
  ours = "ae_jax: another process of the run has ended; start all of them again"
  if OLD_JAX:  # it leaves with status 1 by itself, where nobody else has a word
    assert "another task died" in complaints
  else:
    assert complaints.splitlines()[-1].startswith(ours)
  processes[victim].communicate()
  finished(started(1, tmp_path / "broken", devices=3, **keys))
  alike(tmp_path / "straight", tmp_path / "broken")


def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path):
  keys = {"epochs": 200}
  processes = started(2, tmp_path / "run", **keys)
  wait_for_records(tmp_path / "run", 4)
  processes[1].send_signal(signal.SIGTERM)
  said = finished(processes)
  assert "stopped after epoch" in said[0][0]


def test_all_are_told_that_the_config_makes_no_sense(tmp_path):
  processes = started(2, tmp_path / "run", epochs=0)
  said = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [1, 1]
  assert all("config.epochs=0: must be an integer, 1 or more" in complaints for complaints in said)
  assert not (tmp_path / "run").exists()

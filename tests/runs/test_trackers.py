"""Trackers receive each record once, whatever fails; MLflow and Weights & Biases are tested with their libraries."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ae_jax import errors
from ae_jax.runs import logs, progress, trackers

pytestmark = pytest.mark.quick_compile

DESCRIPTION = {
  "config": {"seed": 0, "model": {"name": "dense", "latent": 4, "widths": [16, 8]}, "data": {"path": "x" * 900}}
  | {"many": {f"key_{number}": number for number in range(120)}},
  "data": {"fingerprint": "abc"},
  "devices": ["cpu: cpu", "cpu: cpu"],
  "git_commit": "0123abcd+",
  "parameters": 12345,
}

PATIENCE = {True: 200.0, False: 200.0}  # seconds; the machine may be busy


def records(start, stop):
  return [{"step": step, "epoch": step / 2, "train/loss": 1 / step, "test/psnr": np.inf} for step in range(start, stop)]


def train(folder, start, stop, names, finish=True, pictures=None):
  """Logs the steps from `start + 1` to `stop`, as a run that continues at `start`."""
  with logs.Log(folder, start, DESCRIPTION, names) as log:
    for record in records(start + 1, stop + 1):
      log.write(record)
    if finish:
      log.finish({"probe/accuracy": 0.75, "latent/dimension": np.nan}, pictures or {})


class Notebook:
  """A tracker that stores the entries of each run, and fails if `broken`."""

  def __init__(self, workdir, description, run):
    self.run = run or f"run {len(self.entries)}"
    self.own_entries = self.entries.setdefault(self.run, [])

  def write(self, batch):
    self.gate.wait()
    if self.broken:
      raise OSError("the connection\nis lost")
    self.own_entries.extend((step, values) for _, step, values in batch)

  def finish(self, step, numbers, pictures):
    self.own_entries.append((step, numbers))

  def stop(self):
    self.own_entries.append("stopped")


@pytest.fixture
def notebook(monkeypatch):
  class Fresh(Notebook):
    entries, broken, gate = {}, False, threading.Event()

  Fresh.gate.set()
  monkeypatch.setitem(trackers.TRACKERS, "notebook", Fresh)
  monkeypatch.setattr(trackers, "_BATCH_SECONDS", 0.01)
  monkeypatch.setattr(trackers, "_PATIENCE", PATIENCE)
  monkeypatch.setattr(trackers, "_failed", {})
  return Fresh


def steps_of(entries):
  return [entry[0] for entry in entries]


def test_tracker_receives_finite_metrics_and_final_results(notebook, tmp_path):
  train(tmp_path, 0, 3, ("notebook", "notebook"))
  (entries,) = notebook.entries.values()
  assert entries[:3] == [(s, {"epoch": s / 2, "train/loss": 1 / s}) for s in (1, 2, 3)]
  assert entries[3:] == [(3, {"probe/accuracy": 0.75})]


def test_continued_run_is_the_same_run_and_sends_each_step_once(notebook, tmp_path):
  train(tmp_path, 0, 7, ("notebook",), finish=False)
  train(tmp_path, 4, 9, ("notebook",))
  (entries,) = notebook.entries.values()
  assert entries.pop(7) == "stopped"
  assert steps_of(entries) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.booleans()), max_size=4))
def test_all_steps_arrive_once_and_in_order_whenever_the_tracker_fails(sessions):
  import tempfile

  with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
    fresh, at = notebook.__wrapped__(patch), 0
    patch.setattr(progress, "warn", lambda line: None)
    for back, on, broken in [*sessions, (0, 3, False)]:
      fresh.broken, at = broken, max(0, at - back)
      train(pathlib.Path(folder), at, at + on, ("notebook",), finish=False)
      at += on
    entries = [entry for entry in next(iter(fresh.entries.values())) if entry != "stopped"]
    assert len(fresh.entries) == 1
  assert steps_of(entries) == list(range(1, len(entries) + 1))
  assert len(entries) >= at


@pytest.mark.parametrize("sent", [0, 3, 7])
def test_new_run_of_a_tracker_receives_all_steps(notebook, tmp_path, sent):
  """The stored last step counts only for the run that it was sent to."""
  train(tmp_path, 0, 7, ("notebook",), finish=False)
  file = tmp_path / trackers.FOLDER / "notebook.json"
  file.write_text(json.dumps({"run": "deleted", "step": sent}))
  init = notebook.__init__
  notebook.__init__ = lambda self, workdir, description, run: init(self, workdir, description, None)
  train(tmp_path, 7, 9, ("notebook",), finish=False)
  assert steps_of(notebook.entries["run 1"][:-1]) == list(range(1, 10))
  assert json.loads(file.read_text()) == {"run": "run 1", "step": 9}


def test_progress_is_stored_while_the_run_continues(notebook, tmp_path):
  """A process that is killed afterwards sends no step again."""
  file = tmp_path / trackers.FOLDER / "notebook.json"
  with logs.Log(tmp_path, 0, DESCRIPTION, ("notebook",)) as log:
    for record in records(1, 4):
      log.write(record)
      end = time.monotonic() + 10
      while not file.exists() or json.loads(file.read_text())["step"] < record["step"]:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert steps_of(*notebook.entries.values()) == [1, 2, 3]


def test_failed_tracker_receives_no_more_records(notebook, tmp_path, monkeypatch):
  """Records of a long run do not accumulate in memory if the server is unavailable."""
  monkeypatch.setattr(progress, "warn", lambda line: None)
  notebook.broken = True
  with logs.Log(tmp_path, 0, DESCRIPTION, ("notebook",)) as log:
    (copy,) = log._copies
    log.write(records(1, 2)[0])
    copy._thread.join(10)
    for record in records(2, 50):
      log.write(record)
    assert copy._queue.empty()


@pytest.mark.parametrize(("finish", "seconds"), [(True, 7.0), (False, 3.0)])
def test_close_waits_longer_for_a_finished_run(notebook, tmp_path, monkeypatch, finish, seconds):
  waited = []
  monkeypatch.setattr(trackers, "_PATIENCE", {True: 7.0, False: 3.0})
  monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: waited.append((self.name, timeout)))
  train(tmp_path, 0, 1, ("notebook",), finish=finish)
  assert [timeout for name, timeout in waited if name == "tracker-notebook"] == [seconds]


def test_failure_is_reported_once_and_missing_records_are_sent_later(notebook, tmp_path, capfd):
  notebook.broken = True
  train(tmp_path, 0, 3, ("notebook",))
  captured = capfd.readouterr()
  assert captured.err.splitlines() == [
    "ae_jax: notebook: the connection is lost; training continues without this tracker. Run the command again to send "
    "the rest"
  ]
  assert captured.out == ""
  assert len(logs.read(tmp_path)) == 3
  notebook.broken = False
  train(tmp_path, 3, 3, ("notebook",))
  assert steps_of(*notebook.entries.values()) == [1, 2, 3, 3]
  assert capfd.readouterr() == ("", "")


def test_unresponsive_tracker_does_not_delay_the_run(notebook, tmp_path, capfd, monkeypatch):
  monkeypatch.setattr(trackers, "_PATIENCE", {True: 0.05, False: 0.05})
  notebook.gate.clear()
  begun = time.monotonic()
  train(tmp_path, 0, 300, ("notebook",))
  assert time.monotonic() - begun < 5
  assert "notebook: no answer for" in capfd.readouterr().err
  notebook.gate.set()


def test_unresponsive_server_is_reported_and_waited_for_once(notebook, tmp_path, capfd, monkeypatch):
  monkeypatch.setattr(trackers, "_PATIENCE", {True: 1.0, False: 1.0})
  notebook.gate.clear()
  begun = time.monotonic()
  with contextlib.ExitStack() as stack:  # like the members of a sweep
    for member in range(12):
      (tmp_path / str(member)).mkdir()
      stack.enter_context(logs.Log(tmp_path / str(member), 0, DESCRIPTION, ("notebook",))).write(*records(1, 2))
  assert time.monotonic() - begun < 8
  assert len(capfd.readouterr().err.splitlines()) == 1
  notebook.gate.set()


def test_failing_constructor_is_reported_with_one_line(tmp_path, capfd, monkeypatch):
  monkeypatch.setitem(trackers.TRACKERS, "none", lambda *_: 1 / 0)
  train(tmp_path, 0, 3, ("none",))
  assert capfd.readouterr().err.startswith("ae_jax: none: division by zero; training continues")


def test_damaged_progress_file_starts_a_new_run(notebook, tmp_path):
  (tmp_path / trackers.FOLDER).mkdir()
  (tmp_path / trackers.FOLDER / "notebook.json").write_text('{"run": "12')
  train(tmp_path, 0, 2, ("notebook",))
  assert steps_of(*notebook.entries.values()) == [1, 2, 2]
  assert json.loads((tmp_path / trackers.FOLDER / "notebook.json").read_text()) == {"run": "run 0", "step": 2}


def test_unknown_and_missing_trackers_are_refused(tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match=r"config.trackers='mlfow' is unknown; did you mean 'mlflow'"):
    trackers.check(("mlfow",))
  monkeypatch.setitem(trackers.TRACKERS, "absent_tracker", Notebook)
  monkeypatch.syspath_prepend(tmp_path)
  for _ in range(2):
    with pytest.raises(errors.UserError, match=r"is not installed; run `pip install 'ae_jax\[absent_tracker\]'`"):
      trackers.check(("absent_tracker",))
    (tmp_path / "absent_tracker").mkdir(exist_ok=True)  # Weights & Biases creates a folder `wandb`


@pytest.fixture
def server(tmp_path_factory):
  """A running MLflow server: (address, process)."""
  folder = tmp_path_factory.mktemp("mlflow")
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
  command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
  environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
  with open(folder / "output", "w") as output:
    options = {"stdout": output, "stderr": output, "start_new_session": True, "cwd": folder}
    process = subprocess.Popen(command, env=environment, **options)

  try:
    _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "output")
    yield f"http://127.0.0.1:{port}", process
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()


def _wait_for(address, process, output):
  end = time.monotonic() + 240
  while time.monotonic() < end and process.poll() is None:
    try:
      return urllib.request.urlopen(address, timeout=5).close()
    except OSError:
      time.sleep(0.1)
  pytest.fail(output.read_text())


@pytest.fixture
def picture(tmp_path):
  """A small PNG file."""
  file = tmp_path / "grid.png"
  Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(file)
  return file


def stored(file):
  """Yields the records in a file of Weights & Biases: blocks in LevelDB's format after a header of 7 bytes."""
  from wandb.proto import wandb_internal_pb2

  content, at, record = file.read_bytes(), 7, b""
  while at + 7 <= len(content):
    if at % 32768 > 32768 - 7:
      at += 32768 - at % 32768
      continue
    size, part = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
    record, at = record + content[at + 7 : at + 7 + size], at + 7 + size
    if part in (1, 4):  # a complete record, or the last part of one
      yield wandb_internal_pb2.Record.FromString(record)
      record = b""


def finished_records(file):
  """Waits until the writing process has stored the last record of a file; returns all records."""
  end, entries = time.monotonic() + 60, []
  while not any(kind(record) == "exit" for record in entries):
    assert time.monotonic() < end, "the last record is missing"
    time.sleep(0.05)
    entries = list(stored(file))
  return entries


def kind(record):
  return record.WhichOneof("record_type")


def items(entries):
  return {"/".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}


def test_wandb_stores_the_run_offline(tmp_path, picture, monkeypatch, capfd):
  monkeypatch.setattr(trackers, "_PATIENCE", PATIENCE)
  monkeypatch.setenv("WANDB_MODE", "offline")
  trackers.check(("wandb",))
  folder = tmp_path / "my run"
  folder.mkdir()
  train(folder, 0, 40, ("wandb",), finish=False)
  train(folder, 30, 45, ("wandb",), pictures={"grid": picture})
  first, second = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)
  assert json.loads((folder / trackers.FOLDER / "wandb.json").read_text())["step"] == 45
  first_records = finished_records(first)
  (run,) = (record.run for record in first_records if kind(record) == "run")
  assert (run.display_name, run.project) == ("my run", "ae_jax")
  config = items(run.config.update)
  assert (config["model.latent"], config["model.widths"], config["git_commit"]) == (4, "[16, 8]", "0123abcd+")
  second_records = finished_records(second)
  codes = [record.exit.exit_code for record in first_records + second_records if kind(record) == "exit"]
  assert codes == [1, 0]  # interrupted, then finished
  assert {record.run.run_id for record in second_records if kind(record) == "run"} == {run.run_id}
  rows = [items(record.history.item) for record in first_records + second_records if kind(record) == "history"]
  assert [row["_step"] for row in rows] == list(range(1, 46))
  np.testing.assert_allclose([row["train/loss"] for row in rows], 1 / np.arange(1, 46))
  assert not any("test/psnr" in row for row in rows)
  (copied,) = second.parent.rglob("media/**/*.png")
  assert copied.read_bytes() == picture.read_bytes()
  summaries = [items(record.summary.update) for record in second_records if kind(record) == "summary"]
  assert any(summary.get("probe/accuracy") == 0.75 for summary in summaries)
  assert capfd.readouterr() == ("", "")


def test_wandb_without_a_login_is_refused_instead_of_asking(tmp_path, monkeypatch):
  import wandb

  for name, value in {"WANDB_MODE": "online", "HOME": tmp_path, "NETRC": tmp_path / "absent"}.items():
    monkeypatch.setenv(name, str(value))
  monkeypatch.delenv("WANDB_API_KEY", raising=False)
  wandb.teardown()  # so that it reads the environment again
  with pytest.raises(errors.UserError, match="run `wandb login`, or set WANDB_MODE=offline"):
    trackers.check(("wandb",))
  wandb.teardown()


def test_mlflow_stores_the_run(server, tmp_path, picture, monkeypatch, capfd):
  address, process = server
  monkeypatch.setattr(trackers, "_PATIENCE", PATIENCE)
  monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
  monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
  monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
  monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for the download in this test
  trackers.check(("mlflow",))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
  folder = tmp_path / "my run"
  folder.mkdir()
  client, file = MlflowClient(), folder / trackers.FOLDER / "mlflow.json"
  train(folder, 0, 700, ("mlflow",), finish=False)  # more metrics than fit in one request
  assert client.get_run(json.loads(file.read_text())["run"]).info.status == "KILLED"
  train(folder, 650, 710, ("mlflow",), pictures={"grid": picture})
  progress = json.loads(file.read_text())
  (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
  assert (run.info.run_id, run.info.run_name, run.info.status) == (progress["run"], "my run", "FINISHED")
  assert run.data.params["model.latent"] == "4"
  assert run.data.params["model.widths"] == "[16, 8]"
  assert run.data.params["data.path"] == "x" * 500
  assert sum(key.startswith("many.") for key in run.data.params) == 120
  expected = {"git_commit": "0123abcd+", "devices": "2 x cpu: cpu", "data_fingerprint": "abc"}
  assert run.data.tags.items() >= expected.items()
  history = client.get_metric_history(run.info.run_id, "train/loss")
  assert [metric.step for metric in history] == list(range(1, 711))
  np.testing.assert_allclose([metric.value for metric in history], 1 / np.arange(1, 711))
  assert run.data.metrics["probe/accuracy"] == 0.75
  assert "test/psnr" not in run.data.metrics
  (artifact,) = client.list_artifacts(run.info.run_id, "pictures")
  copied = client.download_artifacts(run.info.run_id, artifact.path, str(tmp_path))
  assert pathlib.Path(copied).read_bytes() == picture.read_bytes()
  assert capfd.readouterr() == ("", "")

  for other in ("0" * 32, progress["run"]):  # unknown to the server, then deleted: a new run gets all steps
    client.delete_run(progress["run"]) if other == progress["run"] else None
    file.write_text(json.dumps({"run": other, "step": 710}))
    train(folder, 710, 710, ("mlflow",))
    new = json.loads(file.read_text())["run"]
    assert new not in (other, progress["run"])
    assert [metric.step for metric in client.get_metric_history(new, "train/loss")] == list(range(1, 711))

  with logs.Log(folder, 710, DESCRIPTION, ("mlflow",)) as log:  # then the server ends
    for record in records(711, 720):
      log.write(record)
    running = lambda: client.get_run(new).info.status == "RUNNING"
    end = time.monotonic() + 60
    while not running() and time.monotonic() < end:
      time.sleep(0.1)
    assert running()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begun = time.monotonic()
    for record in records(720, 730):
      log.write(record)
    assert time.monotonic() - begun < 1
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("ae_jax: mlflow: ")
  assert "training continues without this tracker" in line
  assert logs.read(folder)[-1]["step"] == 729

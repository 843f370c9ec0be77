import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, learned, tiny_flags

import ae_jax
from ae_jax import data, errors, models, objectives
from ae_jax.data import batch_schedule, ranges
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.system import signals
from ae_jax.training import optimizers, preemption, steps, train
from ae_jax.training.state import TrainState, init_state

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


def assert_same_run(a, b):
  (params, records), (other_params, other_records) = learned(a), learned(b)
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records


@pytest.fixture
def signalled(monkeypatch):
  """A function (n): runs receive a signal when they check for one for the n-th time, from 0."""

  def at(look):
    @contextlib.contextmanager
    def caught():
      looks = iter(range(look + 1))
      yield lambda: "" if next(looks, look) < look else "SIGTERM"

    monkeypatch.setattr(preemption, "catch_signals", caught)

  return at


@pytest.mark.parametrize(("on_nan", "placement"), [("stop", "memory"), ("skip", "stream")])
def test_repeatedly_interrupted_run_equals_an_uninterrupted_one(
  tiny, tmp_path, monkeypatch, signalled, on_nan, placement
):
  """Within an epoch and a window of the log, between epochs, and before the first step."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)  # three chunks an epoch
  tiny.on_nan, tiny.data.placement = on_nan, placement
  train.train_and_evaluate(tiny, tmp_path / "straight")
  for look in (0, 1, 3, 2, 1):
    signalled(look)
    with pytest.raises(preemption.Interrupted, match="SIGTERM: stopped after epoch"):
      train.train_and_evaluate(tiny, tmp_path / "stopped")
  signalled(100)
  train.train_and_evaluate(tiny, tmp_path / "stopped")
  assert_same_run(tmp_path / "straight", tmp_path / "stopped")
  best = [ae_jax.load(tmp_path / name, "best") for name in ("straight", "stopped")]
  assert best[0].step == best[1].step  # a checkpoint within an epoch has no evaluation and is never the best


def test_non_finite_step_is_repeated_with_its_own_noise(tiny, tmp_path, unreliable):
  """A loss that is NaN for some noise is NaN again when the step is repeated."""
  with pytest.raises(errors.UserError, match=r"the loss is nan"):
    train.train_and_evaluate(tiny, tmp_path)


@pytest.mark.parametrize("look", [2, 100])
def test_records_are_on_the_disk_before_their_checkpoint(tiny, tmp_path, monkeypatch, signalled, look):
  """Otherwise a run resumed after a crash has a gap in metrics.jsonl."""
  order, save = [], checkpoints.save
  for name in ("write", "settle"):
    method = getattr(logs.Log, name)
    monkeypatch.setattr(logs.Log, name, lambda *a, name=name, method=method: (order.append(name), method(*a)))
  monkeypatch.setattr(checkpoints, "save", lambda *arguments: (order.append("save"), save(*arguments)))
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
  signalled(look)
  with contextlib.suppress(preemption.Interrupted):
    train.train_and_evaluate(tiny, tmp_path)
  saves = [number for number, name in enumerate(order) if name == "save"]
  assert len(saves) == (1 if look == 2 else tiny.epochs)
  for number in saves:
    assert order[number - 1] == "settle"


def test_signal_ends_a_process_cleanly_and_the_run_can_resume(tmp_path):
  command = [sys.executable, "-m", "ae_jax.main", *tiny_flags(epochs=400), f"--workdir={tmp_path / 'run'}"]
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **options) as process:
    while not list((tmp_path / "run").glob("metrics.jsonl")) or not logs.read(tmp_path / "run"):
      time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, stderr = process.communicate(timeout=200)
  assert process.returncode == 0, stderr
  assert stderr == ""
  acknowledged, *_, last = [line for line in output.splitlines() if line.startswith("SIGTERM")]
  assert acknowledged == f"SIGTERM: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert last.startswith("SIGTERM: stopped after epoch")
  assert "run the same command to continue" in output
  steps_ = [record["step"] for record in logs.read(tmp_path / "run")]
  assert steps_ == sorted(set(steps_))
  ae_jax.load(tmp_path / "run")


def test_signal_after_the_training_stops_the_analyses(tiny, tmp_path, signalled):
  """The first three checks for a signal are those of the epochs; the fourth follows the first analysis."""
  signalled(3)
  message = (
    r"^SIGTERM: stopped; the run is trained and saved; to write its report, run python -m ae_jax.evaluate --workdir="
  )
  with pytest.raises(preemption.Interrupted, match=message):
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert ae_jax.load(tmp_path / "run").metrics["epoch"] == 3
  assert not (tmp_path / "run" / "report.html").exists()
  signalled(100)
  train.train_and_evaluate(tiny, tmp_path / "run")
  assert (tmp_path / "run" / "report.html").exists()


def test_signal_after_the_last_epoch_ends_a_process_cleanly(tmp_path):
  workdir = tmp_path / "a run"
  command = [sys.executable, "-m", "ae_jax.main", *tiny_flags(evaluators="('latent','probe')"), f"--workdir={workdir}"]
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **options) as process:
    for line in process.stdout:
      if line.startswith("epoch 3 of 3"):
        break
    process.send_signal(signal.SIGINT)
    output, stderr = process.communicate(timeout=200)
  assert (process.returncode, stderr) == (0, "")
  acknowledged, last = output.splitlines()
  assert acknowledged.startswith("SIGINT: ")
  assert last.startswith(
    "SIGINT: stopped; the run is trained and saved; to write its report, run python -m ae_jax.evaluate '--workdir="
  )
  assert not (workdir / "report.html").exists()


def test_second_signal_stops_at_once():
  script = """
import os, signal, time
from ae_jax.training import preemption
with preemption.catch_signals() as received:
  os.kill(os.getpid(), signal.SIGTERM)
  print(received(), flush=True)
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(60)
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
  )
  acknowledged = f"SIGTERM: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert done.stdout.splitlines() == [acknowledged, "SIGTERM"]
  assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(("end", "reported"), [("os.abort()", True), ("os._exit(3)", False)])
def test_watchdog_reports_an_abort_also_with_the_signal_thread(end, reported):
  script = f"""
import os, signal, time
from ae_jax.system import signals
from ae_jax.training import preemption
signals.watch()
preemption.watchdog()
with preemption.catch_signals() as received:
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.3)
  print(received(), flush=True)
{end}
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=200, cwd=ROOT, check=False
  )
  acknowledged = f"SIGTERM: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert done.stdout.splitlines() == [acknowledged, "SIGTERM"]
  assert done.stderr == (f"ae_jax: {preemption.LOST}\n" if reported else "")


def test_signal_handlers_are_restored():
  before = [signal.getsignal(number) for number in signals.SIGNALS]
  with preemption.catch_signals():
    pass
  assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_second_process_in_a_run_folder_is_refused(tiny, tmp_path):
  train.train_and_evaluate(tiny, tmp_path / "run")
  before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
  with (
    run_folder.locked(tmp_path / "run"),
    pytest.raises(errors.UserError, match="another process is training in this folder"),
  ):
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
  train.train_and_evaluate(tiny, tmp_path / "run")


SHAPE, KEY = (6, 1, 1), jax.random.key(0)


def small():
  """The static arguments of a chunk of a dense model for 6 elements, and its initial state."""
  model = models.build(
    "dense", SHAPE, latent=2, widths=(4,), decoder_widths=(), activation="relu", bottleneck="identity", tied=False
  )
  schedule = {"learning_rate": 0.1, "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
  static = {
    "model": model,
    "objective": objectives.build("reconstruction", model, "real", likelihood="gaussian"),
    "optimizer": optimizers.optimizer_factory("adam", **schedule, epochs=1, steps_per_epoch=1)(),
  }
  state = init_state(KEY, model=model, optimizer=static["optimizer"])
  return {**static, "value_range": "real", "microbatches": 1}, state


EXAMPLES = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
EXAMPLES[5, 2] = np.nan
COLUMNS = {"x": EXAMPLES}
ROWS = np.int32([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
WEIGHTS = np.ones(ROWS.shape, np.float32)


def chunk(state, selection, on_nan, static):
  train = functools.partial(steps.train_chunk, on_nan=on_nan, **static)
  return jax.jit(train)(state, COLUMNS, ROWS[selection], WEIGHTS[selection], KEY)


def test_stop_updates_nothing_from_the_first_non_finite_step_on():
  static, start = small()
  state, terms, finite = chunk(start, slice(None), "stop", static)
  assert np.asarray(finite).tolist() == [True, True, False, True, True]
  assert int(state.step) == 2
  before, _, _ = chunk(start, slice(2), "stop", static)
  jax.tree.map(np.testing.assert_array_equal, state, before)
  assert np.isnan(terms["loss"][2])


def test_chunk_without_guard_reports_non_finite_steps():
  static, start = small()
  state, _, finite = chunk(start, slice(None), None, static)
  assert np.asarray(finite).tolist() == [True, True, False, False, False]
  assert not np.isfinite(state.params["encoder"]["code"]["kernel"]).any()
  assert np.asarray(chunk(start, slice(2), None, static)[2]).all()


def test_skipped_step_updates_only_the_step_count():
  static, start = small()
  state, _, finite = chunk(start, slice(None), "skip", static)
  assert np.asarray(finite).tolist() == [True, True, False, True, True]
  assert int(state.step) == 5
  before, _, _ = chunk(start, slice(2), "skip", static)
  after = TrainState(before.step + 1, before.params, before.opt_state)
  after, _, _ = chunk(after, slice(3, None), "skip", static)
  jax.tree.map(np.testing.assert_array_equal, state, after)


def diverging(tiny):
  """A config whose loss soon becomes infinite."""
  tiny.optimizer.name, tiny.optimizer.learning_rate, tiny.optimizer.schedule = "sgd", 1e18, "constant"
  tiny.optimizer.warmup_epochs = 2.0
  tiny.objective.likelihood = "gaussian"
  tiny.data.range = "real"
  return tiny


@pytest.mark.parametrize("augment", [(), ({"name": "brightness", "level": 0.5},)])
def test_non_finite_loss_ends_the_run_and_nan_npz_reproduces_it(tiny, tmp_path, augment):
  tiny.data.augment = augment
  with pytest.raises(errors.UserError, match=r"step \d+ \(epoch \d\): the loss is (inf|nan)") as failure:
    train.train_and_evaluate(diverging(tiny), tmp_path)
  assert "\n" not in str(failure.value)
  stored = dict(np.load(tmp_path / "nan.npz"))
  records = logs.read(tmp_path)
  assert all(np.isfinite(record["train/loss"]) for record in records)
  assert f"step {int(stored['step']) + 1} " in str(failure.value)
  assert not np.isfinite(stored["loss"])
  examples = {image.tobytes() for image in ranges.normalise(data.load("digits", "", "real").train, "real")}
  assert all((image.tobytes() in examples) != bool(augment) for image in stored["x"])  # as in the step, augmented
  model = models.build(shape=(8, 8, 1), **tiny.model)
  params = {}
  for name, value in stored.items():
    if name.startswith("params/"):
      _, half, layer, kind = name.split("/")
      params.setdefault(half, {}).setdefault(layer, {})[kind] = value
  x_hat = model.reconstruct(models.Variables(params), stored["x"])
  error = np.square(np.float64(x_hat) - stored["x"]).sum((1, 2, 3))
  with np.errstate(over="ignore"):
    assert not np.isfinite(np.float32(error.mean())) or not np.isfinite(stored["gradient/decoder/logits/kernel"]).all()


@pytest.mark.parametrize("scheduled", [False, True])
def test_first_non_finite_gradient_or_parameter_is_named(tmp_path, scheduled):
  static, state = small()
  batch = steps.read_batch(ROWS[2], WEIGHTS[2], examples=COLUMNS, model=static["model"], value_range="real")
  options = {"model": static["model"], "objective": static["objective"]}
  if scheduled:  # numbers of the objective at a step are arrays
    noisy = {"corruption": "gaussian", "level": 0.1, "alpha": 1.0, "beta": 1.0, "likelihood": "gaussian"}
    objective = objectives.build("denoising", static["model"], "real", **noisy)
    options["objective"] = dataclasses.replace(objective, alpha=jnp.float32(1.0))
  with pytest.raises(errors.UserError, match=r"here: the loss is nan, the gradient of \w+/\w+/\w+ is not finite"):
    preemption.fail_not_finite(state, batch, KEY, tmp_path / "nan.npz", **options, where="here")
  broken = jax.tree.map(lambda leaf: leaf, state.params)
  broken["decoder"]["logits"]["bias"] = jnp.full(6, jnp.inf)
  broken = TrainState(state.step, broken, state.opt_state)
  with pytest.raises(errors.UserError, match="the parameter decoder/logits/bias is not finite"):
    preemption.fail_not_finite(broken, batch, KEY, tmp_path / "nan.npz", **options, where="here")
  assert sorted(os.listdir(tmp_path)) == ["nan.npz"]

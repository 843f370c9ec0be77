import contextlib
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

pytestmark = pytest.mark.runs_optax


def same(a, b):
  (params, records), (other_params, other_records) = learned(a), learned(b)
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records


@pytest.fixture
def signalled(monkeypatch):
  """A function: from now on runs are asked to stop when they look for a signal for the n-th time."""

  def at(look):
    @contextlib.contextmanager
    def caught():
      looks = iter(range(look + 1))
      yield lambda: "" if next(looks, look) < look else "SIGTERM"

    monkeypatch.setattr(preemption, "caught", caught)

  return at


@pytest.mark.parametrize(("on_nan", "placement"), [("stop", "memory"), ("skip", "stream")])
def test_a_run_that_is_stopped_again_and_again_ends_as_if_it_had_not_been(
  tiny, tmp_path, monkeypatch, signalled, on_nan, placement
):
  """In the middle of an epoch, of a window of the log, between epochs, before the first step."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)  # three chunks an epoch
  tiny.on_nan, tiny.data.placement = on_nan, placement
  train.train_and_evaluate(tiny, tmp_path / "straight")
  for look in (0, 1, 3, 2, 1):
    signalled(look)
    with pytest.raises(preemption.Interrupted, match="SIGTERM: stopped after epoch"):
      train.train_and_evaluate(tiny, tmp_path / "stopped")
  signalled(100)
  train.train_and_evaluate(tiny, tmp_path / "stopped")
  same(tmp_path / "straight", tmp_path / "stopped")
  best = [ae_jax.load(tmp_path / name, "best") for name in ("straight", "stopped")]
  assert best[0].step == best[1].step  # a checkpoint in the middle of an epoch, not evaluated, is never the best


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_is_not_finite_by_its_noise_is_found_again(tiny, tmp_path, unreliable, seed):
  """The step is computed again with the noise that it had."""
  tiny.seed = seed
  with pytest.raises(errors.UserError, match=r"the loss is nan"):
    train.train_and_evaluate(tiny, tmp_path)


@pytest.mark.parametrize("look", [2, 100])
def test_records_lie_on_the_disk_before_the_checkpoint_that_follows_them(tiny, tmp_path, monkeypatch, signalled, look):
  """Otherwise a crash leaves a run that goes on behind a gap in metrics.jsonl."""
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_well_and_the_same_command_continues(tiny, tmp_path, number):
  tiny.epochs = 400
  command = [sys.executable, "-m", "ae_jax.main", *tiny_flags(epochs=400), f"--workdir={tmp_path / 'run'}"]
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **options) as process:
    while not list((tmp_path / "run").glob("metrics.jsonl")) or not logs.read(tmp_path / "run"):
      time.sleep(0.05)
    process.send_signal(number)
    output, complaints = process.communicate(timeout=200)
  assert process.returncode == 0, complaints
  assert complaints == ""
  acknowledged, *_, last = [line for line in output.splitlines() if line.startswith(number.name)]
  assert acknowledged == f"{number.name}: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert last.startswith(f"{number.name}: stopped after epoch")
  assert "the same command continues" in output
  steps_ = [record["step"] for record in logs.read(tmp_path / "run")]
  assert steps_ == sorted(set(steps_))
  ae_jax.load(tmp_path / "run")


def test_a_signal_after_the_training_stops_the_studies_and_says_how_to_go_on(tiny, tmp_path, signalled):
  """Three looks are those of three epochs; the fourth follows the first finding."""
  signalled(3)
  message = r"^SIGTERM: stopped; the run is trained and saved, and python -m ae_jax.evaluate --workdir=.* makes"
  with pytest.raises(preemption.Interrupted, match=message):
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert ae_jax.load(tmp_path / "run").metrics["epoch"] == 3
  assert not (tmp_path / "run" / "report.html").exists()
  signalled(100)
  train.train_and_evaluate(tiny, tmp_path / "run")
  assert (tmp_path / "run" / "report.html").exists()


def test_a_signal_after_the_last_epoch_ends_a_process_well(tmp_path):
  workdir = tmp_path / "a run"
  command = [sys.executable, "-m", "ae_jax.main", *tiny_flags(evaluators="('latent','probe')"), f"--workdir={workdir}"]
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **options) as process:
    for line in process.stdout:
      if line.startswith("epoch 3 of 3"):
        break
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=200)
  assert (process.returncode, complaints) == (0, "")
  acknowledged, last = output.splitlines()
  assert acknowledged.startswith("SIGINT: ")
  assert last.startswith("SIGINT: stopped; the run is trained and saved, and python -m ae_jax.evaluate --workdir='")
  assert not (workdir / "report.html").exists()


def test_a_second_signal_stops_at_once():
  script = """
import os, signal, time
from ae_jax import interruptions
with interruptions.caught() as received:
  os.kill(os.getpid(), signal.SIGTERM)
  print(received(), flush=True)
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(60)
"""
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
  words = f"SIGTERM: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert done.stdout.splitlines() == [words, "SIGTERM"]
  assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(("end", "said"), [("os.abort()", True), ("os._exit(3)", False)])
def test_an_abort_is_told_by_the_witness_beside_the_thread_that_listens_to_signals(end, said):
  script = f"""
import os, signal, time
from ae_jax import interruptions, signals
signals.watch()
interruptions.watchdog()
with interruptions.caught() as received:
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.3)
  print(received(), flush=True)
{end}
"""
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, cwd=ROOT)
  words = f"SIGTERM: {preemption.TRAINING}; press Ctrl-C again to stop at once"
  assert done.stdout.splitlines() == [words, "SIGTERM"]
  assert done.stderr == (f"ae_jax: {preemption.LOST}\n" if said else "")


def test_handlers_are_put_back():
  before = [signal.getsignal(each) for each in signals.SIGNALS]
  with preemption.caught():
    pass
  assert [signal.getsignal(each) for each in signals.SIGNALS] == before


def test_two_processes_do_not_train_in_one_folder(tiny, tmp_path):
  train.train_and_evaluate(tiny, tmp_path / "run")
  before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
  with run_folder.locked(tmp_path / "run"), pytest.raises(errors.UserError, match="another process is training there"):
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
  train.train_and_evaluate(tiny, tmp_path / "run")


SHAPE, KEY = (6, 1, 1), jax.random.key(0)


def small():
  """The static arguments of a chunk of steps of a dense model of 6 numbers, and a state."""
  model = models.build(
    "dense", SHAPE, latent=2, widths=(4,), decoder_widths=(), activation="relu", bottleneck="identity", tied=False
  )
  schedule = {"learning_rate": 0.1, "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
  static = {
    "model": model,
    "objective": objectives.build("reconstruction", model, "real", likelihood="gaussian"),
    "optimizer": optimizers.build("adam", **schedule, epochs=1, steps_per_epoch=1),
  }
  state = init_state(KEY, model=model, optimizer=static["optimizer"])
  return {**static, "value_range": "real", "microbatches": 1}, state


EXAMPLES = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
EXAMPLES[5, 2] = np.nan
COLUMNS = {"x": EXAMPLES}
ROWS = np.int32([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
WEIGHTS = np.ones(ROWS.shape, np.float32)


def chunk(state, chosen, on_nan, static):
  train = functools.partial(steps.train_chunk, on_nan=on_nan, **static)
  return jax.jit(train)(state, COLUMNS, ROWS[chosen], WEIGHTS[chosen], KEY)


def test_nothing_is_learned_from_a_step_that_is_not_finite_nor_from_those_after_it():
  static, start = small()
  state, terms, finite = chunk(start, slice(None), "stop", static)
  assert np.asarray(finite).tolist() == [True, True, False, True, True]
  assert int(state.step) == 2
  before, _, _ = chunk(start, slice(2), "stop", static)
  jax.tree.map(np.testing.assert_array_equal, state, before)
  assert np.isnan(terms["loss"][2])


def test_without_a_guard_it_is_told_that_something_was_not_finite():
  static, start = small()
  state, _, finite = chunk(start, slice(None), None, static)
  assert np.asarray(finite).tolist() == [True, True, False, False, False]
  assert not np.isfinite(state.params["encoder"]["code"]["kernel"]).any()
  assert np.asarray(chunk(start, slice(2), None, static)[2]).all()


def test_a_step_that_is_skipped_counts_as_a_step_and_changes_nothing_else():
  static, start = small()
  state, _, finite = chunk(start, slice(None), "skip", static)
  assert np.asarray(finite).tolist() == [True, True, False, True, True]
  assert int(state.step) == 5
  before, _, _ = chunk(start, slice(2), "skip", static)
  after = TrainState(before.step + 1, before.params, before.opt_state)
  after, _, _ = chunk(after, slice(3, None), "skip", static)
  jax.tree.map(np.testing.assert_array_equal, state, after)


def bursts(tiny):
  """A config whose loss is soon infinite."""
  tiny.optimizer.name, tiny.optimizer.learning_rate, tiny.optimizer.schedule = "sgd", 1e18, "constant"
  tiny.optimizer.warmup_epochs = 2.0
  tiny.objective.likelihood = "gaussian"
  tiny.data.range = "real"
  return tiny


@pytest.mark.parametrize("augment", [(), ({"name": "brightness", "level": 0.5},)])
def test_a_loss_that_is_not_finite_ends_the_run_and_can_be_looked_at(tiny, tmp_path, augment):
  tiny.data.augment = augment
  with pytest.raises(errors.UserError, match=r"step \d+ \(epoch \d\): the loss is (inf|nan)") as failure:
    train.train_and_evaluate(bursts(tiny), tmp_path)
  assert "\n" not in str(failure.value)
  stored = dict(np.load(tmp_path / "nan.npz"))
  records = logs.read(tmp_path)
  assert all(np.isfinite(record["train/loss"]) for record in records)
  assert f"step {int(stored['step']) + 1} " in str(failure.value)
  assert not np.isfinite(stored["loss"])
  examples = {image.tobytes() for image in ranges.normalise(data.load("digits", "", "real").train, "real")}
  assert all((image.tobytes() in examples) != bool(augment) for image in stored["x"])  # as the step saw them
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


def test_the_gradient_that_is_not_finite_is_named(tmp_path):
  static, state = small()
  batch = steps.read_batch(ROWS[2], WEIGHTS[2], examples=COLUMNS, model=static["model"], value_range="real")
  named = {"model": static["model"], "objective": static["objective"]}
  with pytest.raises(errors.UserError, match=r"here: the loss is nan, the gradient of \w+/\w+/\w+ is not finite"):
    preemption.stop_at(state, batch, KEY, tmp_path / "nan.npz", **named, where="here")
  broken = jax.tree.map(lambda leaf: leaf, state.params)
  broken["decoder"]["logits"]["bias"] = jnp.full(6, jnp.inf)
  broken = TrainState(state.step, broken, state.opt_state)
  with pytest.raises(errors.UserError, match="the parameter decoder/logits/bias is not finite"):
    preemption.stop_at(broken, batch, KEY, tmp_path / "nan.npz", **named, where="here")
  assert sorted(os.listdir(tmp_path)) == ["nan.npz"]

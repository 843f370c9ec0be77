"""The training loop with stubs in place of compiled functions: records, divergence, checkpoints and stops."""

import dataclasses
import gc
import inspect
import itertools
import math
import types
import weakref

import made_contexts
import numpy as np
import pytest
from ml_collections import ConfigDict

from ae_jax import data, models, objectives
from ae_jax.data import batch_schedule
from ae_jax.runs import checkpoints, logs, progress
from ae_jax.training import compiled_stage, loop, optimizers, preemption, setup, stopping
from ae_jax.training.state import TrainState

pytestmark = pytest.mark.quick_compile


class MemoryLog(logs.NullLog):
  """A log that keeps its records and counts its calls of `settle`."""

  def __init__(self):
    self.records, self.settled = [], 0

  def write(self, record):
    self.records.append(record)

  def settle(self):
    self.settled += 1


class Opened(checkpoints.CheckpointFolder):
  """A folder of checkpoints without Orbax."""

  def __init__(self):
    pass


def experiment_of(schedule, until, on_nan):
  """An experiment of which the loop uses the config, the batch schedule and the epochs of its single stage."""
  model = models.build(
    "dense", (2, 2, 1), latent=2, widths=(), decoder_widths=(), activation="relu", bottleneck="identity", tied=False
  )
  optimizer = {
    "learning_rate": 0.1,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
  }
  examples = made_contexts.images(12, shape=(2, 2, 1))
  return setup.Experiment(
    ConfigDict({"on_nan": on_nan, "checkpoint_every_epochs": 1, "eval_every_epochs": 1}),
    data.Dataset("made", "unit", examples, examples, None, None),
    model,
    schedule,
    [
      setup.Stage(
        range(until),
        objectives.build("reconstruction", model, "unit", likelihood="bernoulli"),
        optimizers.optimizer_factory("sgd", **optimizer, epochs=until, steps_per_epoch=schedule.steps),
        microbatches=1,
      )
    ],
    (),
    augment=None,
    early_stopping=stopping.EarlyStopping("", 1, 0.0, "min"),
  )


def state_at(step):
  return TrainState(step=np.int32(step), params=(), opt_state=())


@pytest.fixture
def saved(monkeypatch):
  """The (state, error, notes) of each saved checkpoint, and "waited"; a checkpoint of step 6 already exists."""
  calls = []
  monkeypatch.setattr(checkpoints, "save", lambda checkpoint_folder, *checkpoint: calls.append(checkpoint))
  monkeypatch.setattr(checkpoints, "wait", lambda checkpoint_folder: calls.append("waited"))
  monkeypatch.setattr(checkpoints, "has_step", lambda checkpoint_folder, step: step == 6)
  return calls


@pytest.fixture
def make_training(monkeypatch):
  """A function that makes a `Training` with 6 steps per epoch in chunks of 2, and losses `loss_at(recorder, step)`."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 2)
  monkeypatch.setattr(progress, "_INTERVALS", {True: math.inf})  # however slow the machine is, no line is printed

  def make(loss_at, count=3, filled=4, on_nan="stop", until=2, **options):
    experiment = experiment_of(batch_schedule.BatchSchedule(12, 2, 1, 0), until, on_nan)
    recorders = [
      loop.Recorder(
        MemoryLog(), logs.WindowAverages(3, 6, 0), lambda results, n=n: {"test/squared_error": results["test"][n]}, dict
      )
      for n in range(count)
    ]

    def train_chunk(state, rows, weights):
      loss = np.array([[loss_at(m, int(state.step) + n) for n in (1, 2)] for m in range(filled)], np.float32)
      return state_at(state.step + 2), {"loss": loss}, np.isfinite(loss)

    stage = compiled_stage.CompiledStage(
      restart=lambda state: state,
      train_chunk=train_chunk,
      evaluate=lambda state: {"test": np.arange(filled, dtype=np.float32)},
      compile_seconds=0.5,
      **options,
    )
    return loop.Training(
      experiment,
      recorders,
      build=lambda number, state: stage,
      feed=lambda first, last: ((chunk, chunk) for chunk in range(first, last)),
      checkpoint=lambda state, records: (int(state.step), len(records), [c.windows.pending[:] for c in recorders]),
      checkpoint_folder=Opened(),
      received=lambda: "",
      until=until,
      sparse=True,
    )

  return make


@pytest.mark.parametrize("bad", range(1, 7))
def test_course_diverges_at_its_first_non_finite_step_and_the_others_continue(make_training, saved, bad):
  mine = make_training(lambda recorder, step: np.nan if recorder == 1 and step >= bad else 1.0 + recorder)
  state = loop.train(mine, state_at(0))
  assert int(state.step) == 12
  assert [recorder.diverged for recorder in mine.recorders] == [None, bad, None]
  assert mine.active == [mine.recorders[0], mine.recorders[2]]
  for index in (0, 2):
    records = mine.recorders[index].log.records
    assert [record["step"] for record in records] == [3, 6, 9, 12]
    assert [record["train/loss"] for record in records] == [1.0 + index] * 4
    assert [record["test/squared_error"] for record in records if record["step"] in (6, 12)] == [index] * 2
  lost = mine.recorders[1]
  assert [record["step"] for record in lost.log.records] == ([3] if bad > 4 else [])  # written when a step follows
  assert len(lost.windows.pending) == (bad - 1) - 3 * (bad > 4)


def test_training_ends_when_all_courses_have_diverged(make_training, saved):
  mine = make_training(lambda recorder, step: np.nan if step >= 2 + recorder else 1.0)
  assert int(loop.train(mine, state_at(0)).step) == 6
  assert [recorder.diverged for recorder in mine.recorders] == [2, 3, 4]


def test_non_finite_padding_member_has_no_effect(make_training, saved):
  mine = make_training(lambda recorder, step: np.nan if recorder == 3 else 1.0)
  loop.train(mine, state_at(0))
  assert [recorder.diverged for recorder in mine.recorders] == [None] * 3


def test_fail_is_called_after_the_finite_steps_are_logged(make_training, saved):
  class Failed(Exception):
    pass

  def fail(state, rows, weights):
    raise Failed(int(state.step), rows)

  mine = make_training(lambda recorder, step: np.nan if step == 5 else 1.0, count=1, filled=1, fail=fail)
  with pytest.raises(Failed) as failed:
    loop.train(mine, state_at(0))
  assert failed.value.args == (4, 2)  # the state before the chunk, and its rows
  assert [record["step"] for record in mine.recorders[0].log.records] == [3]
  assert saved == []


def test_skipped_steps_are_counted_and_no_model_diverges(make_training, saved):
  mine = make_training(
    lambda recorder, step: np.nan if recorder == 1 and step in (2, 3) else 1.0, on_nan="skip", until=1
  )
  loop.train(mine, state_at(0))
  assert [recorder.diverged for recorder in mine.recorders] == [None] * 3
  assert [[record["train/skipped"] for record in recorder.log.records] for recorder in mine.recorders] == [
    [0, 0],
    [2, 0],
    [0, 0],
  ]
  assert all(record["train/loss"] == 1.0 for recorder in mine.recorders for record in recorder.log.records)


def test_stop_within_an_epoch_saves_the_pending_steps(make_training, saved, monkeypatch):
  signals = itertools.chain(["", ""], itertools.repeat("SIGTERM"))
  monkeypatch.setattr(preemption, "requested_stop", lambda received: next(signals))
  mine = make_training(lambda recorder, step: np.nan if (recorder, step) == (1, 2) else 1.0)
  with pytest.raises(preemption.Interrupted, match=r"stopped after epoch 0\.667"):
    loop.train(mine, state_at(0))
  assert saved == ["waited", (4, 0, [[{"loss": 1.0}]] * 3), "waited"]
  assert [recorder.log.settled for recorder in mine.recorders] == [1, 1, 1]


@pytest.mark.parametrize(("looks", "epoch"), [(0, "0"), (3, "1")])
def test_stop_saves_neither_the_initial_state_nor_an_existing_checkpoint(
  make_training, saved, monkeypatch, looks, epoch
):
  signals = itertools.chain([""] * looks, itertools.repeat("SIGTERM"))
  monkeypatch.setattr(preemption, "requested_stop", lambda received: next(signals))
  with pytest.raises(preemption.Interrupted, match=f"stopped after epoch {epoch} and saved the state"):
    loop.train(make_training(lambda recorder, step: 1.0), state_at(0))
  assert [checkpoint[0] for checkpoint in saved if checkpoint != "waited"] == ([6] if looks else [])


def test_speed_counts_all_courses_and_includes_the_feed(make_training, saved, monkeypatch):
  clock = itertools.chain.from_iterable((10.0 * chunk, 10.0 * chunk + 1.0, 10.0 * chunk + 4.0) for chunk in range(3))
  monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
  calls = []
  tune = lambda stage, state, batches, seconds: calls.append((int(state.step), batches, seconds)) or stage
  mine = make_training(lambda recorder, step: 1.0, until=1, tune=tune)
  loop.train(mine, state_at(0))
  assert mine.recorders[0].log.records[-1]["images_per_second"] == pytest.approx(3 * 12 / (3 * 4.0))
  assert calls == [(2, (0, 0), 3.0), (4, (1, 1), 3.0), (6, (2, 2), 3.0)]  # without the feed


def test_tuned_stage_trains_the_next_chunk(make_training, saved):
  tuned = []

  def tune(stage, state, batches, seconds):
    tuned.append(stage)
    return compiled_stage.CompiledStage(stage.restart, stage.train_chunk, stage.evaluate, 0.0)

  loop.train(make_training(lambda recorder, step: 1.0, tune=tune), state_at(0))
  assert len(tuned) == 1  # the new stage has no `tune` of its own


def test_training_resumes_within_an_epoch(make_training, saved):
  seen = []
  mine = make_training(lambda recorder, step: seen.append(step) or 1.0, count=1, filled=1)
  mine.recorders[0].windows = logs.WindowAverages(3, 6, 4, [{"loss": 1.0}])
  loop.train(mine, state_at(4))
  assert seen == list(range(5, 13))
  assert [record["step"] for record in mine.recorders[0].log.records] == [6, 9, 12]


def test_only_the_states_of_the_last_chunk_and_the_last_epoch_stay_in_memory(make_training, saved, monkeypatch):
  """A run that may repeat a chunk does not donate its state, so that each state in memory is device memory.

  The type checks of the tests keep the arguments of a function in memory; the functions here run without them.
  """
  monkeypatch.setattr(loop, "_train_epoch", inspect.unwrap(loop._train_epoch))
  seen, alive = [], []
  mine = make_training(lambda recorder, step: 1.0, count=1, filled=1, until=3)
  stage = mine.build(0, state_at(0))

  def train_chunk(state, *batches):
    seen.append(weakref.ref(state))
    gc.collect()
    alive.append(sum(ref() is not None for ref in seen))
    return stage.train_chunk(state, *batches)

  observed = dataclasses.replace(mine, build=lambda *_: dataclasses.replace(stage, train_chunk=train_chunk))
  inspect.unwrap(loop.train)(observed, state_at(0))
  assert len(alive) == 9
  assert max(alive) == 2


def test_training_ends_after_the_epoch_in_which_limit_or_progress_gives_a_reason(make_training, saved):
  lines, reasons = [], iter(["", "no time"])
  mine = make_training(lambda m, step: 1.0, until=4)
  ended = loop.train(dataclasses.replace(mine, limit=lambda: next(reasons), report=lines.append), state_at(0))
  assert int(ended.step) == 12
  assert lines == ["stopped after epoch 2: no time"]
  assert [checkpoint[0] for checkpoint in saved if checkpoint != "waited"] == [6, 12]
  watched = []
  mine = make_training(lambda m, step: 1.0, until=4)
  progress = lambda records: watched.append(len(records)) or ("enough" if watched.count(3) == 3 else "")
  ended = loop.train(dataclasses.replace(mine, progress=progress, report=lines.append), state_at(0))
  assert int(ended.step) == 18
  assert lines[1:] == ["stopped after epoch 3: enough"]
  assert watched == [0, 3, 3, 3]  # first before the training, for a run that was already stopped

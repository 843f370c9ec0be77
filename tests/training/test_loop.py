"""The training loop with stubs in place of compiled programs: records, divergence, saves and stops of its courses."""

import dataclasses
import gc
import itertools
import types
import weakref

import numpy as np
import pytest

from ae_jax.data import batch_schedule
from ae_jax.runs import checkpoints, logs
from ae_jax.training import compiled_stage, loop, preemption, setup
from ae_jax.training.state import TrainState


class Written(list):
  """A log that keeps its records."""

  settled = 0
  write = list.append

  def settle(self):
    """Counts how often it was asked to."""
    self.settled += 1


def at(step):
  return TrainState(step=np.int32(step), params=(), opt_state=())


@pytest.fixture
def saved(monkeypatch):
  """What the loop saves: (state, error, notes) of each checkpoint, and "waited"; those of step 4 and 6 are kept."""
  found = []
  monkeypatch.setattr(checkpoints, "save", lambda opened, *what: found.append(what))
  monkeypatch.setattr(checkpoints, "wait", lambda opened: found.append("waited"))
  monkeypatch.setattr(checkpoints, "holds", lambda opened, step: step == 6)
  return found


@pytest.fixture
def training(monkeypatch):
  """A function: some courses, 6 steps an epoch in chunks of 2; the loss of a step is `found(course, step)`."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 2)

  def make(found, count=3, filled=4, on_nan="stop", until=2, **options):
    schedule = batch_schedule.BatchSchedule(12, 2, 1, 0)
    config = types.SimpleNamespace(on_nan=on_nan, checkpoint_every_epochs=1, eval_every_epochs=1)
    stage = setup.Stage(range(until), None, None, 1)
    experiment = setup.Experiment(config, None, None, schedule, [stage], (), augment=None, early_stopping=None)
    courses = [
      loop.Course(Written(), logs.Windows(3, 6, 0), lambda losses, _, n=n: {"test/squared_error": losses[n]}, dict)
      for n in range(count)
    ]

    def train_chunk(state, rows, weights):
      loss = np.array([[found(m, int(state.step) + n) for n in (1, 2)] for m in range(filled)], np.float32)
      return at(state.step + 2), {"loss": loss}, np.isfinite(loss)

    built = compiled_stage.CompiledStage(
      restart=lambda state: state,
      train_chunk=train_chunk,
      evaluate=lambda state: (np.arange(filled, dtype=np.float32), {}),
      compile_seconds=0.5,
      **options,
    )
    return loop.Training(
      experiment,
      courses,
      build=lambda number, state: built,
      feed=lambda first, last: ((chunk, chunk) for chunk in range(first, last)),
      checkpoint=lambda state, records: (int(state.step), len(records), [c.windows.pending[:] for c in courses]),
      opened=None,
      received=lambda: "",
      until=until,
      sparse=True,
    )

  return make


@pytest.mark.parametrize("bad", range(1, 7))
def test_a_course_has_diverged_at_the_first_step_that_is_not_finite_and_the_others_go_on(training, saved, bad):
  mine = training(lambda course, step: np.nan if course == 1 and step >= bad else 1.0 + course)
  state = loop.train(mine, at(0))
  assert int(state.step) == 12
  assert [course.diverged for course in mine.courses] == [None, bad, None]
  assert mine.going == [mine.courses[0], mine.courses[2]]
  for index in (0, 2):
    records = mine.courses[index].log
    assert [record["step"] for record in records] == [3, 6, 9, 12]
    assert [record["train/loss"] for record in records] == [1.0 + index] * 4
    assert [record["test/squared_error"] for record in records if record["step"] in (6, 12)] == [index] * 2
  lost = mine.courses[1]
  assert [record["step"] for record in lost.log] == ([3] if bad > 4 else [])  # written when a step follows
  assert len(lost.windows.pending) == (bad - 1) - 3 * (bad > 4)


def test_training_ends_when_all_courses_have_diverged(training, saved):
  mine = training(lambda course, step: np.nan if step >= 2 + course else 1.0)
  assert int(loop.train(mine, at(0)).step) == 6
  assert [course.diverged for course in mine.courses] == [2, 3, 4]


def test_a_padding_member_that_is_not_finite_changes_nothing(training, saved):
  mine = training(lambda course, step: np.nan if course == 3 else 1.0)
  loop.train(mine, at(0))
  assert [course.diverged for course in mine.courses] == [None] * 3


def test_a_chunk_that_is_not_finite_fails_after_the_steps_before_it_are_logged(training, saved):
  class Failed(Exception):
    pass

  def fail(state, rows, weights):
    raise Failed(int(state.step), rows)

  mine = training(lambda course, step: np.nan if step == 5 else 1.0, count=1, filled=1, fail=fail)
  with pytest.raises(Failed) as failed:
    loop.train(mine, at(0))
  assert failed.value.args == (4, 2)  # the state before the chunk, and its rows
  assert [record["step"] for record in mine.courses[0].log] == [3]
  assert saved == []


def test_steps_that_are_skipped_are_counted_and_nobody_diverges(training, saved):
  mine = training(lambda course, step: np.nan if course == 1 and step in (2, 3) else 1.0, on_nan="skip", until=1)
  loop.train(mine, at(0))
  assert [course.diverged for course in mine.courses] == [None] * 3
  assert [[record["train/skipped"] for record in course.log] for course in mine.courses] == [[0, 0], [2, 0], [0, 0]]
  assert all(record["train/loss"] == 1.0 for course in mine.courses for record in course.log)


def test_a_stop_in_the_middle_of_an_epoch_saves_the_steps_that_are_in_no_record(training, saved, monkeypatch):
  signals = itertools.chain(["", ""], itertools.repeat("SIGTERM"))
  monkeypatch.setattr(preemption, "asked", lambda received: next(signals))
  mine = training(lambda course, step: np.nan if (course, step) == (1, 2) else 1.0)
  with pytest.raises(preemption.Interrupted, match=r"stopped after epoch 0\.667"):
    loop.train(mine, at(0))
  assert saved == ["waited", (4, 0, [[{"loss": 1.0}]] * 3), "waited"]
  assert [course.log.settled for course in mine.courses] == [1, 1, 1]


@pytest.mark.parametrize(("looks", "epoch"), [(0, "0"), (3, "1")])
def test_a_stop_saves_neither_the_beginning_nor_what_is_saved_already(training, saved, monkeypatch, looks, epoch):
  signals = itertools.chain([""] * looks, itertools.repeat("SIGTERM"))
  monkeypatch.setattr(preemption, "asked", lambda received: next(signals))
  with pytest.raises(preemption.Interrupted, match=f"stopped after epoch {epoch}, saved"):
    loop.train(training(lambda course, step: 1.0), at(0))
  assert [what[0] for what in saved if what != "waited"] == ([6] if looks else [])


def test_the_speed_counts_all_courses_and_the_time_that_their_data_take(training, saved, monkeypatch):
  clock = itertools.chain.from_iterable((10.0 * chunk, 10.0 * chunk + 1.0, 10.0 * chunk + 4.0) for chunk in range(3))
  monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
  asked = []
  tune = lambda built, state, batches, seconds: asked.append((int(state.step), batches, seconds)) or built
  mine = training(lambda course, step: 1.0, until=1, tune=tune)
  loop.train(mine, at(0))
  assert mine.courses[0].log[-1]["images_per_second"] == pytest.approx(3 * 12 / (3 * 4.0))
  assert asked == [(2, (0, 0), 3.0), (4, (1, 1), 3.0), (6, (2, 2), 3.0)]  # without the time of the feed


def test_the_programs_that_are_tuned_train_the_next_chunk(training, saved):
  used = []

  def tune(built, state, batches, seconds):
    used.append(built)
    return compiled_stage.CompiledStage(built.restart, built.train_chunk, built.evaluate, 0.0)

  loop.train(training(lambda course, step: 1.0, tune=tune), at(0))
  assert len(used) == 1  # the other programs tune nothing


def test_training_goes_on_in_the_middle_of_an_epoch(training, saved):
  seen = []
  mine = training(lambda course, step: seen.append(step) or 1.0, count=1, filled=1)
  mine.courses[0].windows = logs.Windows(3, 6, 4, [{"loss": 1.0}])
  loop.train(mine, at(4))
  assert seen == list(range(5, 13))
  assert [record["step"] for record in mine.courses[0].log] == [6, 9, 12]


def test_no_states_are_kept_but_that_of_the_last_chunk_and_that_of_the_last_epoch(training, saved):
  """A run that may repeat a chunk does not donate its state, so that each of them takes memory of the device."""
  seen, alive = [], []
  mine = training(lambda course, step: 1.0, count=1, filled=1, until=3)
  built = mine.build(0, None)

  def train_chunk(state, *batches):
    seen.append(weakref.ref(state))
    gc.collect()
    alive.append(sum(ref() is not None for ref in seen))
    return built.train_chunk(state, *batches)

  loop.train(dataclasses.replace(mine, build=lambda *_: dataclasses.replace(built, train_chunk=train_chunk)), at(0))
  assert len(alive) == 9
  assert max(alive) == 2


def test_the_training_ends_after_the_epoch_in_which_its_limit_is_reached_or_its_progress_ends(training, saved):
  said, reasons = [], iter(["", "no time"])
  made = training(lambda m, step: 1.0, until=4)
  ended = loop.train(dataclasses.replace(made, limit=lambda: next(reasons), report=said.append), at(0))
  assert int(ended.step) == 12
  assert said == ["stopped after epoch 2: no time"]
  assert [what[0] for what in saved if what != "waited"] == [6, 12]
  watched = []
  made = training(lambda m, step: 1.0, until=4)
  progress = lambda records: watched.append(len(records)) or ("enough" if watched.count(3) == 3 else "")
  ended = loop.train(dataclasses.replace(made, progress=progress, report=said.append), at(0))
  assert int(ended.step) == 18
  assert said[1:] == ["stopped after epoch 3: enough"]
  assert watched == [0, 3, 3, 3]  # once before the training, for a run that was stopped already

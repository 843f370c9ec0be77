"""The training loop, the same for a single run and for a pack of sweep members: stages, epochs, chunks of steps."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ae_jax.runs import checkpoints, logs
from ae_jax.training import compiled_stage, preemption, setup, steps
from ae_jax.training.state import TrainState


@dataclasses.dataclass
class Course:
  """Training of one model: its log, and the step at which it diverged."""

  log: logs.Log | logs.Silence
  windows: logs.Windows
  metrics: Callable[
    ..., dict
  ]  # (losses, values), what `CompiledStage.evaluate` returns, as NumPy arrays -> test metrics
  baselines: Callable[[], dict]  # reference values that join each evaluation's record
  diverged: int | None = None  # the first step with a non-finite loss or gradient


@dataclasses.dataclass(frozen=True)
class Training:
  """Models that are trained together by the same compiled functions: one in a single run, several in a pack.

  `experiment` is the experiment whose epochs, stages and logging intervals all of them share.
  """

  experiment: setup.Experiment
  courses: list[Course]
  build: Callable[[int, TrainState], compiled_stage.CompiledStage]  # (number of a stage, state like all others)
  feed: Callable[[int, int], Iterator]  # (first chunk, last + 1) -> generator of (rows, weights)
  checkpoint: Callable  # (state, records of the evaluation or ()) -> (state to save, squared error, notes)
  opened: checkpoints.Opened
  received: Callable[[], str]  # see `preemption.caught`
  until: int  # epochs
  refresh: Callable[[], None] = lambda: None  # called after each evaluation
  limit: Callable[[], str] = lambda: ""  # called after each epoch: why to end the training now, "" to go on
  progress: Callable[[list], str] = lambda records: ""  # the same, with the records of each evaluation, [] for none
  report: Callable[[str], None] = lambda line: None  # is told why the training ends before its last epoch
  sparse: bool = False  # print few lines; see `logs.Display`

  @property
  def going(self) -> list[Course]:
    """The courses that have not diverged."""
    return [course for course in self.courses if course.diverged is None]


def train(training: Training, state: TrainState) -> TrainState:
  """Trains from `state` up to the epoch `training.until`, or until all courses have diverged; returns the last state.

  Raises Interrupted when a signal has stopped the training, which is saved, and UserError where a file cannot be
  written, or where a step is not finite and `CompiledStage.fail` raises.
  """
  schedule, stages, compile_seconds = training.experiment.batch_schedule, training.experiment.stages, 0.0
  images, done, shown = (
    len(training.courses) * schedule.examples,
    int(state.step) / schedule.steps,
    jax.process_index() == 0,
  )
  with logs.Display(images, training.until, done, shown, training.sparse) as display:
    for number, stage in enumerate(stages):
      step = int(state.step)
      to_do = range(max(step // schedule.steps, stage.epochs.start), min(stage.epochs.stop, training.until))
      if not (to_do and training.going) or training.progress([]):
        continue
      built = training.build(number, state)
      compile_seconds += built.compile_seconds
      constants = {"compile_seconds": compile_seconds} | ({"stage": number} if len(stages) > 1 else {})
      ended = ""
      if step == stage.epochs.start * schedule.steps:
        state = built.restart(state)
      with contextlib.closing(training.feed(step // schedule.chunk, to_do.stop * schedule.chunks_per_epoch)) as feed:
        for epoch in to_do:
          if not training.going:
            break
          compilations = steps.compilations()
          state, built, speed = _train_epoch(training, state, epoch, built, feed, display)
          if epoch > to_do.start and steps.compilations() > compilations:
            raise RuntimeError(f"epoch {epoch + 1} compiled again what epoch {epoch} had compiled: a bug of ae_jax")
          ended = _end_epoch(training, state, epoch + 1, built, speed, constants=constants, display=display)
          if ended:
            break
      if ended:
        training.report(f"stopped after epoch {int(state.step) // schedule.steps}: {ended}")
        break
  checkpoints.wait(training.opened)
  return state


def _train_epoch(training, state, epoch, built, feed, display):
  """Trains the rest of an epoch, chunk by chunk; returns the state, the programs from now on, and the speed."""
  config, schedule = training.experiment.config, training.experiment.batch_schedule
  images, seconds = len(training.courses) * schedule.examples / schedule.chunks_per_epoch, []
  for number in range(int(state.step) // schedule.chunk, (epoch + 1) * schedule.chunks_per_epoch):
    if preemption.asked(training.received):
      _stop(training, state)
    begun = time.perf_counter()
    before, batches = state, next(feed)
    fed = time.perf_counter()
    state, terms, finite = built.train_chunk(before, *batches)
    # [courses, steps of the chunk], and in a pack the members that fill up the devices
    terms, finite = jax.tree.map(lambda values: np.asarray(values).reshape(-1, schedule.chunk), (terms, finite))
    ended = time.perf_counter()
    seconds.append(ended - begun)
    if config.on_nan == "skip":
      terms["skipped"], finite = ~finite, np.ones_like(finite)
    display.advance(images, seconds[-1], terms["loss"][0, -1])
    for index, course in enumerate(training.courses):
      if course.diverged is None:
        _note(course, {name: values[index] for name, values in terms.items()}, finite[index], number * schedule.chunk)
    if not finite.all():
      built.fail(before, *batches)
    built = built.tune(built, state, batches, ended - fed)
  return state, built, {"images_per_second": images * len(seconds) / sum(seconds)}


def _end_epoch(training, state, done, built, speed, *, constants, display):
  """Logs the end of an epoch, after which `done` are done; evaluates and saves where due.

  Returns why the training ends here, "" to go on.
  """
  experiment, config, courses = training.experiment, training.experiment.config, training.going
  records = [course.windows.rest() | speed for course in courses]
  ended = training.limit()
  save_due = ended or done == training.until or experiment.due(done, config.checkpoint_every_epochs)
  eval_due = courses and (save_due or experiment.due(done, config.eval_every_epochs))
  if eval_due:
    losses, values = jax.tree.map(np.asarray, built.evaluate(state))
    for course, record in zip(courses, records, strict=True):
      record |= course.metrics(losses, values) | constants | course.baselines()
  for course, record in zip(courses, records, strict=True):
    course.log.write(record)
  if eval_due:
    display.evaluated(*records)
    training.refresh()
    ended = ended or training.progress(records)
  if save_due or ended:
    _save(training, state, records)
  return ended


def _note(course, terms, finite, step):
  """Logs the steps of a chunk, which begins after `step`, up to the first that is not finite: there it diverged."""
  good = len(finite) if finite.all() else int(np.argmin(finite))
  for record in course.windows.add(terms, good):
    course.log.write(record)
  if good < len(finite):
    course.diverged = step + good + 1


def _save(training, state, records=()):
  """Starts saving a checkpoint, after the records that precede it are on the disk."""
  for course in training.courses:
    course.log.settle()
  checkpoints.save(training.opened, *training.checkpoint(state, records))


def _stop(training, state):
  """Saves the state unless it is saved already, and raises Interrupted."""
  checkpoints.wait(training.opened)
  step = int(state.step)
  if step and not checkpoints.holds(training.opened, step):
    _save(training, state)
    checkpoints.wait(training.opened)
  preemption.stop(training.received, step / training.experiment.batch_schedule.steps)

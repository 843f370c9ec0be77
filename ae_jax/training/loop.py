"""The training loop over stages, epochs and chunks of steps, for a single run or for several sweep members.

A chunk consists of the steps that one compiled call runs. Sweep members in the same loop train in one compiled program.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ae_jax.runs import checkpoints, logs, progress
from ae_jax.training import compiled_stage, preemption, programs, setup
from ae_jax.training.state import TrainState

Record = dict[str, Any]  # a line of metrics.jsonl


@dataclasses.dataclass
class Recorder:
  """The log of one model in training, and the step at which the model diverged."""

  log: logs.Log | logs.NullLog
  windows: logs.WindowAverages  # averages of the training metrics between two records
  metrics: Callable[[Record], Record]  # NumPy results of `CompiledStage.evaluate` -> metrics of each split
  baselines: Callable[[], Record]  # baselines, added to the record of each evaluation
  diverged: int | None = None  # first step with a non-finite loss or gradient; None if there is none


@dataclasses.dataclass(frozen=True)
class Training:
  """Arguments of the training loop.

  The loop trains one model for a single run, and several models at once for a sweep. All models share the epochs,
  stages and logging intervals of `experiment`.
  """

  experiment: setup.Experiment
  recorders: list[Recorder]  # one per model
  build: Callable[[int, TrainState], compiled_stage.CompiledStage]  # (stage index, state for its shapes)
  feed: Callable[[int, int], Generator]  # (first chunk, last chunk + 1) -> generator of (rows, weights)
  checkpoint: Callable  # (state, records of the evaluation or ()) -> (state to save, error, notes to save)
  checkpoint_folder: checkpoints.CheckpointFolder | None  # None: the state is not saved
  received: Callable[[], str]  # see `preemption.catch_signals`
  until: int  # number of completed epochs at which the training ends
  refresh: Callable[[], None] = lambda: None  # called after each evaluation
  # called after each epoch; returns the reason to end the training, or "" to continue
  limit: Callable[[], str] = lambda: ""
  # called with the records of each evaluation, and with [] before each stage; returns the reason to end the training,
  # or "" to continue
  progress: Callable[[list], str] = lambda records: ""
  report: Callable[[str], None] = lambda line: None  # called with the reason if the training ends early
  sparse: bool = False  # print fewer lines; see `progress.Display`

  @property
  def active(self) -> list[Recorder]:
    """Recorders of the models that have not diverged."""
    return [recorder for recorder in self.recorders if recorder.diverged is None]


def train(training: Training, state: TrainState) -> TrainState:
  """Trains the models and returns the last state.

  Training ends at epoch `training.until`, when `limit` or `progress` returns a reason to stop, or when all models have
  diverged.

  Raises:
    Interrupted: If a signal stops the training; the state is saved.
    UserError: If a file cannot be written, or if the loss or gradient of a step is not finite and
      `CompiledStage.fail` raises.
  """
  experiment, compile_seconds, reason = training.experiment, 0.0, ""
  with _display(training, state) as display:
    for number, stage in enumerate(experiment.stages):
      epochs = _epochs_left(training, stage, state)
      if not (epochs and training.active) or training.progress([]):
        continue
      compiled = training.build(number, state)
      compile_seconds += compiled.compile_seconds
      constants = {"compile_seconds": compile_seconds} | ({"stage": number} if len(experiment.stages) > 1 else {})
      if int(state.step) == stage.epochs.start * experiment.batch_schedule.steps:
        state = compiled.restart(state)
      with contextlib.closing(_feed(training, state, epochs)) as feed:
        for epoch in epochs:
          if reason or not training.active:
            break
          compilations = programs.compilations()
          state, compiled, speed = _train_epoch(training, state, epoch, compiled, feed, display)
          if epoch > epochs.start and programs.compilations() > compilations:
            raise RuntimeError(
              f"epoch {epoch + 1} compiled again instead of reusing the programs of earlier epochs; please report "
              "this bug of ae_jax"
            )
          reason = _end_epoch(training, state, epoch + 1, compiled, speed, constants=constants, display=display)
      if reason:
        training.report(f"stopped after epoch {int(state.step) // experiment.batch_schedule.steps}: {reason}")
        break
  if training.checkpoint_folder is not None:
    checkpoints.wait(training.checkpoint_folder)
  return state


def _display(training: Training, state: TrainState) -> progress.Display:
  """Returns the progress display; only the first process shows it."""
  batch_schedule = training.experiment.batch_schedule
  images_per_epoch = len(training.recorders) * batch_schedule.examples
  epochs_done = int(state.step) / batch_schedule.steps
  return progress.Display(images_per_epoch, training.until, epochs_done, jax.process_index() == 0, training.sparse)


def _epochs_left(training: Training, stage: setup.Stage, state: TrainState) -> range:
  """Returns the range of the epochs that remain in a training stage, before epoch `training.until`."""
  epoch = int(state.step) // training.experiment.batch_schedule.steps
  return range(max(epoch, stage.epochs.start), min(stage.epochs.stop, training.until))


def _feed(training: Training, state: TrainState, epochs: range) -> Generator:
  """Returns a generator of the chunks from the step of `state` to the end of `epochs`."""
  batch_schedule = training.experiment.batch_schedule
  return training.feed(int(state.step) // batch_schedule.chunk, epochs.stop * batch_schedule.chunks_per_epoch)


def _train_epoch(
  training: Training,
  state: TrainState,
  epoch: int,
  compiled: compiled_stage.CompiledStage,
  feed: Generator,
  display: progress.Display,
) -> tuple[TrainState, compiled_stage.CompiledStage, Record]:
  """Trains the rest of an epoch; returns the state, the compiled stage to continue with, and the training speed."""
  config, batch_schedule = training.experiment.config, training.experiment.batch_schedule
  images, seconds = len(training.recorders) * batch_schedule.examples / batch_schedule.chunks_per_epoch, []
  for chunk in range(int(state.step) // batch_schedule.chunk, (epoch + 1) * batch_schedule.chunks_per_epoch):
    if preemption.requested_stop(training.received):
      _stop(training, state)
    start_time = time.perf_counter()
    before, batches = state, next(feed)
    feed_end_time = time.perf_counter()
    state, terms, finite = compiled.train_chunk(before, *batches)
    # [models, steps]; a sweep has extra rows for the members repeated by `compiled_pack.pad_to_devices`
    terms, finite = jax.tree.map(lambda values: np.asarray(values).reshape(-1, batch_schedule.chunk), (terms, finite))
    end_time = time.perf_counter()
    seconds.append(end_time - start_time)
    if config.on_nan == "skip":
      terms["skipped"], finite = ~finite, np.ones_like(finite)
    display.advance(images, seconds[-1], terms["loss"][0, -1])
    for index, recorder in enumerate(training.recorders):
      if recorder.diverged is None:
        model_terms = {name: values[index] for name, values in terms.items()}
        _log_chunk(recorder, model_terms, finite[index], chunk * batch_schedule.chunk)
    if not finite.all():
      compiled.fail(before, *batches)
    compiled = compiled.tune(compiled, state, batches, end_time - feed_end_time)
  return state, compiled, {"images_per_second": images * len(seconds) / sum(seconds)}


def _end_epoch(
  training: Training,
  state: TrainState,
  epochs_done: int,
  compiled: compiled_stage.CompiledStage,
  speed: Record,
  *,
  constants: Record,
  display: progress.Display,
) -> str:
  """Logs an epoch, and evaluates and saves the models if due.

  Returns the reason to end the training, or "" to continue.
  """
  experiment, config, recorders = training.experiment, training.experiment.config, training.active
  records = [recorder.windows.rest() | speed for recorder in recorders]
  reason = training.limit()
  save_due = reason or epochs_done == training.until or experiment.due(epochs_done, config.checkpoint_every_epochs)
  eval_due = recorders and (save_due or experiment.due(epochs_done, config.eval_every_epochs))
  if eval_due:
    results = jax.tree.map(np.asarray, compiled.evaluate(state))
    for recorder, record in zip(recorders, records, strict=True):
      record |= recorder.metrics(results) | constants | recorder.baselines()
  for recorder, record in zip(recorders, records, strict=True):
    recorder.log.write(record)
  if eval_due:
    display.evaluated(*records)
    training.refresh()
    reason = reason or training.progress(records)
  if save_due or reason:
    _save(training, state, records)
  return reason


def _log_chunk(recorder: Recorder, terms: Mapping[str, np.ndarray], finite: np.ndarray, step: int) -> None:
  """Logs the finite steps of the chunk that starts after `step`.

  If the loss or gradient of a step is not finite, this step is stored in `recorder.diverged`, and the rest of the chunk
  is not logged.
  """
  count = len(finite) if finite.all() else int(np.argmin(finite))
  for record in recorder.windows.add(terms, count):
    recorder.log.write(record)
  if count < len(finite):
    recorder.diverged = step + count + 1


def _save(training: Training, state: TrainState, records: Sequence[Record] = ()) -> None:
  """Waits until all earlier records are on the disk, then starts to save a checkpoint, if there is a folder."""
  if training.checkpoint_folder is None:
    return
  for recorder in training.recorders:
    recorder.log.settle()
  checkpoints.save(training.checkpoint_folder, *training.checkpoint(state, records))


def _stop(training: Training, state: TrainState) -> None:
  """Saves the state unless a checkpoint of its step exists, and raises Interrupted."""
  checkpoints.wait(training.checkpoint_folder)
  step = int(state.step)
  if step and not checkpoints.has_step(training.checkpoint_folder, step):
    _save(training, state)
    checkpoints.wait(training.checkpoint_folder)
  preemption.stop(training.received, step / training.experiment.batch_schedule.steps)

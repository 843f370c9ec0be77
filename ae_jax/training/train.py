"""Trains and analyzes a single run: builds it from a config, restores its checkpoint and calls `loop.train`."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ae_jax import api, data, evaluators
from ae_jax.models import memory
from ae_jax.report import evaluation, messages
from ae_jax.runs import checkpoints, logs, metric_names, outages, progress, run_folder
from ae_jax.system import cache, distributed, paths, signals
from ae_jax.training import choices, compiled_stage, device_arrays, loop, preemption, setup, stopping, warm_start
from ae_jax.training.state import TrainState


def train_and_evaluate(
  config: ConfigDict, workdir: str | os.PathLike[str], profile: bool = False, *, defaults: Collection[str] = ()
) -> dict[str, Any]:
  """Trains the model of a config, or resumes the run in `workdir`; returns the last value of each metric.

  See `train_run` for the arguments.
  """
  return train_run(config, workdir, profile=profile, defaults=defaults).metrics


@memory.explain_out_of_memory()  # a GPU that other processes have filled is noticed by the first use of JAX
def train_run(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  dataset: data.Dataset | None = None,
  *,
  profile: bool = False,
  defaults: Collection[str] = (),
) -> api.Run:
  """Trains the model of a config, or resumes the run in `workdir`; returns the trained model.

  Args:
    config: A complete config.
    workdir: The run folder.
    dataset: The data set of the config; None to load it.
    profile: Whether to save a profiler trace of some steps of each training stage in the subfolder profile.
    defaults: Config keys that the user has not set, and whose values may be changed to suit the data (see `choices`).

  Raises:
    UserError: If the config, the data or the run folder is invalid. The config is checked before anything is compiled
      or written.
    Interrupted: If a signal stops the run; its state is saved.
  """
  workdir = paths.local_path("workdir", workdir)
  start = functools.partial(_train_run, config, workdir, dataset, profile=profile, defaults=defaults)
  return outages.resume(start, workdir, _print_line)


def _train_run(
  config: ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset | None,
  *,
  profile: bool,
  defaults: Collection[str],
) -> api.Run:
  """Does the work of `train_run`; raises WriteError if a file of the run folder cannot be written."""
  mesh = distributed.mesh()
  cache.keep_compiled_programs()
  experiment, chosen, lines = choices.build(config, workdir, mesh, dataset, defaults)
  config, dataset = experiment.config, experiment.dataset
  description = run_folder.describe(config, dataset, experiment.model, mesh.devices.flat)
  description |= {"chosen": chosen} if chosen else {}
  starts_anew = checkpoints.newest_step(workdir / "checkpoints") is None
  taken = warm_start.check(experiment) if starts_anew else []
  with contextlib.ExitStack() as stack:
    received = stack.enter_context(preemption.catch_signals())
    distributed.on_first_process(lambda: stack.enter_context(run_folder.locked(workdir)))
    extended = []
    distributed.on_first_process(lambda: extended.extend(run_folder.begin(workdir, description)))
    lines = [*lines, *_on_batch(experiment), *experiment.remarks, *taken, *extended]
    for line in (messages.opening(description, dataset.placement, workdir), *lines):
      _print_line(line)
    training, state = _training(experiment, description, workdir, mesh, profile=profile, received=received, stack=stack)
    state = loop.train(training, state)
    variables = distributed.fetch(state.evaluated, mesh)
    run = api.make_run(
      variables, config, experiment.model, workdir, int(state.step), data_description=description["data"]
    )
    if jax.process_index() == 0:
      _analyze(run, experiment, description, workdir, training.recorders[0], received)
  return run


def _on_batch(experiment: setup.Experiment) -> list[str]:
  """Returns a message if the batch size of the config is larger than the number of training examples."""
  size, examples = experiment.config.batch_size, len(experiment.dataset.train)
  return [f"config.batch_size={size}: a batch contains all {examples} training examples"] if size > examples else []


def _training(
  experiment: setup.Experiment,
  description: dict[str, Any],
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
  *,
  profile: bool,
  received: Callable[[], str],
  stack: contextlib.ExitStack,
) -> tuple[loop.Training, TrainState]:
  """Returns the `loop.Training` of a run and the state to start from.

  The run starts from the newest checkpoint, or from the initial state if there is no checkpoint.
  """
  config, batch_schedule, last_epoch = experiment.config, experiment.batch_schedule, experiment.stages[-1].epochs.stop
  is_first = jax.process_index() == 0
  device_data, start = device_arrays.place_and_init(experiment, mesh)
  checkpoint_folder = stack.enter_context(checkpoints.open_folder(workdir / "checkpoints", True, _print_line))
  restored = checkpoints.restore(checkpoint_folder, start, _print_line)
  state, notes = restored or (device_arrays.fit_to_data(start, experiment), {})
  if step := int(state.step):
    _print_line(f"resuming after epoch {step / batch_schedule.steps:.3g} of {last_epoch}")
  log = stack.enter_context(logs.Log(workdir, step, description, config.trackers) if is_first else logs.NullLog())
  windows = logs.WindowAverages(config.log_every_steps, batch_schedule.steps, step, notes.get("pending", ()))
  history = (record for record in logs.stream(workdir) if record["step"] <= step)
  columns = distributed.local_rows(device_data.batch_sharding, batch_schedule.padded_batch_size)
  training = loop.Training(
    experiment,
    [_recorder(experiment, device_data, log, windows)],
    build=functools.partial(compiled_stage.build, experiment, device_data, workdir, profile),
    feed=functools.partial(device_arrays.feed, experiment, columns),
    checkpoint=functools.partial(_checkpoint, windows),
    checkpoint_folder=checkpoint_folder,
    received=received,
    until=last_epoch,
    refresh=evaluation.refresher(workdir) if is_first else lambda: None,
    limit=stopping.time_limit(config.max_minutes),
    progress=stopping.progress(experiment.early_stopping, history),
    report=_print_line,
  )
  return training, state


def _recorder(
  experiment: setup.Experiment,
  device_data: device_arrays.DeviceData,
  log: logs.Log | logs.NullLog,
  windows: logs.WindowAverages,
) -> loop.Recorder:
  """Returns the recorder of the model; its baselines are computed at the first evaluation."""

  @functools.cache
  def baselines():
    return dict(evaluators.baselines(experiment.evaluators, experiment.dataset, experiment.model.code))

  def metrics(results):
    weights = {split: evaluated.weights for split, evaluated in device_data.evaluated.items()}
    return evaluators.metrics_of_splits(experiment.evaluators, experiment.model, results, weights, experiment.dataset)

  return loop.Recorder(log, windows, metrics, baselines)


def _checkpoint(
  windows: logs.WindowAverages, state: TrainState, records: Sequence[loop.Record]
) -> tuple[TrainState, float, dict]:
  """Returns the state, the error used for model selection, and the notes to save; see `loop.Training`.

  Without an evaluation, the error is infinite, so the checkpoint is never the best one.
  """
  error = records[0][metric_names.selection_key(records[0])] if records else np.inf
  return state, error, {} if records else {"pending": windows.pending}


def _analyze(
  run: api.Run,
  experiment: setup.Experiment,
  description: dict[str, Any],
  workdir: pathlib.Path,
  recorder: loop.Recorder,
  received: Callable[[], str],
) -> None:
  """Runs the evaluators on the trained run, logs the results, and prints a summary."""
  signals.promise(preemption.ANALYZING)
  check = functools.partial(preemption.stop_analyses, received, workdir)
  results = evaluation.analyze(run, experiment.dataset, experiment.evaluators, workdir, recorder.baselines(), check)
  recorder.log.finish(results.values, evaluation.pictures(workdir))
  curves = logs.curves(run.records)
  progress.print_line(messages.closing(run.metrics | results.values, description, workdir, curves))


def _print_line(line: str) -> None:
  if jax.process_index() == 0:
    progress.print_line(line)

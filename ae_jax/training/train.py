"""A single run from its config: set up, restore, train (`loop`), analyze. No mathematics here."""

import contextlib
import functools

import jax
import numpy as np

from ae_jax import api, evaluators
from ae_jax.models import memory
from ae_jax.report import evaluation, messages, verdict
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.system import cache, distributed, paths, signals
from ae_jax.training import compiled_stage, loop, preemption, setup, stopping


def train_and_evaluate(config, workdir, profile=False):
  """Trains what the config describes, or continues the run in `workdir`; returns its last metrics by name.

  With `profile` a chunk of steps of each stage is traced into `workdir`/profile.

  Raises:
    UserError: the user can mend what is wrong; a faulty config is told before anything is compiled or written.
    Interrupted: a signal has stopped the run, which is saved.
  """
  workdir = paths.local_path("workdir", workdir)
  mesh = distributed.mesh()
  experiment = setup.of(config, mesh.size)
  setup.check_memory(experiment, mesh.size)
  dataset = experiment.dataset
  description = run_folder.describe(config, dataset, experiment.model, mesh.devices.flat)
  with contextlib.ExitStack() as stack, memory.explained():
    received = stack.enter_context(preemption.caught())
    distributed.on_first_process(lambda: stack.enter_context(run_folder.locked(workdir)))
    extended = []
    distributed.on_first_process(lambda: extended.extend(run_folder.begin(workdir, description)))
    for line in (messages.opening(description, dataset.placement, workdir), *dataset.remarks, *extended):
      _say(line)
    cache.keep_compiled_programs()
    training, state = _training(experiment, description, workdir, mesh, profile=profile, received=received, stack=stack)
    state = loop.train(training, state)
    run = api.of(distributed.fetch(state.evaluated, mesh), config, experiment.model, workdir, int(state.step))
    if jax.process_index() == 0:
      _analyze(run, experiment, description, workdir, training.courses[0], received)
  return run.metrics


def _training(experiment, description, workdir, mesh, *, profile, received, stack):
  """Returns the `loop.Training` of a run and its state, restored from its newest checkpoint if there is one."""
  config, dataset, schedule, last = (
    experiment.config,
    experiment.dataset,
    experiment.batch_schedule,
    experiment.stages[-1].epochs.stop,
  )
  shown = jax.process_index() == 0
  device_data, start = compiled_stage.begin(experiment, mesh)
  opened = stack.enter_context(checkpoints.open_folder(workdir / "checkpoints", True, _say))
  state, notes = checkpoints.restore(opened, start, _say) or (start, {})
  if step := int(state.step):
    _say(f"continuing after epoch {step / schedule.steps:.3g} of {last}")
  log = stack.enter_context(logs.Log(workdir, step, description, config.trackers) if shown else logs.Silence())
  windows = logs.Windows(config.log_every_steps, schedule.steps, step, notes.get("pending", ()))

  history = (record for record in logs.stream(workdir) if record["step"] <= step)

  @functools.cache
  def baselines():
    return dict(evaluators.baselines(experiment.evaluators, dataset, experiment.model.code))

  def metrics(loss, values):
    return dict(evaluators.metrics(experiment.evaluators, loss, values, device_data.test_weights, dataset))

  def checkpoint(state, records):
    error = records[0]["test/squared_error"] if records else np.inf  # the best checkpoint is an evaluated one
    return state, error, {} if records else {"pending": windows.pending}

  training = loop.Training(
    experiment,
    [loop.Course(log, windows, metrics, baselines)],
    build=functools.partial(compiled_stage.build, experiment, device_data, workdir, profile),
    feed=functools.partial(
      compiled_stage.feed, experiment, distributed.columns(device_data.split, schedule.padded_batch_size)
    ),
    checkpoint=checkpoint,
    opened=opened,
    received=received,
    until=last,
    refresh=evaluation.refresher(workdir) if shown else lambda: None,
    limit=stopping.time_limit(config.max_minutes),
    progress=stopping.progress(experiment.early_stopping, history),
    report=_say,
  )
  return training, state


def _analyze(run, experiment, description, workdir, course, received):
  """Lets the evaluators analyze the trained run, gives what they find to its log, and prints a summary."""
  signals.promise(preemption.ANALYZING)
  check = functools.partial(preemption.stop_analyses, received, workdir)
  found = evaluation.examine(run, experiment.dataset, experiment.evaluators, workdir, course.baselines(), check)
  course.log.finish(found.values, evaluation.pictures(workdir))
  skipped = verdict.skipped_steps(logs.curves(run.history))
  logs.say(messages.closing(run.metrics | found.values, description, workdir, skipped))


def _say(line):
  if jax.process_index() == 0:
    logs.say(line)

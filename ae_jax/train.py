"""A single run from its config: set up, restore, train (`loop`), study. No mathematics here."""

import contextlib
import functools

import jax
import numpy as np

from ae_jax import (
  api,
  cache,
  checkpoints,
  evaluation,
  evaluators,
  experiment,
  interruptions,
  logs,
  loop,
  memory,
  parallel,
  paths,
  programs,
  runs,
  signals,
  stopping,
)
from ae_jax.report import verdict, words


def train_and_evaluate(config, workdir, profile=False):
  """Trains what the config describes, or continues the run in `workdir`; returns its last metrics by name.

  With `profile` a chunk of steps of each stage is traced into `workdir`/profile.

  Raises:
    UserError: the user can mend what is wrong; a faulty config is told before anything is compiled or written.
    Interrupted: a signal has stopped the run, which is saved.
  """
  workdir = paths.local_path("workdir", workdir)
  mesh = parallel.mesh()
  described = experiment.of(config, mesh.size)
  experiment.check_memory(described, mesh.size)
  dataset = described.dataset
  description = runs.describe(config, dataset, described.model, mesh.devices.flat)
  with contextlib.ExitStack() as stack, memory.explained():
    received = stack.enter_context(interruptions.caught())
    parallel.on_first_process(lambda: stack.enter_context(runs.locked(workdir)))
    extended = []
    parallel.on_first_process(lambda: extended.extend(runs.begin(workdir, description)))
    for line in (words.opening(description, dataset.placement, workdir), *dataset.remarks, *extended):
      _say(line)
    cache.keep_compiled_programs()
    training, state = _training(described, description, workdir, mesh, profile=profile, received=received, stack=stack)
    state = loop.train(training, state)
    run = api.of(parallel.fetch(state.evaluated, mesh), config, described.model, workdir, int(state.step))
    if jax.process_index() == 0:
      _study(run, described, description, workdir, training.courses[0], received)
  return run.metrics


def _training(described, description, workdir, mesh, *, profile, received, stack):
  """Returns the `loop.Training` of a run and its state, restored from its newest checkpoint if there is one."""
  config, dataset, plan, last = described.config, described.dataset, described.plan, described.stages[-1].epochs.stop
  shown = jax.process_index() == 0
  placed, start = programs.begin(described, mesh)
  opened = stack.enter_context(checkpoints.open_folder(workdir / "checkpoints", True, _say))
  state, notes = checkpoints.restore(opened, start, _say) or (start, {})
  if step := int(state.step):
    _say(f"continuing after epoch {step / plan.steps:.3g} of {last}")
  log = stack.enter_context(logs.Log(workdir, step, description, config.trackers) if shown else logs.Silence())
  windows = logs.Windows(config.log_every_steps, plan.steps, step, notes.get("pending", ()))

  history = (record for record in logs.stream(workdir) if record["step"] <= step)

  @functools.cache
  def baselines():
    return dict(evaluators.rulers(described.measures, dataset, described.model.code))

  def metrics(loss, values):
    return dict(evaluators.metrics(described.measures, loss, values, placed.test_weights, dataset))

  def checkpoint(state, records):
    error = records[0]["test/squared_error"] if records else np.inf  # the best checkpoint is an evaluated one
    return state, error, {} if records else {"pending": windows.pending}

  training = loop.Training(
    described,
    [loop.Course(log, windows, metrics, baselines)],
    build=functools.partial(programs.build, described, placed, workdir, profile),
    feed=functools.partial(programs.feed, described, parallel.columns(placed.split, plan.slots)),
    checkpoint=checkpoint,
    opened=opened,
    received=received,
    until=last,
    refresh=evaluation.refresher(workdir) if shown else lambda: None,
    limit=stopping.time_limit(config.max_minutes),
    progress=stopping.progress(described.early_stopping, history),
    report=_say,
  )
  return training, state


def _study(run, described, description, workdir, course, received):
  """Lets the evaluators study the trained run, gives what they find to its log, and prints a summary."""
  signals.promise(interruptions.STUDYING)
  check = functools.partial(interruptions.stop_studies, received, workdir)
  found = evaluation.examine(run, described.dataset, described.measures, workdir, course.baselines(), check)
  course.log.finish(found.values, evaluation.pictures(workdir))
  skipped = verdict.skipped_steps(logs.curves(run.history))
  logs.say(words.closing(run.metrics | found.values, description, workdir, skipped))


def _say(line):
  if jax.process_index() == 0:
    logs.say(line)

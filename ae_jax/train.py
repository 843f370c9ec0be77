"""One run from its config: build, restore, loop, evaluate, save. No mathematics here."""

import contextlib
import dataclasses
import functools
import time

import jax
import numpy as np

from ae_jax import (
  cache,
  checkpoints,
  evaluation,
  evaluators,
  experiment,
  interruptions,
  logs,
  memory,
  parallel,
  paths,
  programs,
  runs,
  signals,
  steps,
)
from ae_jax.report import verdict, words


@dataclasses.dataclass
class Epoch:
  """How far the training of an epoch has come: of all that a run carries, this alone is no function of the step."""

  number: int
  windows: logs.Windows
  seconds: float = 0.0  # of training, in this process
  examples: float = 0.0  # trained in this process


def train_and_evaluate(config, workdir, profile=False):
  """Trains what the config describes, or continues the run in `workdir`, and returns its last metrics by name.

  With `profile` a chunk of steps of each stage is traced into `workdir`/profile.
  Raises UserError, before anything is compiled or written, for whatever the user can mend, and Interrupted when a
  signal has stopped and saved the run.
  """
  workdir = paths.local_path("workdir", workdir)
  mesh = parallel.mesh()
  described = experiment.of(config, mesh.size)
  experiment.check_memory(described, mesh.size)
  dataset, model, plan, stages = described.dataset, described.model, described.plan, described.stages
  description = runs.describe(config, dataset, model, mesh.devices.flat)
  rulers = functools.cache(lambda: dict(evaluators.rulers(described.measures, dataset, model.code)))

  with contextlib.ExitStack() as stack, memory.explained():
    received = stack.enter_context(interruptions.caught())
    parallel.on_first_process(lambda: stack.enter_context(runs.locked(workdir)))
    parallel.on_first_process(lambda: runs.begin(workdir, description))
    for line in (words.opening(description, dataset.placement, workdir), *dataset.remarks):
      _say(line)
    cache.keep_compiled_programs()
    placed = programs.place(dataset, model, plan, mesh)
    compiled = functools.partial(programs.build, described, placed, workdir, profile)
    opened = stack.enter_context(checkpoints.open_folder(workdir / "checkpoints", True, _say))
    like = programs.start(placed, model, stages[0].optimizer, config)
    state, notes = checkpoints.restore(opened, like, _say) or (like, {})
    if int(state.step):
      _say(f"continuing after epoch {int(state.step) / plan.steps:.3g} of {stages[-1].epochs.stop}")
    shown, first = jax.process_index() == 0, int(state.step)
    log = stack.enter_context(logs.Log(workdir, first, description, config.trackers) if shown else logs.Silence())
    state = _train(described, state, notes, compiled, rulers, opened, workdir, received, log)
    checkpoints.wait(opened)
    run = runs.of(parallel.fetch(state.evaluated, mesh), config, model, workdir, int(state.step))
    if shown:
      signals.promise(interruptions.STUDYING)
      check = functools.partial(interruptions.stop_studies, received, workdir)
      found = evaluation.examine(run, dataset, described.measures, workdir, rulers(), check)
      log.finish(found.values, evaluation.pictures(workdir))
      skipped = verdict.skipped_steps(logs.curves(run.history))
      logs.say(words.closing(run.metrics | found.values, description, workdir, skipped))
  return run.metrics


def _train(described, state, notes, compiled, rulers, opened, workdir, received, log):
  """The epochs that the state has not seen, stage after stage: each is trained, then evaluated and saved if due."""
  config, plan, stages = described.config, described.plan, described.stages
  first, last, compile_seconds = int(state.step), stages[-1].epochs.stop, 0.0
  done, shown = first // plan.steps, jax.process_index() == 0
  refresh = evaluation.refresher(workdir) if shown else lambda: None
  with logs.Display(plan.examples, last, first / plan.steps, shown) as display:
    for number, stage in enumerate(stages):
      to_do = range(max(done, stage.epochs.start), stage.epochs.stop)
      if not to_do:
        continue
      built, feed = compiled(stage, state, (int(state.step) // plan.chunk, stage.epochs.stop * plan.chunks_per_epoch))
      compile_seconds += built.compile_seconds
      constants = {"compile_seconds": compile_seconds} | ({"stage": number} if len(stages) > 1 else {})
      if int(state.step) == stage.epochs.start * plan.steps:
        state = built.restart(state)
      with contextlib.closing(feed):
        for epoch in to_do:
          begun = steps.compilations()
          at = Epoch(epoch, logs.Windows(config.log_every_steps, plan.steps, int(state.step), notes.pop("pending", [])))
          state, record = _train_epoch(config, state, at, built, feed, plan, log, display, received)
          if epoch > to_do.start and steps.compilations() > begun:
            raise RuntimeError(f"epoch {epoch + 1} compiled again what epoch {epoch} had compiled: a bug of ae_jax")
          if record is None:
            _stop(opened, log, state, at, plan, received)
          save_due = described.due(epoch + 1, config.checkpoint_every_epochs)
          eval_due = save_due or described.due(epoch + 1, config.eval_every_epochs)
          if eval_due:
            record |= dict(built.evaluate(state)) | constants | rulers()
          log.write(record)
          if eval_due:
            display.evaluated(record)
            refresh()
          if save_due:
            log.settle()
            checkpoints.save(opened, state, record["test/squared_error"], {})
  return state


def _train_epoch(config, state, at, built, feed, plan, log, display, received):
  """The rest of an epoch, logged as it goes: -> (state, the record of its end, not yet written).

  Instead of the record None if the run is to stop before; `at` then says how far it has come.
  """
  for _ in range(int(state.step) // plan.chunk, (at.number + 1) * plan.chunks_per_epoch):
    if interruptions.asked(received):
      return state, None
    started = time.perf_counter()
    before, batches = state, next(feed)
    state, terms, finite = built.train_chunk(before, *batches)
    finite, terms = np.asarray(finite), {name: np.asarray(values) for name, values in terms.items()}
    seconds, examples = time.perf_counter() - started, plan.examples / plan.chunks_per_epoch
    at.seconds += seconds
    at.examples += examples
    stopped = config.on_nan == "stop" and not finite.all()
    if config.on_nan == "skip":
      terms["skipped"] = ~finite
    display.advance(examples, seconds, terms["loss"][-1])
    for record in at.windows.add(terms, np.argmin(finite) if stopped else len(finite)):
      log.write(record)
    if stopped:
      built.fail(before, *batches)
  return state, at.windows.rest() | {"images_per_second": at.examples / at.seconds}


def _stop(opened, log, state, at, plan, received):
  """Saves the middle of an epoch and raises Interrupted."""
  log.settle()
  checkpoints.wait(opened)
  step = int(state.step)
  if step and not checkpoints.holds(opened, step):
    checkpoints.save(opened, state, np.inf, {"pending": at.windows.pending})
    checkpoints.wait(opened)
  interruptions.stop(received, step / plan.steps)


def _say(line):
  if jax.process_index() == 0:
    logs.say(line)

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
  data,
  errors,
  evaluators,
  interruptions,
  logs,
  memory,
  models,
  objectives,
  optimizers,
  parallel,
  programs,
  runs,
  steps,
)
from ae_jax import config as configs
from ae_jax.data import epochs, rows
from ae_jax.report import words


@dataclasses.dataclass
class Epoch:
  """How far the training of an epoch has come: of all that a run carries, this alone is no function of the step."""

  number: int
  pending: list[dict]  # terms of the steps since the last record
  seconds: float = 0.0  # of training, in this process
  examples: float = 0.0  # trained in this process


def train_and_evaluate(config, workdir, profile=False):
  """Trains what the config describes, or continues the run in `workdir`, and returns its last metrics by name.

  With `profile` a chunk of steps of each stage is traced into `workdir`/profile.
  Raises UserError, before anything is compiled or written, for whatever the user can mend, and Interrupted when a
  signal has stopped and saved the run.
  """
  configs.check(config)
  errors.choose(parallel.MODES, config.parallel, "parallel")
  mesh = parallel.mesh()
  dataset = data.load(**config.data)
  size = len(dataset.train)
  errors.check(config.batch_size <= size, "batch_size", config.batch_size, f"at most the {size} training examples")
  model = models.build(shape=dataset.shape, compute_dtype=config.compute_dtype, **config.model)
  row_bytes = rows.bytes_of_a_row(dataset.train)
  plan = epochs.Epochs(size, config.batch_size, mesh.size * config.accumulate, config.seed, row_bytes)
  stages = _stages(config, model, dataset, plan, mesh)
  measures = evaluators.build(config.evaluators, model, dataset)
  description = runs.describe(config, dataset, model, mesh.devices.flat)
  rulers = functools.cache(lambda: dict(evaluators.rulers(measures, dataset, config.model.latent)))

  with contextlib.ExitStack() as stack, memory.explained():
    received = stack.enter_context(interruptions.caught())
    parallel.on_first_process(lambda: stack.enter_context(runs.locked(workdir)))
    parallel.on_first_process(lambda: runs.begin(workdir, description))
    _say(words.opening(description, dataset.placement, workdir))
    cache.keep_compiled_programs()
    placed = programs.place(dataset, plan, mesh)
    compiled = functools.partial(programs.build, config, placed, dataset, model, plan, measures, workdir, profile)
    opened = stack.enter_context(checkpoints.open_folder(workdir / "checkpoints", True, _say))
    like = programs.start(placed, model, stages[0].optimizer, config.parallel_state)
    state, notes = checkpoints.restore(opened, like, _say) or (like, {})
    if int(state.step):
      _say(f"continuing after epoch {int(state.step) / plan.steps:.3g} of {stages[-1].epochs.stop}")
    state = _train(config, state, notes, stages, compiled, plan, rulers, opened, workdir, received)
    checkpoints.wait(opened)
    run = runs.of(parallel.fetch(state.params, mesh), config, model, workdir, int(state.step))
    if jax.process_index() == 0:
      from ae_jax.report import album  # Matplotlib: a second of imports that the first step does not wait for

      with errors.writing(
        workdir / "pictures", "; the run is saved, and with room for more the same command draws them"
      ):
        album.draw(run, dataset, rulers(), workdir / "pictures")
    _say(words.closing(run.metrics, workdir))
  return run.metrics


def _stages(config, model, dataset, plan, mesh):
  """`config.stages`, then the one that `config.epochs` and `config.objective` describe."""
  stages, first = [], 0
  described = [(f"config.stages[{number}]: ", stage) for number, stage in enumerate(config.stages)]
  for where, stage in [*described, ("", {"epochs": config.epochs, "objective": config.objective})]:
    try:
      objective = objectives.build(model=model, value_range=dataset.value_range, **stage["objective"])
      if objectives.is_joint(objective):
        errors.check(config.accumulate == 1, "accumulate", config.accumulate, "1, as this objective sees a batch whole")
      optimizer = optimizers.build(**config.optimizer, epochs=stage["epochs"], steps_per_epoch=plan.steps)
    except errors.UserError as error:
      raise errors.UserError(f"{where}{error}") from None
    in_cache = None if objectives.is_joint(objective) else models.ROWS_IN_CACHE.get(config.model.name)
    parts = parallel.parts(plan.slots // mesh.size, in_cache, config.accumulate)
    objective = objectives.rematerialised(objective) if config.remat else objective
    shards = mesh.size if config.parallel_state == "sharded" else 1
    memory.check(model, objective, optimizer, plan.slots // mesh.size // parts, shards)
    span = range(first, first + stage["epochs"])
    stages.append(programs.Stage(span, objective, optimizer, parts))
    first = span.stop
  objectives.check_bottleneck(config.objective.name, config.model.latent, dataset.shape)
  return stages


def _train(config, state, notes, stages, compiled, plan, rulers, opened, workdir, received):
  """The epochs that the state has not seen, stage after stage: each is trained, then evaluated and saved if due."""
  first, last, compile_seconds = int(state.step), stages[-1].epochs.stop, 0.0
  done, shown = first // plan.steps, jax.process_index() == 0
  with (
    logs.Log(workdir, first) if shown else logs.Silence() as log,
    logs.progress(plan.examples, last, first / plan.steps, shown) as bar,
  ):
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
          at = Epoch(epoch, notes.pop("pending", []))
          state, record = _train_epoch(config, state, at, built, feed, plan, log, bar, received)
          if epoch > to_do.start and steps.compilations() > begun:
            raise RuntimeError(f"epoch {epoch + 1} compiled again what epoch {epoch} had compiled: a bug of ae_jax")
          if record is None:
            _stop(opened, log, state, at, plan, received)
          save_due = _due(epoch + 1, config.checkpoint_every_epochs, last)
          if save_due or _due(epoch + 1, config.eval_every_epochs, last):
            record |= dict(built.evaluate(state.params)) | constants | rulers()
            bar.set_postfix({"test error": f"{record['test/squared_error']:.4g}"}, refresh=False)
          log.write(record)
          if save_due:
            log.settle()
            checkpoints.save(opened, state, record["test/squared_error"], {})
  return state


def _train_epoch(config, state, at, built, feed, plan, log, bar, received):
  """The rest of an epoch, logged as it goes: -> (state, the record of its end, not yet written).

  Instead of the record None if the run is to stop before; `at` then says how far it has come.
  """
  step = int(state.step) - len(at.pending)
  for _ in range(int(state.step) // plan.chunk, (at.number + 1) * plan.chunks_per_epoch):
    if interruptions.asked(received):
      return state, None
    started = time.perf_counter()
    before, batches = state, next(feed)
    state, terms, finite = built.train_chunk(before, *batches)
    finite, terms = np.asarray(finite), {name: np.asarray(values) for name, values in terms.items()}
    at.seconds += time.perf_counter() - started
    at.examples += plan.examples / plan.chunks_per_epoch
    stopped = config.on_nan == "stop" and not finite.all()
    if config.on_nan == "skip":
      terms["skipped"] = ~finite
    good = np.argmin(finite) if stopped else len(finite)
    at.pending.extend({name: values[row].item() for name, values in terms.items()} for row in range(good))
    bar.set_description(f"epoch {at.number + 1}  loss {terms['loss'][-1]:.4g}", refresh=False)
    bar.update(plan.examples / plan.chunks_per_epoch)
    while len(at.pending) > config.log_every_steps:
      window, at.pending = at.pending[: config.log_every_steps], at.pending[config.log_every_steps :]
      step += len(window)
      log.write(_record(window, step, plan))
    if stopped:
      built.fail(before, *batches)
  step += len(at.pending)
  return state, _record(at.pending, step, plan) | {"images_per_second": at.examples / at.seconds}


def _record(window, step, plan):
  """The means of the terms of some steps, those that were skipped counted and left out."""
  used = [terms for terms in window if not terms.get("skipped")]
  means = {f"train/{name}": float(np.mean([terms[name] for terms in used])) for name in window[0] if used}
  skipped = {"train/skipped": len(window) - len(used)} if "skipped" in window[0] else {}
  return {"step": step, "epoch": step / plan.steps} | means | skipped


def _stop(opened, log, state, at, plan, received):
  """Saves the middle of an epoch and raises Interrupted."""
  log.settle()
  checkpoints.wait(opened)
  step = int(state.step)
  if step and not checkpoints.holds(opened, step):
    checkpoints.save(opened, state, np.inf, {"pending": at.pending})
    checkpoints.wait(opened)
  raise interruptions.Interrupted(
    f"{interruptions.asked(received)}: stopped after epoch {step / plan.steps:.3g}, saved"
  )


def _due(epoch, every, last):
  return epoch == last or epoch % every == 0


def _say(line):
  if jax.process_index() == 0:
    print(line, flush=True)

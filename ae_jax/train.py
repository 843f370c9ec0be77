"""One run from its config: build, restore, loop, evaluate, save. No mathematics here."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

from ae_jax import (
  cache,
  checkpoints,
  data,
  errors,
  evaluators,
  logs,
  models,
  objectives,
  optimizers,
  parallel,
  runs,
  steps,
)
from ae_jax import config as configs
from ae_jax.data import epochs
from ae_jax.report import words


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the training with an objective of its own; its optimizer starts anew."""

  epochs: range  # counted over the whole run
  objective: Callable
  optimizer: optax.GradientTransformation
  blocks: int  # parts of a batch that are computed one after the other


@dataclasses.dataclass(frozen=True)
class Placed:
  """What lies on the devices throughout a run."""

  train: jax.Array  # [N, elements], as test
  test: jax.Array
  test_rows: tuple[jax.Array, jax.Array]  # indices and weights of the batches of the test set, [batches, B]
  init_key: jax.Array
  noise_key: jax.Array
  everywhere: jax.sharding.Sharding
  rows: jax.sharding.Sharding  # of the batches of a chunk


@dataclasses.dataclass(frozen=True)
class Programs:
  """The compiled functions of a stage, their data in place."""

  restart: Callable  # (state) -> state, its optimizer at the beginning
  train_chunk: Callable  # (state, indices, weights) -> (state, {name: [chunk]})
  evaluate: Callable  # (params) -> generator of (name, value)
  compile_seconds: float


def train_and_evaluate(config, workdir, profile=False):
  """Trains what the config describes, or continues the run in `workdir`, and returns its last metrics by name.

  With `profile` a chunk of steps of each stage is traced into `workdir`/profile.
  Raises UserError, before anything is compiled or written, for whatever the user can mend.
  """
  configs.check(config)
  mesh = errors.choose(parallel.MODES, config.parallel, "parallel")()
  dataset = data.load(**config.data)
  size = len(dataset.train)
  errors.check(config.batch_size <= size, "batch_size", config.batch_size, f"at most the {size} training examples")
  model = models.build(shape=dataset.shape, compute_dtype=config.compute_dtype, **config.model)
  plan = epochs.Epochs(size, config.batch_size, mesh.size, config.seed)
  stages = _stages(config, model, dataset, plan)
  measures = evaluators.build(config.evaluators, model, dataset)
  description = runs.describe(config, dataset, model)
  runs.begin(workdir, description)

  print(words.opening(description, workdir), flush=True)
  cache.keep_compiled_programs()
  placed = _place(dataset, plan, mesh)
  rulers = functools.cache(lambda: dict(evaluators.rulers(measures, dataset, config.model.latent)))
  compiled = functools.partial(
    _compile, placed, dataset, model, plan, measures, workdir / "profile" if profile else None
  )
  with checkpoints.open_folder(workdir / "checkpoints", to_save=True) as checkpointer:
    state = _start(placed, model, stages[0].optimizer)
    saved = checkpoints.steps(checkpointer)
    if saved:
      state = checkpoints.restore(checkpointer, saved["last"], state)
      print(f"continuing after epoch {saved['last'] // plan.steps} of {stages[-1].epochs.stop}", flush=True)
    _train(config, state, stages, compiled, plan, rulers, checkpointer, workdir)
  run = runs.load(workdir)
  from ae_jax.report import album  # Matplotlib: a second of imports that the first step does not wait for

  album.draw(run, dataset, rulers(), workdir / "pictures")
  print(words.closing(run.metrics, workdir), flush=True)
  return run.metrics


def _stages(config, model, dataset, plan):
  """`config.stages`, then the one that `config.epochs` and `config.objective` describe."""
  stages, first = [], 0
  described = [(f"config.stages[{number}]: ", stage) for number, stage in enumerate(config.stages)]
  for where, stage in [*described, ("", {"epochs": config.epochs, "objective": config.objective})]:
    try:
      objective = objectives.build(model=model, value_range=dataset.value_range, **stage["objective"])
      optimizer = optimizers.build(**config.optimizer, epochs=stage["epochs"], steps_per_epoch=plan.steps)
    except errors.UserError as error:
      raise errors.UserError(f"{where}{error}") from None
    cached = (
      None if stage["objective"]["name"] in objectives.BATCH_STATISTICS else models.ROWS_IN_CACHE.get(config.model.name)
    )
    span = range(first, first + stage["epochs"])
    stages.append(Stage(span, objective, optimizer, parallel.blocks(plan.slots, cached)))
    first = span.stop
  objectives.check_bottleneck(config.objective.name, config.model.latent, dataset.shape)
  return stages


def _train(config, state, stages, compiled, plan, rulers, checkpointer, workdir):
  """The epochs that the state has not seen, stage after stage: each is trained, then evaluated and saved if due."""
  first, last, compile_seconds = int(state.step), stages[-1].epochs.stop, 0.0
  done = first // plan.steps
  with logs.Log(workdir, first) as log, logs.progress(plan.examples, last, done) as bar:
    for number, stage in enumerate(stages):
      to_do = range(max(done, stage.epochs.start), stage.epochs.stop)
      if not to_do:
        continue
      programs = compiled(stage, state)
      compile_seconds += programs.compile_seconds
      constants = {"compile_seconds": compile_seconds} | ({"stage": number} if len(stages) > 1 else {})
      if to_do.start == stage.epochs.start:
        state = programs.restart(state)
      for epoch in to_do:
        begun = steps.compilations()
        state, record = _train_epoch(state, programs, plan, epoch, config.log_every_steps, log, bar)
        if epoch > to_do.start and steps.compilations() > begun:
          raise RuntimeError(f"epoch {epoch + 1} compiled again what epoch {epoch} had compiled: a bug of ae_jax")
        save_due = _due(epoch + 1, config.checkpoint_every_epochs, last)
        if save_due or _due(epoch + 1, config.eval_every_epochs, last):
          record |= dict(programs.evaluate(state.params)) | constants | rulers()
          bar.set_postfix({"test error": f"{record['test/squared_error']:.4g}"}, refresh=False)
        log.write(record)
        if save_due:
          checkpoints.save(checkpointer, state, record["test/squared_error"])


def _train_epoch(state, programs, plan, epoch, log_every_steps, log, bar):
  """One epoch, logged as it goes: -> (state, the record of its end, not yet written)."""
  seconds, step, pending = 0.0, epoch * plan.steps, []

  def record(window):
    means = {f"train/{name}": float(np.mean([terms[name] for terms in window])) for name in window[0]}
    return {"step": step, "epoch": step / plan.steps, **means}

  for rows in plan.chunks(epoch):
    started = time.perf_counter()
    state, terms = programs.train_chunk(state, *rows)
    columns = {name: np.asarray(values).tolist() for name, values in terms.items()}
    seconds += time.perf_counter() - started
    pending.extend(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    bar.set_description(f"epoch {epoch + 1}  loss {pending[-1]['loss']:.4g}", refresh=False)
    bar.update(plan.examples * plan.chunk / plan.steps)
    while len(pending) > log_every_steps:
      window, pending = pending[:log_every_steps], pending[log_every_steps:]
      step += len(window)
      log.write(record(window))
  step += len(pending)
  return state, record(pending) | {"images_per_second": plan.examples / seconds}


def _due(epoch, every, last):
  return epoch == last or epoch % every == 0


def _place(dataset, plan, mesh):
  """Puts the data on the devices."""
  everywhere, rows = parallel.replicated(mesh), parallel.split(mesh, axis=1)
  init_key, noise_key = jax.random.split(jax.device_put(jax.random.key(plan.seed), everywhere))
  train, test = (jax.device_put(half.reshape(len(half), -1), everywhere) for half in (dataset.train, dataset.test))
  test_rows = jax.device_put(epochs.in_order(len(dataset.test), plan.batch_size, plan.devices), rows)
  return Placed(train, test, test_rows, init_key, noise_key, everywhere, rows)


def _start(placed, model, optimizer):
  """The state before the first step."""
  static = {"model": model, "optimizer": optimizer}
  return steps.compiled(steps.init, (placed.init_key,), out_shardings=placed.everywhere, **static)(placed.init_key)


def _compile(placed, dataset, model, plan, measures, profile, stage, state):
  """The programs of a stage, for states like `state`."""
  started = time.perf_counter()
  compiled = functools.partial(steps.compiled, out_shardings=placed.everywhere)
  restart = compiled(steps.restart, (state,), optimizer=stage.optimizer)
  fixed = {"model": model, "objective": stage.objective, "value_range": dataset.value_range}
  arguments = (state, placed.train, *jax.device_put(plan.chunks(0)[0], placed.rows), placed.noise_key)
  trained = {"optimizer": stage.optimizer, "blocks": stage.blocks}
  train_chunk = compiled(steps.train_chunk, arguments, donate=(0,), **trained, **fixed)
  fixed["statistics"] = evaluators.statistics(measures, dataset.value_range)
  arguments = (state.params, placed.test, *placed.test_rows, placed.noise_key)
  evaluate = compiled(steps.evaluate, arguments, **fixed)

  def train(state, *batches):
    return train_chunk(state, placed.train, *jax.device_put(batches, placed.rows), placed.noise_key)

  return Programs(
    restart=restart,
    train_chunk=logs.traced(train, profile) if profile else train,
    evaluate=lambda params: evaluators.metrics(
      measures, *evaluate(params, placed.test, *placed.test_rows, placed.noise_key), placed.test_rows[1], dataset
    ),
    compile_seconds=time.perf_counter() - started,
  )

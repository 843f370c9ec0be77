"""One run from its config: build, restore, loop, evaluate, save. No mathematics here."""

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np

from ae_jax import cache, checkpoints, data, errors, logs, models, objectives, optimizers, parallel, runs, steps
from ae_jax import config as configs
from ae_jax.data import epochs
from ae_jax.evaluators import reconstruction
from ae_jax.report import pictures, words

PICTURED = 16  # test images in reconstructions.png


@dataclasses.dataclass(frozen=True)
class Programs:
  """The compiled functions of a run, their data in place on the devices."""

  init: Any  # () -> state
  train_chunk: Any  # (state, indices, weights) -> (state, {name: [chunk]})
  evaluate: Any  # (params) -> {name: [batches]}
  compile_seconds: float


def train_and_evaluate(config, workdir):
  """Trains what the config describes, or continues the run in `workdir`, and returns its last metrics by name.

  Raises UserError, before anything is compiled or written, for whatever the user can mend.
  """
  configs.check(config)
  errors.choose(dict.fromkeys(parallel.MODES), config.parallel, "parallel")
  dataset = data.load(**config.data)
  size = len(dataset.train)
  errors.check(config.batch_size <= size, "batch_size", config.batch_size, f"at most the {size} training images")
  model = models.build(shape=dataset.shape, **config.model)
  objective = objectives.build(value_range=dataset.value_range, **config.objective)
  mesh = parallel.mesh()
  plan = epochs.Epochs(size, config.batch_size, mesh.size, config.seed)
  optimizer = optimizers.build(**config.optimizer, epochs=config.epochs, steps_per_epoch=plan.steps)
  runs.begin(workdir, runs.describe(config, dataset, model))

  print(words.opening(config, dataset, model, workdir), flush=True)
  programs = _compile(dataset, model, objective, optimizer, plan, mesh)
  rulers = dict(reconstruction.rulers(dataset, config.model.latent))
  with checkpoints.open_folder(workdir / "checkpoints") as checkpointer:
    state = programs.init()
    saved = checkpoints.steps(checkpointer)
    if saved:
      state = checkpoints.restore(checkpointer, saved["last"], state)
      print(f"continuing after epoch {saved['last'] // plan.steps} of {config.epochs}", flush=True)
    _train(config, state, programs, plan, mesh, dataset, rulers, checkpointer, workdir)

  run = runs.load(workdir)
  shown = np.linspace(0, len(dataset.test) - 1, min(PICTURED, len(dataset.test))).astype(int)
  title = words.error_beside_pca(run.metrics)
  folder = workdir / "pictures"
  folder.mkdir(exist_ok=True)
  images = data.ranges.normalise(dataset.test[shown], dataset.value_range)
  pictures.reconstructions(
    folder / "reconstructions.png", images, run.reconstruct(images), dataset.value_range, title
  )
  pictures.curves(folder / "curves.png", run.history, rulers)
  print(words.closing(config, run.metrics, workdir), flush=True)
  return run.metrics


def _train(config, state, programs, plan, mesh, dataset, rulers, checkpointer, workdir):
  """The loop: epochs from the state's on, each trained, and evaluated and saved when that is due."""
  done = int(state.step) // plan.steps
  first = {"compile_seconds": programs.compile_seconds, **rulers}
  with (
    logs.Log(workdir, step=int(state.step)) as log,
    logs.progress(len(dataset.train), config.epochs, done) as bar,
  ):
    for epoch in range(done, config.epochs):
      started = time.perf_counter()
      pending = []  # losses of steps that no record has yet
      step = epoch * plan.steps
      for state, losses in _train_epoch(state, programs, plan, mesh, epoch):
        pending.extend(losses)
        bar.set_description(f"epoch {epoch + 1}/{config.epochs}  loss {losses[-1]:.4g}", refresh=False)
        bar.update(len(dataset.train) * len(losses) / plan.steps)
        while len(pending) > config.log_every_steps:
          window, pending = pending[: config.log_every_steps], pending[config.log_every_steps :]
          step += len(window)
          log.write({"step": step, "epoch": step / plan.steps, "train/loss": float(np.mean(window))})
      record = {
        "step": int(state.step),
        "epoch": float(epoch + 1),
        "train/loss": float(np.mean(pending)),
        "images_per_second": len(dataset.train) / (time.perf_counter() - started),
      }
      last = epoch + 1 == config.epochs
      due = functools.partial(_due, epoch + 1, last)
      if due(config.eval_every_epochs) or due(config.checkpoint_every_epochs):
        record |= dict(reconstruction.metrics(programs.evaluate(state.params), dataset)) | first
        bar.set_postfix({"test error": f"{record['test/squared_error']:.4g}"}, refresh=False)
      log.write(record)
      if due(config.checkpoint_every_epochs):
        checkpoints.save(checkpointer, state, record["test/squared_error"])


def _train_epoch(state, programs, plan, mesh, epoch):
  """Yields (state, losses) after every chunk."""
  indices, weights = plan.batches(epoch)
  rows = parallel.split(mesh, axis=1)
  for start in range(0, plan.steps, plan.chunk):
    chunk = slice(start, start + plan.chunk)
    state, terms = programs.train_chunk(state, *jax.device_put((indices[chunk], weights[chunk]), rows))
    yield state, np.asarray(terms["loss"]).tolist()


def _due(epoch, last, every):
  return last or epoch % every == 0


def _compile(dataset, model, objective, optimizer, plan, mesh):
  """Puts the data on the devices and compiles the three programs of a run."""
  cache.keep_compiled_programs()
  everywhere, rows = parallel.replicated(mesh), parallel.split(mesh, axis=1)
  key = jax.device_put(jax.random.key(plan.seed), everywhere)
  init_key, noise_key = jax.random.split(key)
  train = jax.device_put(dataset.train.reshape(len(dataset.train), -1), everywhere)
  test = jax.device_put(dataset.test.reshape(len(dataset.test), -1), everywhere)
  train_rows = jax.device_put(tuple(part[: plan.chunk] for part in plan.batches(0)), rows)
  test_rows = jax.device_put(epochs.in_order(len(dataset.test), plan.batch_size, plan.devices), rows)

  started = time.perf_counter()
  compiled = functools.partial(steps.compiled, out_shardings=everywhere, model=model)
  init = compiled(steps.init, (init_key,), optimizer=optimizer)
  state = init(init_key)
  fixed = {"objective": objective, "value_range": dataset.value_range}
  train_chunk = compiled(
    steps.train_chunk, (state, train, *train_rows, noise_key), donate=(0,), optimizer=optimizer, **fixed
  )
  statistics = reconstruction.statistics_for(dataset.value_range)
  evaluate = compiled(steps.evaluate, (state.params, test, *test_rows, noise_key), statistics=statistics, **fixed)
  return Programs(
    init=lambda: init(init_key),
    train_chunk=lambda state, *rows: train_chunk(state, train, *rows, noise_key),
    evaluate=lambda params: evaluate(params, test, *test_rows, noise_key),
    compile_seconds=time.perf_counter() - started,
  )

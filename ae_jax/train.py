"""One run from its config: build, restore, loop, evaluate, save. No mathematics here."""

import dataclasses
import functools
import time
from collections.abc import Callable

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

  start: steps.TrainState  # before the first step
  train_chunk: Callable  # (state, indices, weights) -> (state, {name: [chunk]})
  evaluate: Callable  # (params) -> {name: [batches]}
  compile_seconds: float


def train_and_evaluate(config, workdir):
  """Trains what the config describes, or continues the run in `workdir`, and returns its last metrics by name.

  Raises UserError, before anything is compiled or written, for whatever the user can mend.
  """
  configs.check(config)
  mesh = errors.choose(parallel.MODES, config.parallel, "parallel")()
  dataset = data.load(**config.data)
  size = len(dataset.train)
  errors.check(config.batch_size <= size, "batch_size", config.batch_size, f"at most the {size} training images")
  model = models.build(shape=dataset.shape, **config.model)
  objective = objectives.build(value_range=dataset.value_range, **config.objective)
  plan = epochs.Epochs(size, config.batch_size, mesh.size, config.seed)
  optimizer = optimizers.build(**config.optimizer, epochs=config.epochs, steps_per_epoch=plan.steps)
  description = runs.describe(config, dataset, model)
  runs.begin(workdir, description)

  print(words.opening(description, workdir), flush=True)
  blocks = parallel.blocks(plan.slots, models.ROWS_IN_CACHE.get(config.model.name))
  programs = _compile(dataset, model, objective, optimizer, plan, mesh, blocks)
  rulers = dict(reconstruction.rulers(dataset, config.model.latent))
  with checkpoints.open_folder(workdir / "checkpoints", to_save=True) as checkpointer:
    state = programs.start
    saved = checkpoints.steps(checkpointer)
    if saved:
      state = checkpoints.restore(checkpointer, saved["last"], state)
      print(f"continuing after epoch {saved['last'] // plan.steps} of {config.epochs}", flush=True)
    _train(config, state, programs, plan, dataset, rulers, checkpointer, workdir)
  run = runs.load(workdir)
  _draw(run, dataset, rulers, workdir / "pictures")
  print(words.closing(run.metrics, workdir), flush=True)
  return run.metrics


def _train(config, state, programs, plan, dataset, rulers, checkpointer, workdir):
  """The loop over the epochs that the state has not seen: each is trained, then evaluated and saved if that is due."""
  begun = int(state.step)
  constants = {"compile_seconds": programs.compile_seconds, **rulers}
  done = begun // plan.steps
  with logs.Log(workdir, begun) as log, logs.progress(plan.examples, config.epochs, done) as bar:
    for epoch in range(done, config.epochs):
      started, step, pending = time.perf_counter(), epoch * plan.steps, []
      for rows in plan.chunks(epoch):
        state, terms = programs.train_chunk(state, *rows)
        pending.extend(np.asarray(terms["loss"]).tolist())
        bar.set_description(f"epoch {epoch + 1}/{config.epochs}  loss {pending[-1]:.4g}", refresh=False)
        bar.update(plan.examples * plan.chunk / plan.steps)
        while len(pending) > config.log_every_steps:
          window, pending = pending[: config.log_every_steps], pending[config.log_every_steps :]
          step += len(window)
          log.write({"step": step, "epoch": step / plan.steps, "train/loss": float(np.mean(window))})
      seconds = time.perf_counter() - started
      record = {"step": step + len(pending), "epoch": epoch + 1.0, "train/loss": float(np.mean(pending))}
      record["images_per_second"] = plan.examples / seconds
      save_due = _due(epoch + 1, config.checkpoint_every_epochs, config.epochs)
      if save_due or _due(epoch + 1, config.eval_every_epochs, config.epochs):
        record |= dict(reconstruction.metrics(programs.evaluate(state.params), dataset)) | constants
        bar.set_postfix({"test error": f"{record['test/squared_error']:.4g}"}, refresh=False)
      log.write(record)
      if save_due:
        checkpoints.save(checkpointer, state, record["test/squared_error"])


def _due(epoch, every, last):
  return epoch == last or epoch % every == 0


def _compile(dataset, model, objective, optimizer, plan, mesh, blocks):
  """Puts the data on the devices and compiles the programs of a run."""
  cache.keep_compiled_programs()
  everywhere, rows = parallel.replicated(mesh), parallel.split(mesh, axis=1)
  init_key, noise_key = jax.random.split(jax.device_put(jax.random.key(plan.seed), everywhere))
  train = jax.device_put(dataset.train.reshape(plan.examples, -1), everywhere)
  test = jax.device_put(dataset.test.reshape(len(dataset.test), -1), everywhere)
  train_rows = jax.device_put(plan.chunks(0)[0], rows)
  test_rows = jax.device_put(epochs.in_order(len(dataset.test), plan.batch_size, plan.devices), rows)

  started = time.perf_counter()
  compiled = functools.partial(steps.compiled, out_shardings=everywhere, model=model)
  start = compiled(steps.init, (init_key,), optimizer=optimizer)(init_key)
  fixed = {"objective": objective, "value_range": dataset.value_range}
  arguments = (start, train, *train_rows, noise_key)
  train_chunk = compiled(steps.train_chunk, arguments, donate=(0,), optimizer=optimizer, blocks=blocks, **fixed)
  statistics = reconstruction.statistics_for(dataset.value_range)
  arguments = (start.params, test, *test_rows, noise_key)
  evaluate = compiled(steps.evaluate, arguments, statistics=statistics, **fixed)
  return Programs(
    start=start,
    train_chunk=lambda state, *batches: train_chunk(state, train, *jax.device_put(batches, rows), noise_key),
    evaluate=lambda params: evaluate(params, test, *test_rows, noise_key),
    compile_seconds=time.perf_counter() - started,
  )


def _draw(run, dataset, rulers, folder):
  """The pictures of a trained run: test images at even distances, and the curves."""
  folder.mkdir(exist_ok=True)
  shown = np.linspace(0, len(dataset.test) - 1, min(PICTURED, len(dataset.test))).astype(int)
  images = data.ranges.normalise(dataset.test[shown], dataset.value_range)
  title, reconstructed = words.error_beside_pca(run.metrics), run.reconstruct(images)
  pictures.reconstructions(folder / "reconstructions.png", images, reconstructed, dataset.value_range, title)
  pictures.curves(folder / "curves.png", run.history, rulers)

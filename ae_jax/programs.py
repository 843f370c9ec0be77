"""What a run computes with: its data on the devices, and the compiled functions of each of its stages."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import numpy as np

from ae_jax import evaluators, interruptions, logs, parallel, steps
from ae_jax.data import epochs, streams


@dataclasses.dataclass(frozen=True)
class Placed:
  """What lies on the devices throughout a run, and how the rest is to lie there."""

  train: jax.Array | None  # [N, elements], as test; None if it streams
  test: jax.Array
  test_rows: tuple[jax.Array, jax.Array]  # indices and weights of the batches of the test set, [batches, B]
  test_weights: np.ndarray  # the same weights, in every process
  init_key: jax.Array
  noise_key: jax.Array
  everywhere: jax.sharding.Sharding
  rows: jax.sharding.Sharding  # of the batches of a chunk
  columns: slice  # of a batch, that this process holds


@dataclasses.dataclass(frozen=True)
class Programs:
  """The compiled functions of a stage, their data in place."""

  restart: Callable  # (state) -> state, its optimizer at the beginning
  train_chunk: Callable  # (state, rows, weights) -> (state, {name: [chunk]}, finite [chunk])
  evaluate: Callable  # (state) -> generator of (name, value)
  fail: Callable  # (state, rows, weights) raises UserError: one of the steps after this state is not finite
  compile_seconds: float


def place(dataset, plan, mesh):
  """Puts the data on the devices."""
  everywhere, rows = parallel.replicated(mesh), parallel.split(mesh, axis=1)
  init_key, noise_key = jax.jit(functools.partial(_keys, plan.seed), out_shardings=everywhere)()
  train, test = (
    None if half is dataset.train and dataset.streams else parallel.put(half.reshape(len(half), -1), everywhere)
    for half in (dataset.train, dataset.test)
  )
  cut = epochs.in_order(len(dataset.test), plan.batch_size, plan.devices)
  test_rows = tuple(parallel.put(part, rows) for part in cut)
  return Placed(
    train, test, test_rows, cut[1], init_key, noise_key, everywhere, rows, parallel.columns(rows, plan.slots)
  )


def _keys(seed):
  init_key, noise_key = jax.random.split(jax.random.key(seed))
  return init_key, noise_key


def start(placed, model, optimizer, kind):
  """The state before the first step."""
  init = functools.partial(steps.init, model=model, optimizer=optimizer)
  places = parallel.of_state(placed.everywhere.mesh, jax.eval_shape(init, placed.init_key), kind)
  return parallel.auto(init, (placed.init_key,), places)(placed.init_key)


def _feed(dataset, plan, columns, first, last):
  """The chunks from `first` to `last` of a run: (rows, weights), as `steps.read_batch` takes them, of some slots."""
  if dataset.streams:
    yield from streams.chunks(dataset.train, plan, first, last, columns)
    return
  for epoch in range(first // plan.chunks_per_epoch, last // plan.chunks_per_epoch):
    start = max(0, first - epoch * plan.chunks_per_epoch)
    for indices, weights in plan.chunks(epoch)[start:]:
      yield indices[:, columns], weights[:, columns]


def build(described, placed, workdir, profile, stage, state, chunks):
  """The `Programs` of a stage for states like `state`, and a generator of its data, the chunks from `chunks[0]` on.

  `described` is the `experiment.Experiment`.
  """
  started = time.perf_counter()
  config, dataset, model, plan = described.config, described.dataset, described.model, described.plan
  measures = described.measures
  mesh = placed.everywhere.mesh
  places = parallel.of_state(mesh, state, config.parallel_state)
  restart = steps.compiled(steps.restart, (state,), places, optimizer=stage.optimizer)
  fixed = {"model": model, "objective": stage.objective, "value_range": dataset.value_range}
  fixed["team"] = parallel.team(mesh, state.params, config.parallel_state)
  shape = (plan.chunk, plan.slots)
  rows = jax.ShapeDtypeStruct(
    (*shape, dataset.test[0].size) if dataset.streams else shape,
    dataset.train.dtype if dataset.streams else np.int32,
    sharding=placed.rows,
  )
  weights = jax.ShapeDtypeStruct(shape, np.float32, sharding=placed.rows)
  trained = {"optimizer": stage.optimizer, "parts": stage.parts, "mode": parallel.MODES[config.parallel], **fixed}
  trained["augment"] = described.augment
  compiled = functools.partial(
    steps.compiled,
    steps.train_chunk,
    (state, placed.train, rows, weights, placed.noise_key),
    (places, placed.everywhere, placed.everywhere),
    **trained,
  )
  # what may have to be repeated keeps the state that it began with
  train_chunk = compiled() if config.on_nan == "stop" else compiled(on_nan=config.on_nan, donate=(0,))
  fixed["statistics"] = evaluators.statistics(measures, dataset.value_range, dataset.span)
  arguments = (state.params, state.step, placed.test, *placed.test_rows, placed.noise_key)
  evaluate = steps.compiled(steps.evaluate, arguments, placed.everywhere, **fixed)

  def train(state, *batches, chunk=train_chunk):
    batches = [parallel.put_rows(part, placed.rows, plan.slots) for part in batches]
    return chunk(state, placed.train, *batches, placed.noise_key)

  def fail(state, *batches):
    state, *_ = train(state, *batches, chunk=compiled(on_nan="stop"))
    whole = parallel.fetch(state, mesh)
    epoch, row = divmod(int(whole.step), plan.steps)
    indices, weights = (part[row] for part in plan.batches(epoch))
    examples = np.asarray(dataset.train[indices]).reshape(len(indices), -1)
    batch = steps.read_batch(examples, weights, examples=None, model=model, value_range=dataset.value_range)
    stop = functools.partial(interruptions.stop_at, whole, batch, _keys(plan.seed)[1], workdir / "nan.npz", model=model)
    stop = functools.partial(stop, augment=described.augment)
    where = f"step {int(whole.step) + 1} (epoch {epoch + 1})"
    parallel.on_first_process(functools.partial(stop, objective=stage.objective.at(whole.step), where=where))

  def tested(state):
    found = evaluate(state.params, state.step, placed.test, *placed.test_rows, placed.noise_key)
    return evaluators.metrics(measures, *found, placed.test_weights, dataset)

  programs = Programs(
    restart=restart,
    train_chunk=logs.traced(train, workdir / "profile") if profile else train,
    evaluate=tested,
    fail=fail,
    compile_seconds=time.perf_counter() - started,
  )
  return programs, _feed(dataset, plan, placed.columns, *chunks)

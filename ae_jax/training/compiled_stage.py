"""Arrays on the devices and compiled functions of each training stage; `build` makes those of a single run."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import numpy as np

from ae_jax import data, evaluators
from ae_jax.data import batch_schedule, streams
from ae_jax.runs import logs
from ae_jax.system import distributed
from ae_jax.training import preemption, steps
from ae_jax.training.state import init_state, restart_optimizer


@dataclasses.dataclass(frozen=True)
class DeviceData:
  """Arrays that stay on the devices throughout the training, and the shardings of the others."""

  train: dict[str, jax.Array] | None  # columns {"x": [N, elements], ...}, as test; None where they are streamed
  test: dict[str, jax.Array]
  test_rows: tuple[jax.Array, jax.Array]  # indices and weights of the test batches, [batches, slots]
  test_weights: np.ndarray  # the same weights, in the memory of every process
  own: tuple  # what belongs to a model: (noise key,), or of a pack's members (noise keys [members], their masks)
  everywhere: jax.sharding.Sharding  # replicated
  split: jax.sharding.Sharding  # of a chunk's rows and weights: the devices share each batch, or a pack's members


@dataclasses.dataclass(frozen=True)
class CompiledStage:
  """The compiled functions of a stage; all but their changing arguments are in place."""

  restart: Callable  # (state) -> state with a new optimizer state
  train_chunk: Callable  # (state, rows, weights) -> (state, {name: terms}, finite), [chunk] or [members, chunk]
  evaluate: Callable  # (state) -> (loss, {name: values [batches, slots, ...]}), of a pack with a first axis of members
  compile_seconds: float
  peak_bytes: int = 0  # of a device, as the compiler predicts it for a pack
  # (state, rows, weights): called where a step of this chunk is not finite; raises UserError, unless others go on
  fail: Callable = lambda *_: None
  # (these programs, state, (rows, weights), seconds of their chunk) -> the programs to go on with
  tune: Callable = lambda programs, *_: programs


def keys(seed):
  """Returns the keys of the initialisation and of the noise of a run."""
  init_key, noise_key = jax.random.split(jax.random.key(seed))
  return init_key, noise_key


def place(experiment, cut, rows, own, split):
  """Puts the data that a model needs on the devices; `cut` are the indices and weights of its test batches.

  `rows` is the sharding of these. A streamed training set is left where it is. See `DeviceData` for `own` and `split`.
  """
  everywhere = distributed.replicated(split.mesh)

  def put(half):
    columns = data.flat_columns(experiment.dataset, half, experiment.model)
    return jax.tree.map(lambda column: distributed.put(column, everywhere), columns)

  train = None if experiment.dataset.streams else put("train")
  test_rows = tuple(distributed.put(part, rows) for part in cut)
  return DeviceData(train, put("test"), test_rows, cut[1], own, everywhere, split)


def chunk_arguments(device_data, own, state, rows, weights):
  """Returns the arguments of a compiled `steps.train_chunk`; `own` is `device_data.own` and more."""
  return (state, device_data.train, rows, weights, *own)


def test_arguments(device_data, own, state):
  """Returns the arguments of a compiled `steps.evaluate`; `own` is `device_data.own` and more."""
  return (state.evaluated, state.step, device_data.test, *device_data.test_rows, *own)


def bound(device_data, own, slots, train_chunk, evaluate):
  """Returns `train_chunk` and `evaluate` of `CompiledStage`, given the compiled functions."""

  def train(state, *batches):
    batches = jax.tree.map(lambda part: distributed.put_rows(part, device_data.split, slots), batches)
    return train_chunk(*chunk_arguments(device_data, own, state, *batches))

  return train, lambda state: evaluate(*test_arguments(device_data, own, state))


def feed(experiment, slots, first, last):
  """Generates the chunks `first` to `last` - 1 of a run: rows and weights, both [chunk, slots].

  The rows of a streamed training set are its columns, {"x": [chunk, slots, elements], ...}. `slots`, a slice, selects
  the slots of each batch.
  """
  dataset, schedule = experiment.dataset, experiment.batch_schedule
  if dataset.streams:
    yield from streams.chunks(data.of_half(dataset, "train", experiment.model), schedule, first, last, slots)
    return
  for epoch in range(first // schedule.chunks_per_epoch, last // schedule.chunks_per_epoch):
    start = max(0, first - epoch * schedule.chunks_per_epoch)
    for indices, weights in schedule.chunks(epoch)[start:]:
      yield indices[:, slots], weights[:, slots]


def begin(experiment, mesh):
  """Puts the data of a single run on the devices of a mesh, which share each batch.

  Returns the `DeviceData` and the state before the first step.
  """
  config, dataset, schedule = experiment.config, experiment.dataset, experiment.batch_schedule
  init_key, noise_key = jax.jit(functools.partial(keys, schedule.seed), out_shardings=distributed.replicated(mesh))()
  split = distributed.split(mesh, axis=1)
  cut = batch_schedule.in_order(len(dataset.test), schedule.batch_size, schedule.devices)
  device_data = place(experiment, cut, split, (noise_key,), split)
  optimizer, ema = experiment.stages[0].optimizer, config.ema_decay > 0
  init = functools.partial(init_state, model=experiment.model, optimizer=optimizer, ema=ema)
  places = distributed.of_state(mesh, jax.eval_shape(init, init_key), config.parallel_state)
  return device_data, distributed.auto(init, (init_key,), places)(init_key)


def build(experiment, device_data, workdir, profile, number, state):
  """Compiles the `CompiledStage` of a stage of a single run, given by its number, for states like `state`.

  `fail` writes nan.npz into `workdir`. With `profile` the second chunk is traced into `workdir`/profile.
  """
  begun = time.perf_counter()
  config, dataset, stage, schedule = (
    experiment.config,
    experiment.dataset,
    experiment.stages[number],
    experiment.batch_schedule,
  )
  everywhere, mesh = device_data.everywhere, device_data.everywhere.mesh
  places = distributed.of_state(mesh, state, config.parallel_state)
  fixed = {"model": experiment.model, "objective": stage.objective, "value_range": dataset.value_range}
  fixed["data_parallel"] = distributed.data_parallel(mesh, state.params, config.parallel_state)
  arguments = chunk_arguments(device_data, device_data.own, state, *_abstract_batches(schedule, device_data))
  trained = {"optimizer": stage.optimizer, "microbatches": stage.microbatches, "ema_decay": config.ema_decay, **fixed}
  trained |= {"mode": distributed.MODES[config.parallel], "augment": experiment.augment}
  results = (places, everywhere, everywhere)
  compiled = functools.partial(steps.compiled, steps.train_chunk, arguments, results, **trained)
  # a chunk that may have to be repeated does not give its state away
  train_chunk = compiled() if config.on_nan == "stop" else compiled(on_nan=config.on_nan, donate=(0,))
  fixed["statistics"] = evaluators.statistics(experiment.evaluators, dataset.value_range, dataset.span)
  evaluate = steps.compiled(steps.evaluate, test_arguments(device_data, device_data.own, state), everywhere, **fixed)
  train, tested = bound(device_data, device_data.own, schedule.padded_batch_size, train_chunk, evaluate)

  def fail(state, *batches):
    guarded, _ = bound(device_data, device_data.own, schedule.padded_batch_size, compiled(on_nan="stop"), evaluate)
    _stop_at(experiment, stage, distributed.fetch(guarded(state, *batches)[0], mesh), workdir)

  return CompiledStage(
    restart=steps.compiled(restart_optimizer, (state,), places, optimizer=stage.optimizer),
    train_chunk=logs.traced(train, workdir / "profile") if profile else train,
    evaluate=tested,
    compile_seconds=time.perf_counter() - begun,
    fail=fail,
  )


def _abstract_batches(schedule, device_data):
  """Returns the shapes, types and shardings of the rows and weights of a chunk of all processes."""
  shape = (schedule.chunk, schedule.padded_batch_size)
  abstract = functools.partial(jax.ShapeDtypeStruct, sharding=device_data.split)
  rows = abstract(shape, np.int32)
  if device_data.train is None:  # streamed: the rows are columns like those of the test set
    rows = jax.tree.map(lambda column: abstract((*shape, *column.shape[1:]), column.dtype), device_data.test)
  return rows, abstract(shape, np.float32)


def _stop_at(experiment, stage, state, workdir):
  """Raises UserError for the step after `state`, which is not finite, and leaves what repeats it in `workdir`."""
  dataset, model, schedule = experiment.dataset, experiment.model, experiment.batch_schedule
  epoch, row = divmod(int(state.step), schedule.steps)
  indices, weights = (part[row] for part in schedule.batches(epoch))
  columns = data.of_half(dataset, "train", model)
  examples = {name: np.asarray(column[indices]) for name, column in columns.items()}
  examples["x"] = examples["x"].reshape(len(indices), -1)
  batch = steps.read_batch(examples, weights, examples=None, model=model, value_range=dataset.value_range)
  _, noise_key = keys(schedule.seed)
  stop = functools.partial(preemption.stop_at, state, batch, noise_key, workdir / "nan.npz", model=model)
  stop = functools.partial(stop, augment=experiment.augment)
  where = f"step {int(state.step) + 1} (epoch {epoch + 1})"
  distributed.on_first_process(functools.partial(stop, objective=stage.objective.at(state.step), where=where))

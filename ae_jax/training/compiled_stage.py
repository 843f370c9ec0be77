"""Device arrays and compiled functions of each training stage; `build` compiles the functions of a single run.

Training runs in chunks: a chunk consists of the steps that one compiled call runs.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ae_jax import data, evaluators
from ae_jax.data import columns as column_arrays
from ae_jax.data import streams
from ae_jax.data.batch_schedule import evaluation_batches
from ae_jax.data.columns import SHAPED
from ae_jax.runs import logs
from ae_jax.system import distributed
from ae_jax.training import evaluated, preemption, programs, setup, steps
from ae_jax.training.evaluated import Evaluated
from ae_jax.training.state import TrainState, init_state, restart_optimizer


@dataclasses.dataclass(frozen=True)
class DeviceData:
  """Arrays that stay on the devices throughout the training, and the shardings of all other arrays."""

  train: dict[str, jax.Array] | None  # training columns {"x": [N, elements], ...}; None if they are streamed
  evaluated: dict[str, Evaluated]  # "test" and, if the data have a validation set, "validation"
  model_args: tuple  # (noise key,) of a single run; (noise keys [members], masks) of several sweep members
  replicated: jax.sharding.NamedSharding
  batch_sharding: jax.sharding.NamedSharding  # splits each batch of a single run; splits the members of a sweep

  @property
  def columns(self) -> list[Any]:
    """The columns of all halves on the devices."""
    return [self.train, *(half.columns for half in self.evaluated.values())]


@dataclasses.dataclass(frozen=True)
class CompiledStage:
  """The compiled functions of a training stage; arguments that are the same in all calls are bound.

  If sweep members train together, all arrays have a leading member axis.
  """

  restart: Callable  # (state) -> state with a new optimizer state
  train_chunk: Callable  # (state, rows, weights) -> (state, {name: terms [chunk]}, finite [chunk])
  evaluate: Callable  # (state) -> {half: (loss, {name: values [batches, padded batch size, ...]})}
  compile_seconds: float
  peak_bytes: int = 0  # per device, predicted by the compiler; 0 for a single run
  # (state before the chunk, rows, weights): called after a chunk in which a loss or gradient is not finite. For a
  # single run it raises UserError; for sweep members it does nothing, because the other members continue
  fail: Callable = lambda *_: None
  # (this stage, state, (rows, weights), seconds of the chunk) -> the compiled stage to continue with
  tune: Callable = lambda stage, *_: stage


def keys(seed: int) -> tuple[Key[Array, ""], Key[Array, ""]]:
  """Returns two random keys of a run: the key of the initialisation and the key of the noise."""
  init_key, noise_key = jax.random.split(jax.random.key(seed))
  return init_key, noise_key


def place_data(
  experiment: setup.Experiment,
  devices: int,
  rows: jax.sharding.NamedSharding,
  model_args: tuple,
  batch_sharding: jax.sharding.NamedSharding,
) -> DeviceData:
  """Puts the data of an experiment on the devices, except for a streamed training set.

  Args:
    experiment: The experiment.
    devices: Number of devices that share each evaluated batch.
    rows: The sharding of the indices and weights of the evaluated batches.
    model_args: See `DeviceData`.
    batch_sharding: See `DeviceData`.
  """
  dataset, replicated = experiment.dataset, distributed.replicated(batch_sharding.mesh)

  def put(half):
    columns = data.flat_columns(dataset, half, experiment.model)
    return jax.tree.map(lambda column: distributed.put(column, replicated), columns)

  def place(half):
    cut = evaluation_batches(len(getattr(dataset, half)), experiment.batch_schedule.batch_size, devices)
    return Evaluated(put(half), tuple(distributed.put(part, rows) for part in cut), cut[1])

  train = None if dataset.streams else put("train")
  halves = ("test",) if dataset.validation is None else ("test", "validation")
  return DeviceData(train, {half: place(half) for half in halves}, model_args, replicated, batch_sharding)


def chunk_arguments(device_data: DeviceData, model_args: tuple, state: TrainState, rows: Any, weights: Any) -> tuple:
  """Returns the arguments of a compiled `steps.train_chunk`.

  `model_args` is `device_data.model_args`, followed by the hyperparameters of the members in a sweep.
  """
  return (state, device_data.train, rows, weights, *model_args)


def bind_data(
  device_data: DeviceData,
  model_args: tuple,
  padded_batch_size: int,
  train_chunk: Callable,
  evaluations: Mapping[str, Callable],
) -> tuple[Callable, Callable]:
  """Binds the constant arguments of compiled functions.

  Args:
    device_data: See `DeviceData`.
    model_args: See `chunk_arguments`.
    padded_batch_size: Number of rows of a padded batch, counted over all processes.
    train_chunk: The compiled `steps.train_chunk`.
    evaluations: The result of `evaluated.compile_all`.

  Returns:
    `CompiledStage.train_chunk` and `CompiledStage.evaluate`.
  """

  def train(state, *batches):
    batches = jax.tree.map(
      lambda part: distributed.put_rows(part, device_data.batch_sharding, padded_batch_size), batches
    )
    return train_chunk(*chunk_arguments(device_data, model_args, state, *batches))

  return train, evaluated.bind(device_data.evaluated, model_args, evaluations)


def feed(experiment: Any, positions: slice, first: int, last: int) -> Iterator[tuple]:
  """Yields the rows and weights of the chunks `first` to `last` - 1 of a run, each [steps, padded batch size].

  The rows are indices of training examples. For a streamed training set, they are the examples themselves:
  {"x": [steps, padded batch size, elements], ...}. `positions` selects the part of each padded batch that this process
  needs.
  """
  dataset, batch_schedule = experiment.dataset, experiment.batch_schedule
  if dataset.streams:
    columns = data.half_columns(dataset, "train", experiment.model)
    yield from streams.chunks(columns, batch_schedule, first, last, positions)
    return
  chunks_per_epoch = batch_schedule.chunks_per_epoch
  for epoch in range(first // chunks_per_epoch, last // chunks_per_epoch):
    start = max(0, first - epoch * chunks_per_epoch)
    for indices, weights in batch_schedule.chunks(epoch)[start:]:
      yield indices[:, positions], weights[:, positions]


def place_and_init(experiment: setup.Experiment, mesh: jax.sharding.Mesh) -> tuple[DeviceData, TrainState]:
  """Prepares a single run on the devices; each batch is sharded.

  Returns:
    The data on the devices and the initial state.
  """
  config, batch_schedule = experiment.config, experiment.batch_schedule
  replicated = distributed.replicated(mesh)
  init_key, noise_key = jax.jit(functools.partial(keys, batch_schedule.seed), out_shardings=replicated)()
  batch_sharding = distributed.sharded(mesh, axis=1)
  device_data = place_data(experiment, batch_schedule.devices, batch_sharding, (noise_key,), batch_sharding)
  optimizer, ema = experiment.stages[0].optimizer, config.ema_decay > 0
  init = functools.partial(init_state, model=experiment.model, optimizer=optimizer, ema=ema)
  shardings = distributed.state_shardings(mesh, jax.eval_shape(init, init_key), config.parallel_state)
  return device_data, distributed.auto(init, (init_key,), shardings)(init_key)


def build(
  experiment: setup.Experiment,
  device_data: DeviceData,
  workdir: pathlib.Path,
  profile: bool,
  number: int,
  state: TrainState,
) -> CompiledStage:
  """Compiles the functions of a training stage of a single run.

  Args:
    experiment: The experiment.
    device_data: The data of the experiment on the devices; see `place_and_init`.
    workdir: The run folder. If the loss or gradient of a step is not finite, the batch of this step and the state
      before the step are saved there as nan.npz.
    profile: Whether to save a profiler trace of the second chunk in the subfolder profile of `workdir`.
    number: Index of the training stage.
    state: Any state of the run; the functions are compiled for its shapes and shardings.
  """
  start_time = time.perf_counter()
  stage, batch_schedule = experiment.stages[number], experiment.batch_schedule
  shardings = distributed.state_shardings(device_data.replicated.mesh, state, experiment.config.parallel_state)
  compile_chunk = _chunk_compiler(experiment, stage, device_data, state, shardings)
  on_nan = experiment.config.on_nan
  # "stop" may repeat a chunk, so the chunk must not donate its initial state
  train_chunk = compile_chunk() if on_nan == "stop" else compile_chunk(on_nan=on_nan, donate=(0,))
  compile_one = functools.partial(_compile_evaluate, experiment, stage, device_data, state)
  evaluations = evaluated.compile_all(device_data.evaluated, device_data.model_args, state, compile_one)
  bind = functools.partial(bind_data, device_data, device_data.model_args, batch_schedule.padded_batch_size)
  train, evaluate_state = bind(train_chunk, evaluations)

  def compile_guarded_chunk():
    return bind(compile_chunk(on_nan="stop"), evaluations)[0]

  return CompiledStage(
    restart=programs.compile_program(restart_optimizer, (state,), shardings, optimizer=stage.optimizer),
    train_chunk=logs.profiled(train, workdir / "profile") if profile else train,
    evaluate=evaluate_state,
    compile_seconds=time.perf_counter() - start_time,
    fail=functools.partial(_fail, experiment, stage, device_data, workdir, compile_guarded_chunk),
  )


def _chunk_compiler(
  experiment: setup.Experiment, stage: setup.Stage, device_data: DeviceData, state: TrainState, shardings: Any
) -> Callable:
  """Returns a function that compiles `steps.train_chunk`.

  It accepts further keyword arguments of `steps.train_chunk` and `programs.compile_program`.
  """
  config = experiment.config
  arguments = chunk_arguments(device_data, device_data.model_args, state, *_abstract_batches(experiment, device_data))
  return functools.partial(
    programs.compile_program,
    steps.train_chunk,
    arguments,
    (shardings, device_data.replicated, device_data.replicated),
    mode=distributed.MODES[config.parallel],
    optimizer=stage.optimizer,
    microbatches=stage.microbatches,
    ema_decay=config.ema_decay,
    augment=experiment.augment,
    **_static(experiment, stage, device_data, state),
  )


def _compile_evaluate(
  experiment: setup.Experiment, stage: setup.Stage, device_data: DeviceData, state: TrainState, arguments: tuple
) -> Callable:
  """Compiles `steps.evaluate` for its arguments."""
  dataset = experiment.dataset
  return programs.compile_program(
    steps.evaluate,
    arguments,
    device_data.replicated,
    statistics=evaluators.statistics(experiment.evaluators, dataset.value_range, dataset.span),
    **_static(experiment, stage, device_data, state),
  )


def _static(
  experiment: setup.Experiment, stage: setup.Stage, device_data: DeviceData, state: TrainState
) -> dict[str, Any]:
  """Returns the static arguments that `steps.train_chunk` and `steps.evaluate` share."""
  mesh, parallel_state = device_data.replicated.mesh, experiment.config.parallel_state
  return {
    "model": experiment.model,
    "objective": stage.objective,
    "value_range": experiment.dataset.value_range,
    "data_parallel": distributed.build_data_parallel(mesh, state.params, parallel_state),
  }


def _abstract_batches(experiment: setup.Experiment, device_data: DeviceData) -> tuple:
  """Returns the shapes, dtypes and shardings of the rows and weights of a chunk, counted over all processes."""
  shape = (experiment.batch_schedule.chunk, experiment.batch_schedule.padded_batch_size)
  abstract = functools.partial(jax.ShapeDtypeStruct, sharding=device_data.batch_sharding)
  rows = abstract(shape, np.int32)
  if device_data.train is None:  # streamed: the rows are the columns themselves
    columns = data.half_columns(experiment.dataset, "train", experiment.model)
    sizes = {name: (math.prod(column.shape[1:]),) if name in SHAPED else () for name, column in columns.items()}
    rows = {name: abstract((*shape, *sizes[name]), column.dtype) for name, column in columns.items()}
  return rows, abstract(shape, np.float32)


def _fail(
  experiment: setup.Experiment,
  stage: setup.Stage,
  device_data: DeviceData,
  workdir: pathlib.Path,
  compile_guarded_chunk: Callable[[], Callable],
  state: TrainState,
  *batches: Any,
) -> None:
  """Repeats a chunk up to the first step with a non-finite loss or gradient, and calls `_fail_after`."""
  last_finite_state, *_ = compile_guarded_chunk()(state, *batches)
  _fail_after(experiment, stage, distributed.fetch(last_finite_state, device_data.replicated.mesh), workdir)


def _fail_after(experiment: setup.Experiment, stage: setup.Stage, state: TrainState, workdir: pathlib.Path) -> None:
  """Saves the step that follows `state` as nan.npz in `workdir`, and raises UserError.

  The loss or the gradient of this step is not finite.
  """
  dataset, model, batch_schedule = experiment.dataset, experiment.model, experiment.batch_schedule
  epoch, row = divmod(int(state.step), batch_schedule.steps)
  indices, weights = (part[row] for part in batch_schedule.batches(epoch))
  columns = data.half_columns(dataset, "train", model)
  examples = column_arrays.flat({name: np.asarray(column[indices]) for name, column in columns.items()})
  batch = steps.read_batch(examples, weights, examples=None, model=model, value_range=dataset.value_range)
  _, noise_key = keys(batch_schedule.seed)
  where = f"step {int(state.step) + 1} (epoch {epoch + 1})"
  stop = functools.partial(preemption.fail_not_finite, state, batch, noise_key, workdir / "nan.npz", model=model)
  stop = functools.partial(stop, objective=stage.objective.at(state.step), where=where, augment=experiment.augment)
  distributed.on_first_process(stop)

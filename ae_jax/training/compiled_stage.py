"""Compiled functions of each training stage; `build` compiles the functions of a single run.

Training runs in chunks: a chunk consists of the steps that one compiled call runs.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ae_jax import data, evaluators
from ae_jax.data import columns as column_arrays
from ae_jax.data.columns import SHAPED
from ae_jax.runs import logs
from ae_jax.system import distributed
from ae_jax.training import device_arrays, evaluation, guard, preemption, programs, setup, steps
from ae_jax.training.device_arrays import DeviceData
from ae_jax.training.state import TrainState, restart_optimizer


@dataclasses.dataclass(frozen=True)
class CompiledStage:
  """The compiled functions of a training stage; arguments that are the same in all calls are bound.

  If sweep members train together, all arrays have a leading member axis.
  """

  restart: Callable  # (state) -> state with a new optimizer state
  train_chunk: Callable  # (state, rows, weights) -> (state, {name: terms [chunk]}, finite [chunk])
  evaluate: Callable  # (state) -> {split: (loss, {name: values [batches, padded batch size, ...]})}
  compile_seconds: float
  peak_bytes: int = 0  # per device, predicted by the compiler; 0 for a single run
  # (state before the chunk, rows, weights): called after a chunk in which a loss or gradient is not finite. For a
  # single run it raises UserError; for sweep members it does nothing, because the other members continue
  fail: Callable = lambda *_: None
  # (this stage, state, (rows, weights), seconds of the chunk) -> the compiled stage to continue with
  tune: Callable = lambda stage, *_: stage


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
    device_data: The data of the experiment on the devices; see `device_arrays.place_and_init`.
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
  # "stop" and "halve" may repeat a chunk, so the chunk must not donate its initial state
  options = {"stop": {}, "skip": {"on_nan": "skip", "donate": (0,)}, "halve": {"on_nan": "halve"}}
  train_chunk = compile_chunk(**options[on_nan])
  compile_one = functools.partial(_compile_evaluate, experiment, stage, device_data, state)
  evaluations = evaluation.compile_all(device_data.evaluated, device_data.model_args, state, compile_one)
  bind = functools.partial(device_arrays.bind, device_data, device_data.model_args, batch_schedule.padded_batch_size)
  train, evaluate_state = bind(train_chunk, evaluations)
  train = guard.halving(train) if on_nan == "halve" else train

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

  The function accepts further keyword arguments of `steps.train_chunk` and `programs.compile_program`.
  """
  config = experiment.config
  arguments = device_arrays.chunk_arguments(
    device_data, device_data.model_args, state, *_abstract_batches(experiment, device_data)
  )
  return functools.partial(
    programs.compile_program,
    steps.train_chunk,
    arguments,
    (shardings, device_data.replicated, device_data.replicated),
    mode=distributed.MODES[config.parallel],
    optimizer=stage.optimizer,
    microbatches=stage.microbatches,
    ema_decay=config.ema_decay,
    freeze=config.freeze,
    augment=experiment.augment,
    **_static(experiment, stage, device_data, state),
  )


def _compile_evaluate(
  experiment: setup.Experiment, stage: setup.Stage, device_data: DeviceData, state: TrainState, arguments: tuple
) -> Callable:
  """Compiles `evaluation.evaluate` for its arguments."""
  dataset = experiment.dataset
  return programs.compile_program(
    evaluation.evaluate,
    arguments,
    device_data.replicated,
    statistics=evaluators.statistics(experiment.evaluators, dataset.value_range, dataset.span),
    **_static(experiment, stage, device_data, state),
  )


def _static(
  experiment: setup.Experiment, stage: setup.Stage, device_data: DeviceData, state: TrainState
) -> dict[str, Any]:
  """Returns the static arguments that `steps.train_chunk` and `evaluation.evaluate` share."""
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
  if device_data.train is None:  # streamed: the rows hold the examples instead of their indices
    columns = data.split_columns(experiment.dataset, "train", experiment.model)
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
  last_finite_state, *_ = compile_guarded_chunk()(guard.at_smallest_rate(state), *batches)
  _fail_after(experiment, stage, distributed.fetch(last_finite_state, device_data.replicated.mesh), workdir)


def _fail_after(experiment: setup.Experiment, stage: setup.Stage, state: TrainState, workdir: pathlib.Path) -> None:
  """Saves the step that follows `state` as nan.npz in `workdir`, and raises UserError.

  The loss or the gradient of this step is not finite.
  """
  dataset, model, batch_schedule = experiment.dataset, experiment.model, experiment.batch_schedule
  epoch, row = divmod(int(state.step), batch_schedule.steps)
  indices, weights = (part[row] for part in batch_schedule.batches(epoch))
  columns = data.split_columns(dataset, "train", model)
  examples = column_arrays.flat({name: np.asarray(column[indices]) for name, column in columns.items()})
  batch = steps.read_batch(examples, weights, examples=None, model=model, value_range=dataset.value_range)
  _, noise_key = device_arrays.keys(batch_schedule.seed)
  where = f"step {int(state.step) + 1} (epoch {epoch + 1})"
  stop = functools.partial(preemption.fail_not_finite, state, batch, noise_key, workdir / "nan.npz", model=model)
  stop = functools.partial(stop, objective=stage.objective.at(state.step), where=where, augment=experiment.augment)
  advice = {"advice": preemption.CHECK_THE_DATA} if experiment.config.on_nan == "halve" else {}
  distributed.on_first_process(functools.partial(stop, **advice))

"""Compiled functions of a pack: a group of sweep members that train together in one compiled program.

The states of the members are stacked along a leading axis, which is split over the devices. A device computes its
members side by side (`jax.vmap`) or in turn (`jax.lax.map`). The results of a member are bitwise independent of the
other members.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ae_jax import evaluators, models
from ae_jax.data.ranges import Span
from ae_jax.evaluators import pca
from ae_jax.models import cost, masking
from ae_jax.sweep import grid, member_steps
from ae_jax.sweep.member_steps import without_step
from ae_jax.system import distributed
from ae_jax.training import device_arrays, evaluation, guard, programs, warm_start
from ae_jax.training.compiled_stage import CompiledStage
from ae_jax.training.device_arrays import DeviceData
from ae_jax.training.setup import Experiment, Stage
from ae_jax.training.state import TrainState, init_state
from ae_jax.types import AnyArray

Members = Sequence[grid.Member]


def _in_turn(function: Callable) -> Callable:
  return lambda *args: jax.lax.map(lambda member_args: function(*member_args), args)


# How a device computes its members: name -> transformation of a function of one member into a function of all members.
WAYS = {"side by side": jax.vmap, "in turn": _in_turn}


def pad_to_devices(members: list[grid.Member], mesh: Mesh) -> list[grid.Member]:
  """Returns the members, with the last one repeated so that each device has the same number of members."""
  return members + members[-1:] * (-len(members) % mesh.size)


def default_way(mesh: Mesh) -> str:
  """Returns the key of WAYS that is usually faster: "in turn" on CPU, "side by side" elsewhere.

  Batched matrix products are slower than single ones on CPU. On 2 cores, "side by side" has 0.8 of the speed of
  "in turn" for dense models, and 0.7 for CNNs (measured by experiments/sweep).
  """
  return "in turn" if mesh.devices.flat[0].platform == "cpu" else "side by side"


def place_data(members: Members, mesh: Mesh) -> DeviceData:
  """Puts the data, noise keys and latent masks on the devices; `members` is a result of `pad_to_devices`."""
  experiment, by_member = grid.widest(members).experiment, distributed.sharded(mesh, axis=0)
  noise_keys = [device_arrays.keys(member.experiment.config.seed)[1] for member in members]
  noise_keys = jax.random.wrap_key_data(np.stack([jax.random.key_data(key) for key in noise_keys]))
  model_args = distributed.put((noise_keys, member_steps.latent_masks(members, grid.widest(members))), by_member)
  return device_arrays.place_data(experiment, 1, distributed.replicated(mesh), model_args, by_member)


def feed(members: Members, first: int, last: int) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields the rows and weights of the chunks `first` to `last` - 1, each [members, steps, padded batch size].

  A chunk consists of the steps that one compiled call runs. Members with the same seed share the data order. See
  `device_arrays.feed`.
  """
  by_seed = {member.experiment.batch_schedule.seed: member.experiment for member in members}
  feeds = [device_arrays.feed(experiment, slice(None), first, last) for experiment in by_seed.values()]
  for chunks in zip(*feeds, strict=True):
    chunk_of_seed = dict(zip(by_seed, chunks, strict=True))
    member_chunks = [chunk_of_seed[member.experiment.batch_schedule.seed] for member in members]
    yield tuple(np.stack(part) for part in zip(*member_chunks, strict=True))


def start(members: Members, device_data: DeviceData) -> TrainState:
  """Returns the stacked initial states; each member is initialised at its own latent size, then padded with zeros."""
  experiment = grid.widest(members).experiment
  init, ema = distributed.jit_once(_init, static_argnames=("model", "ema")), experiment.config.ema_decay > 0
  keys = [device_arrays.keys(member.experiment.config.seed)[0] for member in members]
  principal = functools.cache(functools.partial(pca.principal_components, experiment.dataset))
  states = []
  for key, member in zip(keys, members, strict=True):
    state = device_arrays.fitted(init(key, member.experiment.model, ema), member.experiment.model, principal)
    states.append(warm_start.applied(state, member.experiment))
  state = _pad_and_stack(states, _abstract_initial_state(experiment.model, ema), members, device_data)
  return restart(experiment.stages[0], device_data)(state)


def restart(stage: Stage, device_data: DeviceData) -> Callable[[TrainState], TrainState]:
  """Returns a function that replaces the optimizer states of all members by new ones, for the start of a stage."""

  def function(state: TrainState) -> TrainState:
    return dataclasses.replace(state, opt_state=jax.vmap(stage.optimizer.init)(state.params))

  return jax.jit(function, out_shardings=_shardings(device_data))


def build(members: Members, device_data: DeviceData, number: int, state: TrainState, way: str) -> CompiledStage:
  """Compiles the functions of a training stage for all members.

  Args:
    members: The members, as returned by `pad_to_devices`.
    device_data: The result of `place_data`.
    number: Index of the training stage.
    state: State of all members; the functions are compiled for its shapes.
    way: A key of WAYS.
  """
  start_time = time.perf_counter()
  experiment = grid.widest(members).experiment
  stage, batches = experiment.stages[number], experiment.batch_schedule
  numbers = _stack([grid.numbers(member.experiment)[number] for member in members])
  model_args = (*device_data.model_args, distributed.put(numbers, device_data.batch_sharding))
  train_chunk = _compile_train_chunk(experiment, stage, device_data, model_args, state, count=len(members), way=way)
  compile_one = functools.partial(_compile_evaluate, experiment, stage, device_data, way)
  evaluations = evaluation.compile_all(device_data.evaluated, model_args, state, compile_one)
  train, evaluate = device_arrays.bind(device_data, model_args, batches.padded_batch_size, train_chunk, evaluations)
  return CompiledStage(
    restart=restart(stage, device_data),
    train_chunk=guard.halving(train) if experiment.config.on_nan == "halve" else train,
    evaluate=evaluate,
    compile_seconds=time.perf_counter() - start_time,
    peak_bytes=_peak_bytes(members, device_data, state, train_chunk, evaluations),
  )


def _compile_train_chunk(
  experiment: Experiment,
  stage: Stage,
  device_data: DeviceData,
  model_args: tuple,
  state: TrainState,
  *,
  count: int,
  way: str,
) -> Any:
  batches = experiment.batch_schedule
  shape = (count, batches.chunk, batches.padded_batch_size)
  rows_and_weights = [
    jax.ShapeDtypeStruct(shape, dtype, sharding=device_data.batch_sharding) for dtype in (np.int32, np.float32)
  ]
  return programs.compile_program(
    member_steps.train_chunk,
    device_arrays.chunk_arguments(device_data, model_args, state, *rows_and_weights),
    (_shardings(device_data), device_data.batch_sharding, device_data.batch_sharding),
    donate=() if experiment.config.on_nan == "halve" else (0,),
    over=WAYS[way],
    model=experiment.model,
    value_range=experiment.dataset.value_range,
    objective=stage.objective,
    optimizer_factory=stage.optimizer_factory,
    microbatches=stage.microbatches,
    ema_decay=experiment.config.ema_decay,
    freeze=experiment.config.freeze,
    on_nan=None if experiment.config.on_nan == "stop" else experiment.config.on_nan,
    augment=experiment.augment,
  )


def _compile_evaluate(experiment: Experiment, stage: Stage, device_data: DeviceData, way: str, arguments: tuple) -> Any:
  dataset = experiment.dataset
  return programs.compile_program(
    member_steps.evaluate,
    arguments,
    device_data.batch_sharding,
    over=WAYS[way],
    model=experiment.model,
    value_range=dataset.value_range,
    objective=stage.objective,
    statistics=evaluators.statistics(experiment.evaluators, dataset.value_range, dataset.span),
  )


def _peak_bytes(
  members: Members, device_data: DeviceData, state: TrainState, train_chunk: Any, evaluations: Mapping[str, Any]
) -> int:
  """Returns the bytes that each device needs for data, states and programs, predicted by the compiler."""
  size, rest = device_data.batch_sharding.mesh.size, dataclasses.replace(state, step=None, params=None)
  sizes = {name: _bytes(split.columns) for name, split in device_data.evaluated.items()}
  held_out = sum(sizes.values())
  training = _program_bytes(train_chunk) + held_out
  evaluating = max(_program_bytes(program) + held_out - sizes[name] for name, program in evaluations.items())
  evaluating += _bytes(device_data.train) + _bytes(rest) // size
  saved = state_bytes(grid.widest(members)) * len(members) if size > 1 else 0  # see `to_save`
  return max(training, evaluating) + saved


def _program_bytes(compiled: Any) -> int:
  """Returns the bytes that a compiled function needs per device, including its arguments and results."""
  sizes = compiled.memory_analysis()
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + results


def _bytes(tree: Any) -> int:
  return cost.bytes_of(jax.tree.leaves(tree))


def join(members: Members, states: Sequence[TrainState], device_data: DeviceData) -> TrainState:
  """Stacks the states of several members, all at the same step, into one state; inverse of `member_states`."""
  return _pad_and_stack(states, _abstract_last_state(grid.widest(members).experiment), members, device_data)


def _pad_and_stack(
  states: Sequence[TrainState], abstract: TrainState, members: Members, device_data: DeviceData
) -> TrainState:
  """Pads the states of members to the shapes of `abstract`, stacks the states, and puts the result on the devices."""
  pairs = zip(states, members, strict=True)
  padded = [masking.pad(jax.tree.map(np.asarray, state), abstract, member.latent) for state, member in pairs]
  return from_saved(dataclasses.replace(_stack(padded), step=states[0].step), device_data)


def to_save(state: TrainState, count: int) -> TrainState:
  """Copies the state of the first `count` members to the first device, so any number of devices can restore it."""
  first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  trimmed = jax.tree.map(lambda leaf: jax.device_put(leaf, first)[:count], without_step(state))
  return dataclasses.replace(trimmed, step=jax.device_put(state.step, first))


def from_saved(state: TrainState, device_data: DeviceData) -> TrainState:
  """Puts a saved state on all devices, with members repeated as in `pad_to_devices`; inverse of `to_save`."""
  stacked = jax.tree.map(np.asarray, without_step(state))
  missing = -len(jax.tree.leaves(stacked)[0]) % device_data.batch_sharding.mesh.size
  padded = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], missing, 0)]), stacked)
  return dataclasses.replace(
    distributed.put(padded, device_data.batch_sharding), step=distributed.put(state.step, device_data.replicated)
  )


def member_states(members: Members, state: TrainState) -> Iterator[TrainState]:
  """Yields the state of each member as NumPy arrays, without the padding of the latent size."""
  stacked = jax.tree.map(np.asarray, without_step(state))
  for index, member in enumerate(members):
    padded = jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), stacked)
    unpadded = masking.unpad(padded, without_step(_abstract_last_state(member.experiment)), member.latent)
    yield dataclasses.replace(unpadded, step=np.asarray(state.step))


def member_values(member: grid.Member, values: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
  """Removes the padded latent units from the evaluation results {name: [batches, B, ...]} of a member."""
  experiment = member.experiment
  shapes = _statistic_shapes(
    experiment.model, experiment.evaluators, experiment.dataset.value_range, experiment.dataset.span
  )
  like = {name: jax.ShapeDtypeStruct(rows.shape[:2] + shapes[name], rows.dtype) for name, rows in values.items()}
  return masking.unpad(values, like, member.latent)


def state_bytes(member: grid.Member) -> int:
  """Returns the size of a member's state in bytes, without the padding of the latent size and without the step."""
  return _bytes(without_step(_abstract_last_state(member.experiment)))


def abstract_member_state(member: grid.Member) -> TrainState:
  """Returns the shapes and dtypes of a member's state on the first device, without the padding of the latent size."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = _abstract_last_state(member.experiment)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract)


def _shardings(device_data: DeviceData) -> TrainState:
  """Returns the shardings of a stacked state: members are split over the devices, and the step is replicated."""
  split = {field.name: device_data.batch_sharding for field in dataclasses.fields(TrainState)}
  return TrainState(**split | {"step": device_data.replicated})


def _init(key: jax.Array, model: models.Model, ema: bool) -> TrainState:
  """Returns the initial state of a member, without an optimizer state."""
  return init_state(key, model=model, optimizer=optax.identity(), ema=ema)


@functools.lru_cache(maxsize=1024)
def _abstract_initial_state(model: models.Model, ema: bool) -> TrainState:
  return jax.eval_shape(functools.partial(_init, model=model, ema=ema), jax.random.key(0))


def _abstract_last_state(experiment: Experiment) -> TrainState:
  """Returns the shapes and dtypes of a member's state in the last training stage."""
  abstract = _abstract_initial_state(experiment.model, experiment.config.ema_decay > 0)
  opt_state = jax.eval_shape(experiment.stages[-1].optimizer.init, abstract.params)
  return dataclasses.replace(abstract, opt_state=opt_state)


@functools.lru_cache(maxsize=1024)
def _statistic_shapes(
  model: models.Model, active: tuple[evaluators.Evaluator, ...], value_range: str, span: Span
) -> dict[str, tuple[int, ...]]:
  """Returns {name: shape} of the statistics that the evaluators compute for one example."""
  statistics = functools.partial(evaluators.statistics(active, value_range, span), model)
  abstract = jax.eval_shape(statistics, model.abstract_variables(), *cost.abstract_batch(model, 1))
  return {name: rows.shape[1:] for name, rows in abstract.items()}


def _stack(trees: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

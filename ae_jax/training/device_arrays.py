"""Arrays of a run on the devices: its data and its initial state, and the batches that are fed to them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jaxtyping import Array, Key

from ae_jax import data, models
from ae_jax.data import streams
from ae_jax.data.batch_schedule import evaluation_batches
from ae_jax.evaluators import pca
from ae_jax.system import distributed
from ae_jax.training import evaluation, programs, setup, warm_start
from ae_jax.training.evaluation import Evaluated
from ae_jax.training.state import TrainState, init_state


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
    """Device arrays of all splits."""
    return [self.train, *(each.columns for each in self.evaluated.values())]


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

  def put(columns):
    return jax.tree.map(lambda column: distributed.put(column, replicated), columns)

  def place(split):
    cut = evaluation_batches(len(getattr(dataset, split)), experiment.batch_schedule.batch_size, devices)
    columns = put(data.evaluated_columns(dataset, split, experiment.model))
    return Evaluated(columns, tuple(distributed.put(part, rows) for part in cut), cut[1])

  train = None if dataset.streams else put(data.flat_columns(dataset, "train", experiment.model))
  names = ("test",) if dataset.validation is None else ("test", "validation")
  return DeviceData(train, {split: place(split) for split in names}, model_args, replicated, batch_sharding)


def place_and_init(experiment: setup.Experiment, mesh: jax.sharding.Mesh) -> tuple[DeviceData, TrainState]:
  """Places the data of a single run on the devices, with batches sharded, and initialises its state.

  Returns:
    The data on the devices, and the initial state. The model state is not yet fitted to the data; see `fit_to_data`.
  """
  config, batch_schedule = experiment.config, experiment.batch_schedule
  replicated = distributed.replicated(mesh)
  init_key, noise_key = _placed_keys(batch_schedule.seed, replicated, programs.settings())
  batch_sharding = distributed.sharded(mesh, axis=1)
  device_data = place_data(experiment, batch_schedule.devices, batch_sharding, (noise_key,), batch_sharding)
  optimizer, ema = experiment.stages[0].optimizer, config.ema_decay > 0
  static = {"model": experiment.model, "optimizer": optimizer, "ema": ema}
  shardings = distributed.state_shardings(mesh, _abstract_state(**static), config.parallel_state)
  init = programs.compile_program(init_state, (init_key,), shardings, mode=distributed.auto, **static)
  return device_data, init(init_key)


@functools.lru_cache(maxsize=64)
def _placed_keys(
  seed: int, replicated: jax.sharding.NamedSharding, settings: tuple
) -> tuple[Key[Array, ""], Key[Array, ""]]:
  """Returns the random keys for `seed`, placed on the devices.

  `settings` is in the cache key because JAX settings change the random keys.
  """
  del settings
  return jax.jit(functools.partial(keys, seed), out_shardings=replicated)()


@functools.lru_cache(maxsize=16)
def _abstract_state(**static: Any) -> TrainState:
  """Returns the shapes and dtypes of the result of `init_state`."""
  return jax.eval_shape(functools.partial(init_state, **static), jax.random.key(0))


def fit_to_data(state: TrainState, experiment: setup.Experiment) -> TrainState:
  """Returns the state from which a single run starts.

  The model state is fitted to the training examples; then `warm_start.applied` inserts the arrays of a trained run.
  """
  if experiment.model.principal_components:
    principal = functools.partial(pca.principal_components, experiment.dataset)
    model_state = fitted(state, experiment.model, principal).model_state
    placed = jax.tree.map(lambda new, old: distributed.put(new, old.sharding), model_state, state.model_state)
    state = dataclasses.replace(state, model_state=placed)
  return warm_start.applied(state, experiment)


def fitted(
  state: TrainState, model: models.Model, principal: Callable[[int], models.PrincipalComponents]
) -> TrainState:
  """Returns an initial state whose model state is fitted to the training examples.

  All processes get the model state of the first process.

  Args:
    state: The initial state.
    model: The model.
    principal: Function that returns the given number of principal components of the training examples.
  """
  if not model.principal_components:
    return state
  model_state = model.fit_state(state.model_state, principal(model.principal_components))
  return dataclasses.replace(state, model_state=distributed.from_first_process(model_state))


def chunk_arguments(device_data: DeviceData, model_args: tuple, state: TrainState, rows: Any, weights: Any) -> tuple:
  """Returns the arguments of a compiled `steps.train_chunk`.

  `model_args` is `device_data.model_args`, followed by the hyperparameters of the members in a sweep.
  """
  return (state, device_data.train, rows, weights, *model_args)


def bind(
  device_data: DeviceData,
  model_args: tuple,
  padded_batch_size: int,
  train_chunk: Callable,
  evaluations: Mapping[str, Callable],
) -> tuple[Callable, Callable]:
  """Binds the constant arguments of compiled functions.

  Args:
    device_data: The data on the devices.
    model_args: See `chunk_arguments`.
    padded_batch_size: Number of rows of a padded batch, counted over all processes.
    train_chunk: The compiled `steps.train_chunk`.
    evaluations: The result of `evaluation.compile_all`.

  Returns:
    `train_chunk` and `evaluate` of a `compiled_stage.CompiledStage`.
  """

  def train(state, *batches):
    batches = jax.tree.map(
      lambda part: distributed.put_rows(part, device_data.batch_sharding, padded_batch_size), batches
    )
    return train_chunk(*chunk_arguments(device_data, model_args, state, *batches))

  return train, evaluation.bind(device_data.evaluated, model_args, evaluations)


def feed(experiment: Any, positions: slice, first: int, last: int) -> Iterator[tuple]:
  """Yields the rows and weights of the chunks `first` to `last` - 1 of a run, each [steps, padded batch size].

  The rows are indices of training examples. For a streamed training set, they are the examples themselves:
  {"x": [steps, padded batch size, elements], ...}. `positions` selects the part of each padded batch that this process
  needs.
  """
  dataset, batch_schedule = experiment.dataset, experiment.batch_schedule
  if dataset.streams:
    columns = data.split_columns(dataset, "train", experiment.model)
    yield from streams.chunks(columns, batch_schedule, first, last, positions)
    return
  chunks_per_epoch = batch_schedule.chunks_per_epoch
  for epoch in range(first // chunks_per_epoch, last // chunks_per_epoch):
    start = max(0, first - epoch * chunks_per_epoch)
    for indices, weights in batch_schedule.chunks(epoch)[start:]:
      yield indices[:, positions], weights[:, positions]

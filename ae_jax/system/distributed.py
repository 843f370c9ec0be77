"""Device meshes, array shardings, compilation for several devices, and communication between processes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from ae_jax.system.data_parallel import AXIS, DataParallel
from ae_jax.types import Params


def build_data_parallel(mesh: Mesh, params: Params, state: str = "replicated") -> DataParallel:
  """Returns the collective operations of a training step on a mesh.

  Args:
    mesh: Mesh of the devices.
    params: Parameters, or their shapes.
    state: "replicated" or "sharded": how the devices store the parameters and the optimizer state.
  """
  cuts = tuple(axis_to_shard(leaf.shape, mesh.size) for leaf in jax.tree.leaves(params))
  return DataParallel(mesh.size, cuts if state == "sharded" and mesh.size > 1 else ())


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of the devices with the single axis "data"; the default is all devices of all processes."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that replicates an array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh, axis: int | None) -> NamedSharding:
  """Returns the sharding that splits an array over the devices along `axis`; None replicates the array."""
  return NamedSharding(mesh, _spec(axis))


def state_shardings(mesh: Mesh, state: Any, kind: str) -> Any:
  """Returns a `TrainState` of shardings, one for each array of the training state.

  The model state is always replicated, because each device computes it from sums over all examples.

  Args:
    mesh: Mesh of the devices.
    state: `TrainState` of arrays, or of their shapes.
    kind: "replicated" or "sharded". The latter splits each array along its longest axis whose length is a multiple of
      the number of devices; arrays without such an axis are replicated.
  """
  axis = {"replicated": lambda shape: None, "sharded": lambda shape: axis_to_shard(shape, mesh.size)}[kind]
  shardings = jax.tree.map(lambda leaf: sharded(mesh, axis(leaf.shape)), state)
  model_state = jax.tree.map(lambda leaf: replicated(mesh), state.model_state)
  return dataclasses.replace(shardings, model_state=model_state)


def is_in_host_memory(array: Any) -> bool:
  """Returns whether a whole array is in the host memory of this process: a NumPy array, or a JAX array on CPUs."""
  if not isinstance(array, jax.Array):
    return True
  return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def put(array: PyTree, placement: jax.sharding.Sharding) -> PyTree:
  """Copies an array to the devices with the sharding `placement`.

  Each process must hold the whole array, and copies the shards of its own devices. In a single process, `array` may be
  a pytree.
  """
  if placement.is_fully_addressable:
    return jax.device_put(array, placement)
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, placement, lambda index: array[index])


def put_rows(
  rows: Shaped[np.ndarray, "steps local ..."], placement: NamedSharding, padded_batch_size: int
) -> Shaped[Array, "steps padded_batch ..."]:
  """Returns a sharded array of whole padded batches. Each process passes only the rows of its own devices."""
  if placement.is_fully_addressable:
    return jax.device_put(rows, placement)
  return jax.make_array_from_process_local_data(placement, rows, (rows.shape[0], padded_batch_size, *rows.shape[2:]))


def local_rows(placement: NamedSharding, padded_batch_size: int) -> slice:
  """Returns the slice of the rows of a padded batch that the devices of this process hold."""
  indices = placement.addressable_devices_indices_map((1, padded_batch_size)).values()
  starts, stops = zip(*(index[1].indices(padded_batch_size)[:2] for index in indices), strict=True)
  return slice(min(starts), max(stops))


def fetch(tree: PyTree, mesh: Mesh) -> PyTree:
  """Returns sharded arrays as whole NumPy arrays, in every process."""
  return jax.tree.map(np.asarray, _replicate(replicated(mesh))(tree))


@functools.lru_cache(maxsize=16)
def _replicate(placement: NamedSharding) -> Callable[[PyTree], PyTree]:
  return jax.jit(lambda tree: tree, out_shardings=placement)


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
  """Connects the processes of a run. Call this function before any other use of JAX.

  If one process ends, JAX ends all other processes, immediately or after 30 seconds without a heartbeat. Arguments that
  are None are read from the environment of a cluster (Slurm, Cloud TPU, ...).

  Args:
    coordinator: Address "host:port" of the first process.
    processes: Number of processes.
    process: Index of this process.

  Raises:
    RuntimeError: The processes could not connect.
    ValueError: An argument is None and the environment does not define its value.
  """
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=30)


def global_min(number: float | int) -> float | int:
  """Returns the minimum of a number over all processes."""
  if jax.process_count() == 1:
    return number
  return multihost_utils.process_allgather(np.float32(number)).min().item()


def all_processes(flag: bool) -> bool:
  """Returns whether the flag is true in all processes."""
  return bool(global_min(flag))


class FailedElsewhere(Exception):
  """Raised in all other processes if an action of the first process failed; see `on_first_process`."""


def from_first_process(tree: PyTree) -> PyTree:
  """Returns the arrays of the first process, in every process."""
  return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def on_first_process(action: Callable[[], object]) -> None:
  """Calls `action()` in the first process while the other processes wait.

  If `action` raises an exception, the first process raises this exception, and the other processes raise
  FailedElsewhere.
  """
  failure = None
  if jax.process_index() == 0:
    try:
      action()
    except Exception as error:
      failure = error
  if not all_processes(failure is None):
    raise failure or FailedElsewhere("the first process failed; see the error message of that process")


def jit(
  function: Callable[..., Any], arguments: Sequence[PyTree], results: PyTree, donate: Sequence[int] = ()
) -> Callable[..., Any]:
  """Compiles a per-device function with `shard_map` and `jax.jit`.

  Args:
    function: Function that each device calls with its shards of the arguments.
    arguments: Example arguments: arrays, or `jax.ShapeDtypeStruct` with shardings. The compiled function accepts only
      arguments of the same shapes, dtypes and shardings.
    results: Shardings of the results, as a pytree or a prefix of it.
    donate: Indices of the arguments whose memory the results may reuse.
  """
  mesh = _mesh_of(results)
  if mesh.size > 1:
    specs = [jax.tree.map(lambda placement: placement.spec, tree) for tree in (_placements(arguments), results)]
    function = jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
  return auto(function, arguments, results, donate)


def auto(
  function: Callable[..., Any], arguments: Sequence[PyTree], results: PyTree, donate: Sequence[int] = ()
) -> Callable[..., Any]:
  """Compiles a function of whole arrays that runs once. The compiler partitions it. For the arguments see `jit`."""
  return jit_once(function, out_shardings=results, donate_argnums=donate).lower(*arguments).compile()


def jit_once(function: Callable[..., Any], **options: Any) -> jax.stages.Wrapped:
  """Returns `jax.jit(function, **options)` for a function that runs once, such as the initialisation of a model.

  On CPU, random keys are hashed by code that takes three times as long to compile with all optimizations, and gives the
  same bits.
  """
  fewer = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
  return jax.jit(function, compiler_options=fewer, **options)


def pmap(
  function: Callable[..., Any], arguments: Sequence[PyTree], results: PyTree, donate: Sequence[int] = ()
) -> Callable[..., Any]:
  """Compiles a per-device function with `jax.pmap`. For the arguments see `jit`.

  All results must be replicated, and `donate` is ignored.
  """
  del donate
  mesh = _mesh_of(results)
  axes = tuple(_axis(placement) for placement in jax.tree.leaves(_placements(arguments)))
  tree = jax.tree.structure(arguments)
  mapped = jax.pmap(
    lambda *leaves: function(*jax.tree.unflatten(tree, leaves)),
    AXIS,
    in_axes=axes,
    out_axes=None,
    devices=list(mesh.devices.flat),
  )

  def call(*arguments: PyTree) -> PyTree:
    leaves = [
      leaf if axis is None else leaf.reshape(*leaf.shape[:axis], mesh.size, -1, *leaf.shape[axis + 1 :])
      for leaf, axis in zip(jax.tree.leaves(arguments), axes, strict=True)
    ]
    return jax.device_put(mapped(*leaves), results)

  return call


# config.parallel -> function that compiles a per-device function
MODES = {"jit": jit, "pmap": pmap}


def _placements(arguments: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: leaf.sharding, arguments)


def _mesh_of(placements: PyTree) -> Mesh:
  return jax.tree.leaves(placements)[0].mesh


def _axis(placement: NamedSharding) -> int | None:
  """Returns the axis that a sharding splits, or None if it replicates the array."""
  return next((axis for axis, name in enumerate(placement.spec) if name == AXIS), None)


def _spec(axis: int | None) -> PartitionSpec:
  return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)


def axis_to_shard(shape: Sequence[int], size: int) -> int | None:
  """Returns the longest axis whose length is a multiple of `size` (the first one if several are equal), or None."""
  axes = [axis for axis, side in enumerate(shape) if side % size == 0 and side]
  return max(axes, key=lambda axis: (shape[axis], -axis), default=None)

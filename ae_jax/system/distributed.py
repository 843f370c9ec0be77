"""Where arrays live, and what the devices of a step tell each other: two collectives, whatever the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXIS = "data"  # of the mesh, and of the collectives


@dataclasses.dataclass(frozen=True)
class DataParallel:
  """The devices that share a step, as each of them sees the others from inside it.

  `cuts` says for each leaf of the parameters along which axis it is cut between the devices, or None where every
  device holds it whole; () stands for all whole.
  """

  size: int = 1
  cuts: tuple[int | None, ...] = ()

  def first_row(self, rows):
    """The number, in the whole batch, of the first of this device's rows."""
    return 0 if self.size == 1 else lax.axis_index(AXIS) * rows

  def all_gather_params(self, params):
    """The whole parameters, of which the devices hold parts: one gathering of all of them."""
    leaves, tree = jax.tree.flatten(params)
    parts = [leaf for leaf, cut in self._with_cuts(leaves) if cut is not None]
    if not parts:
      return params
    rows = lax.all_gather(jnp.concatenate([part.ravel() for part in parts]), AXIS)  # [size, numbers]
    pieces = iter(jnp.split(rows, np.cumsum([part.size for part in parts])[:-1], axis=1))
    joined = [leaf if cut is None else _join(next(pieces), leaf.shape, cut) for leaf, cut in self._with_cuts(leaves)]
    return tree.unflatten(joined)

  def own_part(self, params):
    """Returns this device's part of whole parameters; the inverse of `all_gather_params`."""

    def part(leaf, cut):
      size = leaf.shape[cut] // self.size
      return lax.dynamic_slice_in_dim(leaf, lax.axis_index(AXIS) * size, size, cut)

    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten([leaf if cut is None else part(leaf, cut) for leaf, cut in self._with_cuts(leaves)])

  def reduce_gradients(self, gradient, others):
    """This device's part of the gradient, and the others, both summed over the devices: one reduction of all.

    But two where leaves that are not cut are so large that sending them to each device of many would cost more.
    """
    if self.size == 1:
      return gradient, others
    leaves, tree = jax.tree.flatten(gradient)
    rows = [_rows(leaf, cut, self.size) for leaf, cut in self._with_cuts(leaves) if cut is not None]
    kept, unravel = ravel_pytree(([leaf for leaf, cut in self._with_cuts(leaves) if cut is None], others))
    pieces, alone = [], self.size * kept.size > sum(part.size for part in rows)
    if rows:
      columns = rows if alone else [*rows, jnp.broadcast_to(kept, (self.size, kept.size))]
      mine = lax.psum_scatter(jnp.concatenate(columns, axis=1), AXIS)  # [numbers]
      *pieces, rest = jnp.split(mine, np.cumsum([part.shape[1] for part in rows]))
    whole, others = unravel(lax.psum(kept, AXIS) if alone else rest)
    whole, pieces = iter(whole), iter(pieces)
    parts = [
      next(whole) if cut is None else next(pieces).reshape(_part_shape(leaf.shape, cut, self.size))
      for leaf, cut in self._with_cuts(leaves)
    ]
    return tree.unflatten(parts), others

  def norm(self, gradient):
    """The Euclidean norm of a gradient of which the devices hold parts, []."""
    squares = {True: jnp.float32(0), False: jnp.float32(0)}
    for leaf, cut in self._with_cuts(jax.tree.leaves(gradient)):
      squares[cut is None] += jnp.vdot(leaf, leaf)
    return jnp.sqrt(squares[True] + (lax.psum(squares[False], AXIS) if any(c is not None for c in self.cuts) else 0.0))

  def mean(self, values, weight):
    """Returns the means over the examples of all devices, leaves [B, ...] -> [...], for weights [B].

    Their derivative is that of the means over this device's examples, so that the weighted sum of the devices'
    gradients is the gradient of the whole batch.
    """
    sums, count = jax.tree.map(lambda leaf: jnp.tensordot(weight, leaf, 1), values), weight.sum()
    own = jax.tree.map(lambda total: total / jnp.maximum(count, 1.0), sums)
    all_sums, all_count = lax.psum(lax.stop_gradient((sums, count)), AXIS)
    return jax.tree.map(
      lambda total, own: total / jnp.maximum(all_count, 1.0) + (own - lax.stop_gradient(own)), all_sums, own
    )

  def total(self, tree):
    """Returns the sum over the devices of a tree of arrays."""
    return tree if self.size == 1 else lax.psum(tree, AXIS)

  def all_gather(self, rows):
    """A tree of arrays [B, ...] of this device's rows -> those of all devices."""
    return rows if self.size == 1 else jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), rows)

  def _with_cuts(self, leaves):
    return zip(leaves, self.cuts or (None,) * len(leaves), strict=True)


SINGLE_DEVICE = DataParallel()


def data_parallel(mesh, params, state="replicated"):
  """The `DataParallel` of a mesh for (abstract) parameters whose state is "replicated" or "sharded"."""
  cuts = tuple(axis_to_cut(leaf.shape, mesh.size) for leaf in jax.tree.leaves(params))
  return DataParallel(mesh.size, cuts if state == "sharded" and mesh.size > 1 else ())


def mesh(devices=None):
  """A mesh with the single axis "data" over the devices (default: all there are, of all processes)."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
  """The placement of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh, axis):
  """The placement of an array whose `axis` is cut between the devices."""
  return NamedSharding(mesh, _spec(axis))


def of_state(mesh, state, kind):
  """Returns the placements of a `TrainState`: "replicated" on each device, or "sharded" along an axis of it.

  The sharded axis is one that the number of devices divides. The model's state is always replicated, because each
  device computes it from sums over all examples.
  """
  cut = {"replicated": lambda shape: None, "sharded": lambda shape: axis_to_cut(shape, mesh.size)}[kind]
  placements = jax.tree.map(lambda leaf: split(mesh, cut(leaf.shape)), state)
  whole = jax.tree.map(lambda leaf: replicated(mesh), state.model_state)
  return dataclasses.replace(placements, model_state=whole)


def at_hand(array):
  """Whether this process has an array whole in its own memory: NumPy's, or JAX's on CPUs."""
  if not isinstance(array, jax.Array):
    return True
  return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def put(array, placement):
  """An array that every process has, placed over the devices of all of them; each process writes its own part."""
  if placement.is_fully_addressable:
    return jax.device_put(array, placement)
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, placement, lambda index: array[index])


def put_rows(rows, placement, padded_batch_size):
  """Rows [steps, padded_batch_size of this process, ...] -> an array of those of all processes, [steps, padded_batch_size, ...]."""
  if placement.is_fully_addressable:
    return jax.device_put(rows, placement)
  return jax.make_array_from_process_local_data(placement, rows, (rows.shape[0], padded_batch_size, *rows.shape[2:]))


def columns(placement, padded_batch_size):
  """Which of the padded_batch_size of a batch the devices of this process hold, a slice."""
  held = placement.addressable_devices_indices_map((1, padded_batch_size)).values()
  starts, stops = zip(*(index[1].indices(padded_batch_size)[:2] for index in held), strict=True)
  return slice(min(starts), max(stops))


def fetch(tree, mesh):
  """A tree of arrays, whole, as NumPy arrays in every process."""
  whole = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
  return jax.tree.map(np.asarray, whole)


def start(coordinator=None, processes=None, process=None):
  """Joins the processes of a run: as the arguments say, or as the cluster's environment does (Slurm, Cloud TPU, ...).

  Before any other use of JAX. When one process is gone, JAX ends all the others, at once or after half a minute of
  silence. Raises what JAX raises where they do not find each other: RuntimeError or ValueError.
  """
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=30)


def least(number):
  """The least of the numbers of all processes."""
  if jax.process_count() == 1:
    return number
  return multihost_utils.process_allgather(np.float32(number)).min().item()


def agreed(flag):
  """Whether it is true in all processes."""
  return bool(least(flag))


class FailedElsewhere(Exception):
  """The first process of several could not do what the others wait for."""


def on_first_process(action):
  """Calls `action()` in the first process while the others wait; what it raises there is FailedElsewhere in those."""
  failure = None
  if jax.process_index() == 0:
    try:
      action()
    except Exception as error:
      failure = error
  if not agreed(failure is None):
    raise failure or FailedElsewhere("the first process could not go on; it says why")


def jit(function, arguments, results, donate=()):
  """`function`, of which each device runs its part, compiled for whole arguments of these shapes and placements.

  `results` are the placements of what it returns (a prefix of its tree). The arguments at the positions `donate` give
  their memory away. Arguments of any other shape or placement are an error.
  """
  mesh = _mesh_of(results)
  if mesh.size > 1:
    specs = [jax.tree.map(lambda placement: placement.spec, tree) for tree in (_placements(arguments), results)]
    function = jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
  return auto(function, arguments, results, donate)


def auto(function, arguments, results, donate=()):
  """`function` of whole arrays, compiled; how it is cut between the devices is left to the compiler."""
  return jax.jit(function, out_shardings=results, donate_argnums=donate).lower(*arguments).compile()


def pmap(function, arguments, results, donate=()):
  """The same by `jax.pmap`, for those who ask for it: with whole results only, and nothing is donated."""
  del donate
  mesh = _mesh_of(results)
  axes = tuple(_axis(placement) for placement in jax.tree.leaves(_placements(arguments)))
  tree = jax.tree.structure(arguments)
  mapped = jax.pmap(
    lambda *leaves: function(*tree.unflatten(leaves)),
    AXIS,
    in_axes=axes,
    out_axes=None,
    devices=list(mesh.devices.flat),
  )

  def call(*arguments):
    leaves = [
      leaf if axis is None else leaf.reshape(*leaf.shape[:axis], mesh.size, -1, *leaf.shape[axis + 1 :])
      for leaf, axis in zip(jax.tree.leaves(arguments), axes, strict=True)
    ]
    return jax.device_put(mapped(*leaves), results)

  return call


# config.parallel -> how a function is compiled for the devices
MODES = {"jit": jit, "pmap": pmap}


def _placements(arguments):
  return jax.tree.map(lambda leaf: leaf.sharding, arguments)


def _mesh_of(placements):
  return jax.tree.leaves(placements)[0].mesh


def _axis(placement):
  """The axis that a placement cuts, None if it cuts none."""
  return next((axis for axis, name in enumerate(placement.spec) if name == AXIS), None)


def _spec(axis):
  return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)


def axis_to_cut(shape, size):
  """The longest axis of a shape that `size` divides, the first of equals; None if there is none."""
  axes = [axis for axis, side in enumerate(shape) if side % size == 0 and side]
  return max(axes, key=lambda axis: (shape[axis], -axis), default=None)


def _part_shape(shape, cut, size):
  return (*shape[:cut], shape[cut] // size, *shape[cut + 1 :])


def _rows(leaf, cut, size):
  """A whole leaf as the parts that the devices hold of it: [size, numbers of a part]."""
  shape = (*leaf.shape[:cut], size, leaf.shape[cut] // size, *leaf.shape[cut + 1 :])
  return jnp.moveaxis(leaf.reshape(shape), cut, 0).reshape(size, -1)


def _join(rows, part_shape, cut):
  """The leaf whose parts, of a shape, are the rows [size, numbers]; the inverse of `_rows`."""
  parts = jnp.moveaxis(rows.reshape(-1, *part_shape), 0, cut)  # [..., size, side of a part, ...]
  return parts.reshape(*part_shape[:cut], -1, *part_shape[cut + 1 :])

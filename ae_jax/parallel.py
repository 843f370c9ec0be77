"""Where arrays live: a mesh over the devices, a state on all of them, a batch split between them."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def mesh(devices=None):
  """A mesh with the single axis "data" over the devices (default: all local ones)."""
  devices = jax.local_devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


# config.parallel -> the mesh that it runs on
MODES = {"jit": mesh}


def replicated(mesh):
  """The placement of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def blocks(rows, in_cache):
  """Into how many equal parts a step cuts a batch of so many rows, so that the intermediates of one stay in the cache.

  On CPU the fewest that have at most `in_cache` rows, but more than half as many; 1 where no such number divides the
  rows, where `in_cache` is None, and on any other platform.
  """
  if jax.default_backend() != "cpu" or in_cache is None:
    return 1
  least = -(-rows // in_cache)
  return next((count for count in range(least, 2 * least) if rows % count == 0), 1)


def split(mesh, axis):
  """The placement of an array whose `axis` is cut between the devices."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

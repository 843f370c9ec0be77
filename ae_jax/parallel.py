"""Where arrays live: a mesh over the devices, a state on all of them, a batch split between them."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

MODES = ("jit",)


def mesh(devices=None):
  """A mesh with the single axis "data" over the devices (default: all local ones)."""
  devices = jax.local_devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
  """The placement of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh, axis):
  """The placement of an array whose `axis` is cut between the devices."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

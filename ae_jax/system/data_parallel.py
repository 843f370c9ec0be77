"""Collective operations of a data-parallel training step."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree, Shaped

from ae_jax.types import LEAST_WEIGHT, Params

AXIS = "data"  # name of the only axis of the mesh


@dataclasses.dataclass(frozen=True)
class DataParallel:
  """Collective operations of a training step whose batch is split over the devices.

  The parameters and the optimizer state are replicated, or sharded to save memory (as in ZeRO, Rajbhandari et al.
  2020). With sharding, a step runs one all-gather of the parameters, one reduce-scatter of the gradients, and one
  scalar all-reduce for the gradient norm. Without sharding, a step runs one all-reduce of the gradients. The methods
  must be called inside `shard_map`, where each device has its rows of the batch and its shards of the parameters.

  Attributes:
    size: Number of devices.
    cuts: Sharded axis of each parameter array, or None for a replicated array; () if all arrays are replicated.
  """

  size: int = 1
  cuts: tuple[int | None, ...] = ()

  def first_row(self, rows: int) -> int | Int[Array, ""]:
    """Returns the index of this device's first row in the whole batch; each device holds `rows` rows."""
    return 0 if self.size == 1 else lax.axis_index(AXIS) * rows

  def all_gather_params(self, params: Params) -> Params:
    """Returns the full parameters, given this device's shards. A single all-gather transfers all shards."""
    leaves, tree = jax.tree.flatten(params)
    shards = [leaf for leaf, cut in self._with_cuts(leaves) if cut is not None]
    if not shards:
      return params
    rows = lax.all_gather(jnp.concatenate([shard.ravel() for shard in shards]), AXIS)  # [devices, elements of a shard]
    pieces = iter(jnp.split(rows, np.cumsum([shard.size for shard in shards])[:-1], axis=1))
    full = [leaf if cut is None else _join(next(pieces), leaf.shape, cut) for leaf, cut in self._with_cuts(leaves)]
    return jax.tree.unflatten(tree, full)

  def own_part(self, params: Params) -> Params:
    """Returns this device's shards of the full parameters; inverse of `all_gather_params`."""

    def shard(leaf: jax.Array, cut: int) -> jax.Array:
      size = leaf.shape[cut] // self.size
      return lax.dynamic_slice_in_dim(leaf, lax.axis_index(AXIS) * size, size, cut)

    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(
      tree, [leaf if cut is None else shard(leaf, cut) for leaf, cut in self._with_cuts(leaves)]
    )

  def reduce_gradients(self, gradient: Params, others: PyTree) -> tuple[Params, PyTree]:
    """Sums gradients and other arrays over the devices.

    A single reduce-scatter sums the gradients of the sharded parameters. It also sums all other arrays, which are
    repeated once per device for this purpose. If the repeated arrays would be larger than the gradients, a separate
    all-reduce sums the other arrays.

    Args:
      gradient: Gradients of the full parameters, computed from this device's examples.
      others: Arrays of any shape, computed from this device's examples, such as sums of loss terms.

    Returns:
      This device's shards of the summed gradients, and the sums of `others`.
    """
    if self.size == 1:
      return gradient, others
    leaves, tree = jax.tree.flatten(gradient)
    rows = [_rows(leaf, cut, self.size) for leaf, cut in self._with_cuts(leaves) if cut is not None]
    unsharded, unravel = ravel_pytree(([leaf for leaf, cut in self._with_cuts(leaves) if cut is None], others))
    pieces, separate = [], self.size * unsharded.size > sum(part.size for part in rows)
    if rows:
      columns = rows if separate else [*rows, jnp.broadcast_to(unsharded, (self.size, unsharded.size))]
      reduced = lax.psum_scatter(jnp.concatenate(columns, axis=1), AXIS)  # [elements]
      *pieces, rest = jnp.split(reduced, np.cumsum([part.shape[1] for part in rows]))
    replicated, others = unravel(lax.psum(unsharded, AXIS) if separate else rest)
    unsharded_leaves, sharded_leaves = iter(replicated), iter(pieces)
    shards = [
      next(unsharded_leaves) if cut is None else next(sharded_leaves).reshape(_part_shape(leaf.shape, cut, self.size))
      for leaf, cut in self._with_cuts(leaves)
    ]
    return jax.tree.unflatten(tree, shards), others

  def norm(self, gradient: Params) -> Float[Array, ""]:
    """Returns the Euclidean norm of the full gradient, given this device's shards of the gradient."""
    replicated, sharded = jnp.float32(0), jnp.float32(0)
    for leaf, cut in self._with_cuts(jax.tree.leaves(gradient)):
      square = jnp.vdot(leaf, leaf)
      replicated, sharded = (replicated + square, sharded) if cut is None else (replicated, sharded + square)
    return jnp.sqrt(replicated + (lax.psum(sharded, AXIS) if any(cut is not None for cut in self.cuts) else 0.0))

  def mean(self, values: PyTree, weight: Float[Array, " examples"]) -> PyTree:
    """Returns weighted means over the examples of all devices: leaves [B, ...] -> [...].

    The value is the mean over all devices, but its gradient is the gradient of the mean over this device's examples
    only. To get the gradient of the whole batch, average the gradients of the devices, weighted by the total weight of
    the examples of each device.

    Args:
      values: Arrays [B, ...] computed from this device's examples.
      weight: Weights of this device's examples.
    """
    sums, count = jax.tree.map(lambda leaf: jnp.tensordot(weight, leaf, 1), values), weight.sum()
    local = jax.tree.map(lambda total: total / jnp.maximum(count, LEAST_WEIGHT), sums)
    all_sums, all_count = lax.psum(lax.stop_gradient((sums, count)), AXIS)
    return jax.tree.map(
      lambda total, local: total / jnp.maximum(all_count, LEAST_WEIGHT) + (local - lax.stop_gradient(local)),
      all_sums,
      local,
    )

  def total(self, tree: PyTree) -> PyTree:
    """Returns the sums of the arrays over the devices."""
    return tree if self.size == 1 else lax.psum(tree, AXIS)

  def all_gather(self, rows: PyTree) -> PyTree:
    """Returns the rows of all devices, given this device's rows: leaves [B, ...] -> [B * devices, ...]."""
    return rows if self.size == 1 else jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), rows)

  def _with_cuts(self, leaves: Sequence[Any]) -> Iterator[tuple[Any, int | None]]:
    return zip(leaves, self.cuts or (None,) * len(leaves), strict=True)


SINGLE_DEVICE = DataParallel()


def _part_shape(shape: tuple[int, ...], cut: int, size: int) -> tuple[int, ...]:
  return (*shape[:cut], shape[cut] // size, *shape[cut + 1 :])


def _rows(leaf: jax.Array, cut: int, size: int) -> Shaped[Array, "devices elements"]:
  """Returns a matrix whose row n is the flattened shard of device n."""
  shape = (*leaf.shape[:cut], size, leaf.shape[cut] // size, *leaf.shape[cut + 1 :])
  return jnp.moveaxis(leaf.reshape(shape), cut, 0).reshape(size, -1)


def _join(rows: Shaped[Array, "devices elements"], part_shape: tuple[int, ...], cut: int) -> jax.Array:
  """Returns the full array, given the matrix of its flattened shards; inverse of `_rows`."""
  parts = jnp.moveaxis(rows.reshape(-1, *part_shape), 0, cut)  # [..., devices, length of a shard, ...]
  return parts.reshape(*part_shape[:cut], -1, *part_shape[cut + 1 :])

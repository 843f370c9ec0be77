"""Checksums of arrays, to detect damaged checkpoints."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped, UInt32

from ae_jax.system import distributed
from ae_jax.types import AnyArray

_BLOCK = 1 << 18  # number of elements that NumPy sums at once; their temporary arrays fit in the CPU cache


def compute(tree: PyTree) -> list[int]:
  """Returns the checksum of each array of a pytree; changing a single bit of an array changes its checksum.

  Arrays in host memory are summed with NumPy, which needs no compilation.

  Args:
    tree: Pytree of arrays with 4-byte elements.
  """
  leaves = jax.tree.leaves(tree)
  if not all(distributed.is_in_host_memory(leaf) for leaf in leaves):
    return [int(number) for number in _checksums(leaves)]
  blocks = [np.split(_bits(np.asarray(leaf)), range(_BLOCK, leaf.size, _BLOCK)) for leaf in leaves]
  return [sum(int(_checksum(block, n * _BLOCK, np)) for n, block in enumerate(array)) % 2**32 for array in blocks]


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
  return [_checksum(_bits(leaf), 0, jnp) for leaf in leaves]


def _bits(leaf: Shaped[AnyArray, "..."]) -> UInt32[AnyArray, " elements"]:
  return leaf.ravel().view(np.uint32)


def _checksum(bits: UInt32[AnyArray, " elements"], first: int, xp: types.ModuleType) -> Any:
  """Returns the sum of `bits`, weighted by odd numbers, modulo 2**32; it does not depend on the order of summation.

  Args:
    bits: Elements of an array, or of a block of an array.
    first: Index of `bits[0]` in the whole array.
    xp: numpy or jax.numpy.
  """
  return (bits * (2 * xp.arange(first, first + bits.size, dtype=np.uint32) + 1)).sum(dtype=np.uint32)

"""Checksums of arrays, to detect damaged checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.system import distributed

_BLOCK = 1 << 18  # numbers that NumPy adds up at a time: what that takes besides stays in the cache


def of(tree):
  """A number per array of a tree, of 4-byte numbers, that any one bit of it changes: a list of integers.

  What is at hand is added up by NumPy, for which nothing has to be compiled.
  """
  leaves = jax.tree.leaves(tree)
  if not all(distributed.at_hand(leaf) for leaf in leaves):
    return [int(number) for number in _checksums(leaves)]
  blocks = [np.split(_bits(np.asarray(leaf)), range(_BLOCK, leaf.size, _BLOCK)) for leaf in leaves]
  return [sum(int(_checksum(block, n * _BLOCK, np)) for n, block in enumerate(cut)) % 2**32 for cut in blocks]


@jax.jit
def _checksums(leaves):
  return [_checksum(_bits(leaf), 0, jnp) for leaf in leaves]


def _bits(leaf):
  return leaf.ravel().view(np.uint32)


def _checksum(bits, first, xp):
  """The sum of odd multiples of numbers modulo 2**32, no order of which changes it; `first` numbers come before."""
  return (bits * (2 * xp.arange(first, first + bits.size, dtype=np.uint32) + 1)).sum(dtype=np.uint32)

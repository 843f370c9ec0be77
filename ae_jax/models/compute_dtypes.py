"""Compute dtypes of models (config.compute_dtype). Parameters, losses and KL divergences stay float32."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import DTypeLike

# config.compute_dtype -> dtype of the module's arithmetic; None uses the dtype of the parameters.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
  """Returns a tree with its floating-point arrays cast to `dtype`; other leaves stay unchanged."""

  def cast_leaf(leaf):
    is_array = isinstance(leaf, jax.Array | np.ndarray)
    return leaf.astype(dtype) if is_array and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return jax.tree.map(cast_leaf, tree)

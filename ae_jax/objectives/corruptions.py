"""Corruptions of one example: functions (key, x, level, span) -> (corrupted x, mask of the corrupted elements).

`level` is in [0, 1]. `span` is the `data.ranges.Span` of the data: the smallest, largest and missing value. Source:
Vincent et al. (2010, section 3.3).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

Corrupted = tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]


def masking(key: Key[Array, ""], x: Float[Array, "*shape"], level: float | Array, span: Any) -> Corrupted:
  """Sets each element with probability `level` to `span.missing` (black in images, 0 in Vincent et al.)."""
  mask = jax.random.bernoulli(key, level, x.shape)
  return jnp.where(mask, jnp.full_like(x, span.missing), x), mask


def salt_and_pepper(key: Key[Array, ""], x: Float[Array, "*shape"], level: float | Array, span: Any) -> Corrupted:
  """Sets each element with probability `level` to `span.low` or `span.high`, which are equally probable."""
  u = jax.random.uniform(key, x.shape, x.dtype)
  mask = u < level
  return jnp.where(mask, jnp.where(u < level / 2, span.low, span.high).astype(x.dtype), x), mask


def gaussian(key: Key[Array, ""], x: Float[Array, "*shape"], level: float | Array, span: Any) -> Corrupted:
  """Adds normal noise with standard deviation `level * (span.high - span.low)` to all elements."""
  noise = level * (span.high - span.low) * jax.random.normal(key, x.shape, x.dtype)
  return x + noise, jnp.ones(x.shape, bool)


CORRUPTIONS = {"masking": masking, "salt_and_pepper": salt_and_pepper, "gaussian": gaussian}


def corrupt(
  name: str,
  keys: Key[Array, " batch"],
  x: Float[Array | np.ndarray, " batch *shape"],
  level: float | Array,
  span: Any,
) -> tuple[Float[Array, " batch *shape"], Bool[Array, " batch *shape"]]:
  """Returns the corrupted batch and the mask of the corrupted elements.

  Args:
    name: A key of CORRUPTIONS.
    keys: One random key per example.
    x: The examples.
    level: Noise level in [0, 1].
    span: The `data.ranges.Span` of the data.
  """
  return jax.vmap(lambda key, example: CORRUPTIONS[name](key, example, level, span))(keys, x)

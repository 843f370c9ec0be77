"""Noise on one example: functions (key, x, level, span) -> (corrupted x, which of its elements were touched).

`level` is from 0 to 1; `span` is the (least, greatest) value of the data's range. The noise of Vincent et al. (2010).
"""

import jax
import jax.numpy as jnp


def masking(key, x, level, span):
  """Each element becomes 0 (black, where the range has no 0 inside) with probability `level`."""
  touched = jax.random.bernoulli(key, level, x.shape)
  return jnp.where(touched, jnp.full_like(x, span[0]), x), touched


def salt_and_pepper(key, x, level, span):
  """Each element becomes, with probability `level`, the least or the greatest value by the toss of a coin."""
  u = jax.random.uniform(key, x.shape, x.dtype)
  touched = u < level
  return jnp.where(touched, jnp.where(u < level / 2, span[0], span[1]).astype(x.dtype), x), touched


def gaussian(key, x, level, span):
  """Adds normal noise whose standard deviation is `level` times the width of the range; all elements are touched."""
  noise = level * (span[1] - span[0]) * jax.random.normal(key, x.shape, x.dtype)
  return x + noise, jnp.ones(x.shape, bool)


CORRUPTIONS = {"masking": masking, "salt_and_pepper": salt_and_pepper, "gaussian": gaussian}


def corrupt(name, keys, x, level, span):
  """A batch [B, ...] with the noise of a name, each example from its own key: (corrupted x, touched), both [B, ...]."""
  return jax.vmap(lambda key, example: CORRUPTIONS[name](key, example, level, span))(keys, x)

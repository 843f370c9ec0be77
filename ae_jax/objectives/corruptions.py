"""Noise on one example: functions (key, x, level, span) -> (corrupted x, which of its elements were touched).

`level` is from 0 to 1; `span` is the `data.ranges.Span` of the data. The noise of Vincent et al. (2010, section 3.3).
"""

import jax
import jax.numpy as jnp


def masking(key, x, level, span):
  """Sets each element to `span.missing` with probability `level`: 0 in Vincent et al., black in images."""
  touched = jax.random.bernoulli(key, level, x.shape)
  return jnp.where(touched, jnp.full_like(x, span.missing), x), touched


def salt_and_pepper(key, x, level, span):
  """Sets each element, with probability `level`, to the least or the greatest value with equal chances."""
  u = jax.random.uniform(key, x.shape, x.dtype)
  touched = u < level
  return jnp.where(touched, jnp.where(u < level / 2, span.low, span.high).astype(x.dtype), x), touched


def gaussian(key, x, level, span):
  """Adds normal noise with the standard deviation `level` times the width of the span; touches all elements."""
  noise = level * (span.high - span.low) * jax.random.normal(key, x.shape, x.dtype)
  return x + noise, jnp.ones(x.shape, bool)


CORRUPTIONS = {"masking": masking, "salt_and_pepper": salt_and_pepper, "gaussian": gaussian}


def corrupt(name, keys, x, level, span):
  """A batch [B, ...] with the noise of a name, each example from its own key: (corrupted x, touched), both [B, ...]."""
  return jax.vmap(lambda key, example: CORRUPTIONS[name](key, example, level, span))(keys, x)

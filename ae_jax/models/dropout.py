"""Dropout with a random key for each example, so that no result depends on how a batch is split."""

import jax
import jax.numpy as jnp

from ae_jax import errors

DECODER = 1 << 16  # added to the layer numbers of a decoder, whose masks are not those of the encoder


def drop(h, keys, rate, layer, batch_axis=0):
  """Returns activations of which a share `rate` is set to 0 and the others are divided by 1 - rate.

  Args:
    h: activations, with the examples along `batch_axis`.
    keys: a random key for each example [B]; None, as in evaluation, returns the activations unchanged.
    rate: the probability that a unit is dropped.
    layer: number of the layer; each layer of a model draws its own mask.
    batch_axis: the axis of the examples.
  """
  if keys is None or rate == 0.0:
    return h
  shape = tuple(side for axis, side in enumerate(h.shape) if axis != batch_axis % h.ndim)
  own = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, shape))
  return h * jnp.moveaxis(own(keys), 0, batch_axis).astype(h.dtype) / jnp.asarray(1.0 - rate, h.dtype)


def check_rate(rate):
  """Raises UserError unless `config.model.dropout` is a rate from 0 to below 1."""
  errors.check(errors.is_number(rate) and 0 <= rate < 1, "model.dropout", rate, "a number from 0 to below 1")

"""Dropout with one random key per example, so that results do not depend on how a batch is split."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ae_jax import errors
from ae_jax.types import AnyArray, Keys

Activations = Float[AnyArray, "*shape"]
DECODER = 1 << 16  # added to the layer numbers of a decoder, so that its masks differ from the masks of the encoder


def drop(h: Activations, keys: Keys | None, rate: float, layer: int | jax.Array, batch_axis: int = 0) -> Activations:
  """Sets each unit to 0 with probability `rate` and divides all other units by 1 - rate.

  Args:
    h: Activations, with the examples along `batch_axis`.
    keys: One random key per example. If None (in evaluation), `h` is returned unchanged.
    rate: Probability that a unit is set to 0.
    layer: Number of the layer; each number gives a different mask.
    batch_axis: Axis of the examples.
  """
  if keys is None or rate == 0.0:
    return h
  shape = tuple(side for axis, side in enumerate(h.shape) if axis != batch_axis % h.ndim)
  draw_masks = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, shape))
  return h * jnp.moveaxis(draw_masks(keys), 0, batch_axis).astype(h.dtype) / jnp.asarray(1.0 - rate, h.dtype)


def check_rate(rate: Any) -> None:
  """Raises UserError unless `config.model.dropout` is a number in [0, 1)."""
  errors.check(errors.is_number(rate) and 0 <= rate < 1, "model.dropout", rate, "a number in [0, 1)")

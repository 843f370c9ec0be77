"""The autoencoder for rows of tables: encoder and decoder are each the sum of a linear layer and a hidden layer."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule
from ae_jax.types import AnyArray, Keys

_LEAST, _PER_ELEMENT, _MOST = 32, 4, 512  # automatic width of the hidden layers: minimum, units per element, maximum


class LinearAndHidden(nn.Module):
  """Sum of a linear layer and of a network with one hidden layer: [B, inputs] -> [B, outputs].

  The output weights of the hidden layer are initialised with zeros, so training starts from a linear autoencoder.
  """

  outputs: int
  width: int
  activation: Callable
  dropout: float
  number: int  # number of the hidden layer for dropout

  @nn.compact
  def __call__(self, x: Float[AnyArray, "batch inputs"], dropout: Keys | None = None) -> Float[Array, "batch outputs"]:
    """Returns the outputs for a batch; see `dropout.drop`."""
    h = drop(self.activation(nn.Dense(self.width, name="hidden")(x)), dropout, self.dropout, self.number)
    nonlinear = nn.Dense(self.outputs, use_bias=False, kernel_init=nn.initializers.zeros, name="nonlinear")
    return nn.Dense(self.outputs, name="linear")(x) + nonlinear(h)


def build(
  shape: tuple[int, ...], *, latent: Any, width: Any, activation: Any, bottleneck: Any, dropout: Any = 0.0
) -> AutoencoderModule:
  """Builds the autoencoder for rows of a table, whose shape is (elements,).

  `width` is the size of the hidden layers of the encoder and the decoder; 0 means 4 units per element of a row, but at
  least 32 and at most 512 units. `dropout` is the dropout rate of the hidden layers in training.

  Raises:
    UserError: An option is invalid.
  """
  valid = isinstance(width, int) and not isinstance(width, bool) and 0 <= width <= errors.LARGEST_COUNT
  errors.check(valid, "model.width", width, "an integer, 0 or more")
  check_rate(dropout)
  elements, function = math.prod(shape), activations.choose(activation, "activation")
  width = width or min(_MOST, max(_LEAST, _PER_ELEMENT * elements))
  return bottlenecks.build_autoencoder(
    bottleneck,
    latent,
    lambda outputs: LinearAndHidden(outputs, width, function, dropout, 0),
    LinearAndHidden(elements, width, function, dropout, DECODER),
  )

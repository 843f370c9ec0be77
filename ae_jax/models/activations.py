"""Activation functions by name.

They are functions of this module because pickle stores a function by its module and name, and JAX wraps its own:
`pickle.dumps(jax.nn.relu)` fails.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from ae_jax import errors
from ae_jax.types import AnyArray

Activations = Float[AnyArray, "*shape"]


def relu(x: Activations) -> Activations:
  """Returns max(x, 0)."""
  return nn.relu(x)


def gelu(x: Activations) -> Activations:
  """Returns x times the standard normal distribution function of x, in its tanh approximation."""
  return nn.gelu(x)


def silu(x: Activations) -> Activations:
  """Returns x times the logistic function of x."""
  return nn.silu(x)


def elu(x: Activations) -> Activations:
  """Returns x where x is positive, exp(x) - 1 elsewhere."""
  return nn.elu(x)


def tanh(x: Activations) -> Activations:
  """Returns the hyperbolic tangent of x."""
  return nn.tanh(x)


def sigmoid(x: Activations) -> Activations:
  """Returns the logistic function of x."""
  return nn.sigmoid(x)


def identity(x: Activations) -> Activations:
  """Returns x: the layer stays affine."""
  return x


ACTIVATIONS = {function.__name__: function for function in (relu, gelu, silu, elu, tanh, sigmoid, identity)}


def choose(name: Any, key: str) -> Callable:
  """Returns the activation function of a name; raises UserError with the config key `model.<key>` if unknown."""
  return errors.choose(ACTIVATIONS, name, f"model.{key}")

"""Activation functions by name.

Models must be picklable, but `pickle.dumps(jax.nn.relu)` fails: pickle stores a function by its module and name, and
JAX's functions are wrapper objects. This module therefore defines plain functions.
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
  """Returns x * Phi(x), with the tanh approximation of the standard normal distribution function Phi."""
  return nn.gelu(x)


def silu(x: Activations) -> Activations:
  """Returns x * sigmoid(x)."""
  return nn.silu(x)


def elu(x: Activations) -> Activations:
  """Returns x where x > 0, and exp(x) - 1 elsewhere."""
  return nn.elu(x)


def tanh(x: Activations) -> Activations:
  """Returns the hyperbolic tangent of x."""
  return nn.tanh(x)


def sigmoid(x: Activations) -> Activations:
  """Returns 1 / (1 + exp(-x))."""
  return nn.sigmoid(x)


def identity(x: Activations) -> Activations:
  """Returns x unchanged."""
  return x


ACTIVATIONS = {function.__name__: function for function in (relu, gelu, silu, elu, tanh, sigmoid, identity)}


def choose(name: Any, key: str) -> Callable:
  """Returns the activation function called `name`; `key` is its key in `config.model`.

  Raises:
    UserError: There is no activation function of this name.
  """
  return errors.choose(ACTIVATIONS, name, f"model.{key}")

"""Activation functions by name.

They are functions of this module, because pickle stores a function by its module and name, and JAX's own are wrapped:
`pickle.dumps(jax.nn.relu)` fails.
"""

import flax.linen as nn

from ae_jax import errors


def relu(x):
  """max(x, 0)."""
  return nn.relu(x)


def gelu(x):
  """x times the normal distribution function of x, by its tanh approximation."""
  return nn.gelu(x)


def silu(x):
  """x times the logistic function of x."""
  return nn.silu(x)


def elu(x):
  """x where it is positive, exp(x) - 1 elsewhere."""
  return nn.elu(x)


def tanh(x):
  """The hyperbolic tangent."""
  return nn.tanh(x)


def sigmoid(x):
  """The logistic function."""
  return nn.sigmoid(x)


def identity(x):
  """x itself: a layer that stays affine."""
  return x


ACTIVATIONS = {function.__name__: function for function in (relu, gelu, silu, elu, tanh, sigmoid, identity)}


def choose(name, key):
  """Returns the activation of a name; UserError names the config key `model.<key>`."""
  return errors.choose(ACTIVATIONS, name, f"model.{key}")

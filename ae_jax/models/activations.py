"""Activation functions by name."""

import flax.linen as nn

from ae_jax import errors


def identity(x):
  """x itself: a layer that stays affine."""
  return x


ACTIVATIONS = {
  "relu": nn.relu,
  "gelu": nn.gelu,
  "silu": nn.silu,
  "elu": nn.elu,
  "tanh": nn.tanh,
  "sigmoid": nn.sigmoid,
  "identity": identity,
}


def choose(name, key):
  """The activation of a name; UserError names the config key `model.<key>`."""
  return errors.choose(ACTIVATIONS, name, f"model.{key}")

"""Arrays in, one number per example out. Reconstruction terms come with the output activation they belong to."""

import math

import jax
import jax.numpy as jnp

# The output activation follows the range of the data: [0, 1], [-1, 1], or any real number.
OUTPUT_ACTIVATIONS = {"unit": jax.nn.sigmoid, "symmetric": jnp.tanh, "real": lambda logits: logits}


def flat(x):
  """[B, ...] -> [B, elements]. Losses work on flat arrays: XLA's sums over [B, 28, 28, 1] run several times slower."""
  return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@jax.custom_jvp
def binary_cross_entropy_with_logits(logits, targets):
  """-x log p - (1 - x) log(1 - p) in nats per element, p = sigmoid(logits); finite at any finite logit.

  The derivative is written out, sigmoid(logits) - x: the automatic one costs a second pass of exp and log1p.
  """
  return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@binary_cross_entropy_with_logits.defjvp
def _(primals, tangents):
  logits, targets = primals
  logits_dot, targets_dot = tangents
  value = binary_cross_entropy_with_logits(logits, targets)
  return value, (jax.nn.sigmoid(logits) - targets) * logits_dot - logits * targets_dot


def bernoulli_nats(logits, x):
  """-log Bernoulli(x | sigmoid(logits)) in nats per example, x in [0, 1]: [B, ...] -> [B]."""
  return binary_cross_entropy_with_logits(flat(logits), flat(x)).sum(-1)  # [B]


def bernoulli_entropy(x):
  """The least that `bernoulli_nats` can be, in nats per example, reached at sigmoid(logits) = x: [B, ...] -> [B]."""
  x = flat(x)
  return -(jax.scipy.special.xlogy(x, x) + jax.scipy.special.xlog1py(1.0 - x, -x)).sum(-1)  # [B]


def squared_error(x_hat, x):
  """|x_hat - x|^2 per example, in the square of the data's unit: [B, ...] -> [B]."""
  return jnp.square(flat(x_hat) - flat(x)).sum(-1)  # [B]

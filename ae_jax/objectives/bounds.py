"""Importance-weighted bounds on the log-likelihood log p(x) of a variational autoencoder, in nats per example.

The bound is log p(x) >= E log mean_k w_k with w_k = p(x | z_k) p(z_k) / q(z_k | x), where z_1, ..., z_K are drawn from
the posterior q. It equals the ELBO for K = 1, and rises with K towards log p(x) (Burda et al. 2016, "Importance
weighted autoencoders").
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from ae_jax import models
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Keys


def log_likelihood(
  model: models.Model,
  logits: Float[AnyArray, " batch *shape"],
  x: Float[AnyArray, " batch *shape"],
  *,
  value_range: str,
  likelihood: str,
  noise: float,
) -> Float[jax.Array, " batch"]:
  """Returns log p(x | z) in nats per example, from the decoder's logits.

  Args:
    model: The model.
    logits: Logits that the decoder of the model returns.
    x: Examples.
    value_range: Range of the data, a key of `losses.OUTPUT_ACTIVATIONS`.
    likelihood: "bernoulli", "gaussian" or "mixed".
    noise: Standard deviation of the Gaussian likelihood.
  """
  if likelihood == "bernoulli":
    return -losses.bernoulli_nats(logits, x)
  if likelihood == "mixed":
    return -losses.mixed_nats(logits, x, model.groups).sum(-1)
  error = losses.squared_error(model.outputs(logits, value_range), x)
  return -losses.gaussian_nats(error, math.prod(x.shape[1:]), noise)


def log_weights(
  model: models.Model,
  variables: models.Variables,
  x: Float[AnyArray, " batch *shape"],
  columns: Mapping[str, AnyArray],
  keys: Keys,
  *,
  log_likelihood: Callable[[jax.Array, AnyArray], jax.Array],
  samples: int,
) -> Float[jax.Array, "batch samples"]:
  """Returns the log importance weights log w_k in nats, for K = `samples` draws from the posterior of each example.

  The draws of an example depend only on its key. `log_likelihood` maps (logits, x) to log p(x | z).
  """
  mean, log_variance = model.encode(variables, x, columns).posterior
  normal = jax.vmap(lambda key: jax.random.normal(key, (samples, *mean.shape[1:]), mean.dtype))(keys)

  def weigh(normal):
    z = mean + jnp.exp(0.5 * log_variance) * normal
    log_posterior = -0.5 * losses.flat(jnp.square(normal) + log_variance + math.log(2 * math.pi)).sum(-1)
    return log_likelihood(model.decode(variables, z, columns), x) + model.log_prior(variables, z) - log_posterior

  return jax.lax.map(weigh, normal.swapaxes(0, 1)).T


def log_means(logs: Float[np.ndarray, "examples weights"], samples: int) -> Float64[np.ndarray, "examples groups"]:
  """Returns the logarithm of the mean weight of each group of `samples` successive weights of an example.

  `logs` holds the logarithms of the weights.
  """
  groups = logs.reshape(len(logs), -1, samples).astype(np.float64)
  largest = groups.max(-1, keepdims=True)
  return largest[..., 0] + np.log(np.exp(groups - largest).mean(-1))


def effective_samples(logs: Float[np.ndarray, "examples weights"]) -> Float64[np.ndarray, " examples"]:
  """Returns the effective sample size (sum_k w_k)^2 / sum_k w_k^2 of each example, which is between 1 and K.

  `logs` holds the logarithms of the weights w_k.
  """
  weights = np.exp((logs - logs.max(1, keepdims=True)).astype(np.float64))
  return np.square(weights.sum(1)) / np.square(weights).sum(1)

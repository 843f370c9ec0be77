"""Importance-weighted bounds on the log-likelihood log p(x) of a variational autoencoder, in nats per test example.

The bound is log p(x) >= E log mean_k w_k with w_k = p(x | z_k) p(z_k) / q(z_k | x), where z_1, ..., z_K are drawn from
the posterior q. It equals the ELBO for K = 1, and rises with K towards log p(x) (Burda et al. 2016, "Importance
weighted autoencoders").
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from ae_jax import models
from ae_jax.evaluators import reconstruction
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.evaluators.figures import Lines
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Keys

SAMPLES = 128  # K, the number of posterior samples per example; a power of 2
MAX_EXAMPLES = 1_000  # maximum number of test examples, evenly spaced
_MAX_ELEMENTS = 2**27  # maximum number of elements in all decoded samples; limits the number of examples


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the bound on -log p(x), its standard error, the negative ELBO, and a figure of the bound against K."""
  objective = context.run.config.objective
  indices = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  count = max(1, min(MAX_EXAMPLES, _MAX_ELEMENTS // (SAMPLES * context.test[0].size)))
  indices = indices[spaced(count, len(indices))]
  x = context.test[indices]
  options = {"value_range": context.dataset.value_range, "likelihood": objective.likelihood, "noise": objective.noise}
  log_p = functools.partial(log_likelihood, context.run.model, **options)
  weigh = functools.partial(log_weights, context.run.model, log_likelihood=log_p, samples=SAMPLES)
  logs = context.map_examples(weigh, x, context.columns("test", indices))
  if not np.isfinite(logs).all():
    yield (
      "likelihood",
      "the likelihood of some test examples is not finite: training diverged; lower config.optimizer.learning_rate",
    )
    return
  nll = -log_means(logs, SAMPLES)[:, 0]
  yield "nll", float(nll.mean())
  yield "nll_standard_error", float(nll.std(ddof=1) / math.sqrt(len(nll))) if len(nll) > 1 else math.nan
  yield "negative_elbo", float(-logs.mean(dtype=np.float64))
  yield "effective_samples", float(effective_samples(logs).mean())
  yield "likelihood_samples", SAMPLES
  yield "likelihood_examples", len(x)
  if objective.likelihood == "bernoulli" and ((x > 0) & (x < 1)).any():
    yield (
      "likelihood",
      (
        "the data have values between 0 and 1, for which the Bernoulli likelihood is not a normalised density: compare "
        "these nats only between models with the same likelihood and the same data"
      ),
    )
  powers = range(SAMPLES.bit_length())
  bounds = np.array([-log_means(logs, 1 << power).mean() for power in powers])
  title = f"Upper bound on the negative log-likelihood of {len(x):,} test examples, by number of posterior samples"
  lines = {"importance-weighted bound": np.stack([np.asarray(powers), bounds])}
  yield "likelihood_bound", Lines(title, lines, "samples per example, log2", "nats per example")


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
    logits: Logits of its decoder.
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

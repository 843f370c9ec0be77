"""How likely a variational autoencoder makes the test examples: log p(x) in nats, bounded from below by sampling.

log p(x) >= E log mean_k w_k with w_k = p(x | z_k) p(z_k) / q(z_k | x) and z_k from the posterior q; K = 1 is the ELBO,
and the bound rises with K towards log p(x) (Burda et al. 2016, "Importance weighted autoencoders").
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.evaluators import reconstruction
from ae_jax.evaluators.context import shown
from ae_jax.evaluators.figures import Lines
from ae_jax.ops import losses

SAMPLES = 128  # of the posterior of an example: K, a power of 2
EXAMPLES = 1_000  # test examples, at even distances
_MOST_NUMBERS = 2**27  # in all that is decoded for them, so that fewer of large ones are looked at


def analyze(context):
  """Generates the bounds in nats per test example, how sure they are, and how they come nearer with more samples."""
  objective = context.run.config.objective
  numbers = reconstruction.typical(np.arange(len(context.test)), context.dataset)
  most = max(1, min(EXAMPLES, _MOST_NUMBERS // (SAMPLES * context.test[0].size)))
  numbers = numbers[shown(most, len(numbers))]
  x = context.test[numbers]
  options = {"value_range": context.dataset.value_range, "likelihood": objective.likelihood, "noise": objective.noise}
  of_pixels = functools.partial(log_likelihood, **options)
  weigh = functools.partial(log_weights, context.run.model, log_likelihood=of_pixels, samples=SAMPLES)
  logs = context.each(weigh, x, context.given("test", numbers))
  if not np.isfinite(logs).all():
    yield "likelihood", "the likelihood of some test examples is no finite number: the training diverged"
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
        "the data are grey, and of numbers between 0 and 1 the bernoulli likelihood is no normalised density: its nats "
        "compare models that have it on the same data, and nothing else"
      ),
    )
  powers = np.arange(SAMPLES.bit_length())
  bounds = np.array([-log_means(logs, 1 << power).mean() for power in powers])
  title = f"the negative log-likelihood of {len(x):,} test examples, bounded by more and more samples"
  lines = {"importance-weighted bound": np.stack([powers, bounds])}
  yield "likelihood_bound", Lines(title, lines, "logarithm of the samples for an example, base 2", "nats per example")


def log_likelihood(logits, x, *, value_range, likelihood, noise):
  """log p(x | z) in nats per example [B], of logits and examples [B, ...]; `noise` is the gaussian's deviation."""
  if likelihood == "bernoulli":
    return -losses.bernoulli_nats(logits, x)
  error = losses.squared_error(losses.OUTPUT_ACTIVATIONS[value_range](logits), x)
  return -losses.gaussian_nats(error, math.prod(x.shape[1:]), noise)


def log_weights(model, variables, x, given, keys, *, log_likelihood, samples):
  """Returns log w_k in nats, [B, samples], of examples x [B, ...], from whose posteriors a key each draws."""
  mean, log_variance = model.encode(variables, x, given).posterior
  normal = jax.vmap(lambda key: jax.random.normal(key, (samples, *mean.shape[1:]), mean.dtype))(keys)

  def weigh(normal):
    z = mean + jnp.exp(0.5 * log_variance) * normal
    log_posterior = -0.5 * losses.flat(jnp.square(normal) + log_variance + math.log(2 * math.pi)).sum(-1)
    return log_likelihood(model.decode(variables, z, given), x) + model.log_prior(variables, z) - log_posterior

  return jax.lax.map(weigh, normal.swapaxes(0, 1)).T


def log_means(logs, samples):
  """log mean_k w_k of each `samples` successive weights, from their logarithms [N, K]: float64 [N, K / samples]."""
  groups = logs.reshape(len(logs), -1, samples).astype(np.float64)
  most = groups.max(-1, keepdims=True)
  return most[..., 0] + np.log(np.exp(groups - most).mean(-1))


def effective_samples(logs):
  """(sum of w)^2 / sum of w^2, float64 [N] from 1 to K: how many of the weights with these logarithms [N, K] count."""
  weights = np.exp((logs - logs.max(1, keepdims=True)).astype(np.float64))
  return np.square(weights.sum(1)) / np.square(weights).sum(1)

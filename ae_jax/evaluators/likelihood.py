"""Evaluates importance-weighted bounds on the log-likelihood of a variational autoencoder; see `objectives.bounds`."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ae_jax.evaluators import reconstruction
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.evaluators.figures import Lines
from ae_jax.objectives import bounds

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
  log_p = functools.partial(bounds.log_likelihood, context.run.model, **options)
  weigh = functools.partial(bounds.log_weights, context.run.model, log_likelihood=log_p, samples=SAMPLES)
  logs = context.map_examples(weigh, x, context.columns("test", indices))
  if not np.isfinite(logs).all():
    yield (
      "likelihood",
      "the likelihood of some test examples is not finite: training diverged; lower config.optimizer.learning_rate",
    )
    return
  nll = -bounds.log_means(logs, SAMPLES)[:, 0]
  yield "nll", float(nll.mean())
  yield "nll_standard_error", float(nll.std(ddof=1) / math.sqrt(len(nll))) if len(nll) > 1 else math.nan
  yield "negative_elbo", float(-logs.mean(dtype=np.float64))
  yield "effective_samples", float(bounds.effective_samples(logs).mean())
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
  nats = np.array([-bounds.log_means(logs, 1 << power).mean() for power in powers])
  title = f"Upper bound on the negative log-likelihood of {len(x):,} test examples, by number of posterior samples"
  lines = {"importance-weighted bound": np.stack([np.asarray(powers), nats])}
  yield "likelihood_bound", Lines(title, lines, "samples per example, log2", "nats per example")

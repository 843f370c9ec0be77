"""Bounds on known likelihoods: probabilistic PCA in closed form, a bernoulli decoder by quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from made_contexts import fake
from scipy import special, stats

from ae_jax import api, data, models, objectives
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import likelihood
from ae_jax.objectives import bounds
from ae_jax.ops import losses, randomness

pytestmark = pytest.mark.quick_compile

NOISE = 0.3
GAUSSIAN = {"value_range": "real", "likelihood": "gaussian", "noise": NOISE}
BERNOULLI = {"value_range": "unit", "likelihood": "bernoulli", "noise": 1.0}


def encode(variables, x, given):
  """Returns the posterior N((x - b) M + shift, variance) of a linear model."""
  params = variables.params
  mean = (losses.flat(x) - params["bias"][None]) @ params["matrix"] + params["shift"]
  return models.Encoding(mean, models.Gaussian(mean, jnp.broadcast_to(jnp.log(params["variance"])[None], mean.shape)))


def decode(variables, z, given):
  return (z @ variables.params["weights"] + variables.params["bias"][None])[..., None]


def log_prior(variables, z):
  return jax.scipy.stats.norm.logpdf(z).sum(-1)


LINEAR = fake(models.Model, encode=encode, decode=decode, log_prior=log_prior)


def probabilistic_pca(stretch=1.0, shift=0.0):
  """Returns parameters, examples and their log p(x); the posterior is exact except for `stretch` and `shift`.

  The directions of the 2 units are orthogonal, so that the exact posterior has a diagonal covariance.
  """
  generator = np.random.default_rng(0)
  weights = np.linalg.qr(generator.normal(size=(6, 2)))[0].T * [[1.5], [0.7]]
  bias = generator.normal(size=6)
  precision = 1.0 + np.square(weights).sum(1) / NOISE**2
  exact = stats.multivariate_normal(bias, weights.T @ weights + NOISE**2 * np.eye(6))
  x = exact.rvs(400, random_state=1).astype(np.float32).reshape(-1, 6, 1)
  params = {"weights": weights, "bias": bias, "matrix": weights.T / NOISE**2 / precision, "shift": shift}
  return params | {"variance": stretch**2 / precision}, x, exact.logpdf(x.reshape(-1, 6))


@functools.partial(jax.jit, static_argnames=("likelihood_name", "samples"))
def weigh(params, x, keys, likelihood_name, samples):
  options = {"gaussian": GAUSSIAN, "bernoulli": BERNOULLI}[likelihood_name]
  log_p = functools.partial(bounds.log_likelihood, LINEAR, **options)
  variables = models.Variables(params)
  return bounds.log_weights(LINEAR, variables, x, {}, keys, log_likelihood=log_p, samples=samples)


def logs_of(params, x, likelihood_name="gaussian", samples=256):
  params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
  return np.asarray(
    weigh(params, x, randomness.example_keys(jax.random.key(3), np.arange(len(x))), likelihood_name, samples)
  )


def test_each_weight_is_the_likelihood_if_the_posterior_is_exact():
  params, x, exact = probabilistic_pca()
  logs = logs_of(params, x)
  np.testing.assert_allclose(logs, np.repeat(exact[:, None], 256, 1), atol=2e-3)
  np.testing.assert_allclose(bounds.effective_samples(logs), 256, rtol=1e-3)


@pytest.mark.parametrize(("stretch", "shift"), [(1.5, 0.0), (1.2, 0.1), (0.9, -0.1)])
def test_the_bound_of_probabilistic_pca_lies_between_the_elbo_and_the_likelihood(stretch, shift):
  params, x, exact = probabilistic_pca(stretch, shift)
  logs = logs_of(params, x)
  means = [bounds.log_means(logs, 1 << power).mean() for power in range(9)]
  assert (np.diff(means) > 0).all()
  gaps = bounds.log_means(logs, 256)[:, 0] - exact  # over the same examples, so that only the samples differ
  assert means[0] < exact.mean() - 0.02
  assert abs(gaps.mean()) < 4 * gaps.std() / len(x) ** 0.5 + 1e-3
  assert means[0] == pytest.approx(logs.mean(), abs=1e-4)


def test_the_bound_of_a_bernoulli_decoder_agrees_with_quadrature():
  generator = np.random.default_rng(0)
  weights, bias = generator.normal(size=(1, 5)), generator.normal(size=5)
  x = generator.integers(0, 2, (30, 5, 1)).astype(np.float32)
  params = {"weights": weights, "bias": bias, "matrix": weights.T / 5, "shift": 0.0, "variance": np.ones(1)}
  nodes, shares = np.polynomial.hermite_e.hermegauss(60)
  logits = nodes[:, None] * weights + bias
  log_p = special.log_expit(np.where(x[:, None, :, 0] > 0, logits, -logits)).sum(-1)  # [examples, nodes]
  expected = special.logsumexp(log_p, axis=1, b=shares / shares.sum())
  results = bounds.log_means(logs_of(params, x, "bernoulli", 2048), 2048)[:, 0]
  np.testing.assert_allclose(results, expected, atol=0.15)
  assert abs((results - expected).mean()) < 0.02


@pytest.mark.parametrize(
  ("options", "density"),
  [
    (BERNOULLI, lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits))),
    (GAUSSIAN, lambda x, logits: stats.norm.logpdf(x, logits, NOISE)),
    ({**GAUSSIAN, "value_range": "unit"}, lambda x, logits: stats.norm.logpdf(x, special.expit(logits), NOISE)),
  ],
)
def test_the_likelihood_of_pixels_agrees_with_scipy(options, density):
  generator = np.random.default_rng(0)
  logits, x = generator.normal(size=(7, 3, 2, 1)), generator.integers(0, 2, (7, 3, 2, 1))
  results = bounds.log_likelihood(LINEAR, *(jnp.asarray(array, jnp.float32) for array in (logits, x)), **options)
  np.testing.assert_allclose(results, density(x, logits).reshape(7, -1).sum(1), rtol=1e-5)


def test_log_means_and_effective_samples_of_known_weights():
  weights = np.array([[1.0, 3.0, 5.0, 7.0]])
  np.testing.assert_allclose(bounds.log_means(np.log(weights) - 900.0, 4), np.log([[4.0]]) - 900.0)
  np.testing.assert_allclose(bounds.log_means(np.log(weights), 2), np.log([[2.0, 6.0]]))
  np.testing.assert_allclose(bounds.effective_samples(np.log(weights) + 900.0), 16**2 / 84)
  np.testing.assert_allclose(bounds.effective_samples(np.array([[-500.0, 0.0, -500.0]])), 1.0)


@pytest.mark.parametrize("samples", [1, 4, 32])
def test_log_means_agree_with_scipy_in_double_precision(samples):
  logs = (100 * np.random.default_rng(0).normal(size=(5, 32))).astype(np.float32)
  groups = logs.reshape(5, -1, samples).astype(np.float64)
  expected = special.logsumexp(groups, axis=2, b=1 / samples)
  np.testing.assert_allclose(bounds.log_means(logs, samples), expected, rtol=1e-13)


def context_of(test, value_range="unit", labels=None, one_class=None, **objective):
  """Returns the context of a variational autoencoder with random weights and these test examples."""
  config = config_of("vae", "digits")
  config.data.range = value_range
  config.objective.update(objective)
  config.model.update(latent=3, widths=(8,))
  dataset = data.Dataset("made", value_range, test, test, None, labels, one_class)
  model = models.build(shape=dataset.shape, **config.model)
  generator = np.random.default_rng(0)
  normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) / leaf.shape[0] ** 0.5
  variables = jax.tree.map(normal, model.abstract_variables())
  return contexts.EvalContext(api.Run(variables, config, {}, [], model, 0), dataset)


def examples(count):
  return np.random.default_rng(0).uniform(size=(count, 4, 3, 1)).astype(np.float32)


@functools.cache
def bernoulli():
  """Returns the results for nine grey examples."""
  return dict(likelihood.analyze(context_of(examples(9))))


def test_the_elbo_equals_that_of_the_objective():
  context = context_of(examples(9), "symmetric", likelihood="gaussian", noise=0.5)
  objective = objectives.build(model=context.run.model, value_range="symmetric", **context.run.config.objective)
  batch = {"x": np.repeat(context.test, 1000, 0), "weight": np.ones(9000, np.float32)}
  keys = randomness.example_keys(jax.random.key(1), np.arange(9000))
  loss, _ = jax.jit(functools.partial(objective, context.run.model))(context.run.variables, batch, keys)
  results = dict(likelihood.analyze(context))
  assert results["negative_elbo"] == pytest.approx(float(loss), rel=0.02)
  assert results["nll"] < results["negative_elbo"]
  assert "likelihood" not in results  # a note


def test_the_standard_error_is_that_of_the_mean(monkeypatch):
  logs = np.random.default_rng(0).normal(size=(5, likelihood.SAMPLES))
  monkeypatch.setattr(contexts.EvalContext, "map_examples", lambda *_: logs)
  nll = -np.log(np.exp(logs).mean(1))
  assert dict(likelihood.analyze(context_of(examples(5))))["nll_standard_error"] == pytest.approx(stats.sem(nll))


def test_anomalies_do_not_count_in_the_likelihood():
  kept = np.array([0, 1, 2])  # the first ones, because the noise of an example depends on its index
  labels = np.where(np.isin(np.arange(9), kept), 3, 5)
  results = dict(likelihood.analyze(context_of(examples(9), labels=labels, one_class=3)))
  assert results["likelihood_examples"] == 3
  assert results["nll"] == pytest.approx(dict(likelihood.analyze(context_of(examples(9)[kept])))["nll"], rel=1e-6)


def test_the_likelihood_does_not_depend_on_the_batch_size(monkeypatch):
  monkeypatch.setattr(contexts, "_BATCH", 4)
  results = dict(likelihood.analyze(context_of(examples(9))))
  for name in ("nll", "nll_standard_error", "negative_elbo", "effective_samples"):
    assert results[name] == pytest.approx(bernoulli()[name], rel=1e-6), name


def test_grey_pixels_have_a_remark_on_the_bernoulli_likelihood():
  assert "not a normalised density" in bernoulli()["likelihood"]
  assert bernoulli()["likelihood_examples"] == 9


def test_the_standard_error_of_one_example_is_nan(monkeypatch):
  monkeypatch.setattr(likelihood, "MAX_EXAMPLES", 1)
  results = dict(likelihood.analyze(context_of(np.round(examples(5)))))
  assert results["likelihood_examples"] == 1
  assert np.isfinite(results["nll"])
  assert np.isnan(results["nll_standard_error"])
  assert "likelihood" not in results  # the pixels are black and white


def test_large_sets_are_represented_by_evenly_spaced_examples(monkeypatch):
  expected = dict(likelihood.analyze(context_of(examples(9)[[0, 4, 8]])))
  monkeypatch.setattr(likelihood, "MAX_EXAMPLES", 3)
  results = dict(likelihood.analyze(context_of(examples(9))))
  assert results["likelihood_examples"] == 3
  assert results["nll"] == pytest.approx(expected["nll"], rel=1e-6)


@pytest.mark.parametrize(("full_examples", "count"), [(0.5, 1), (1, 1), (2.9, 2), (5, 5), (50, 9)])
def test_fewer_large_examples_are_used_but_at_least_one(monkeypatch, full_examples, count):
  monkeypatch.setattr(likelihood, "_MAX_ELEMENTS", int(full_examples * likelihood.SAMPLES * 12))
  assert dict(likelihood.analyze(context_of(examples(9))))["likelihood_examples"] == count


def test_a_likelihood_that_is_not_finite_has_only_a_remark(monkeypatch):
  monkeypatch.setattr(contexts.EvalContext, "map_examples", lambda *_: np.array([[0.0, np.nan]]))
  assert [name for name, _ in likelihood.analyze(context_of(examples(3)))] == ["likelihood"]


def test_the_figure_starts_at_the_elbo_and_ends_at_the_bound():
  powers, nats = bernoulli()["likelihood_bound"].lines["importance-weighted bound"]
  assert 2 ** powers[-1] == bernoulli()["likelihood_samples"] == likelihood.SAMPLES
  np.testing.assert_allclose(nats[[0, -1]], [bernoulli()["negative_elbo"], bernoulli()["nll"]])

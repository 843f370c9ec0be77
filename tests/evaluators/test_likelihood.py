"""Bounds on likelihoods that are known: of probabilistic PCA in closed form, of a bernoulli decoder by quadrature."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from scipy import special, stats

from ae_jax import api, data, models, objectives
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import likelihood
from ae_jax.ops import losses, randomness

NOISE = 0.3
GAUSSIAN = {"value_range": "real", "likelihood": "gaussian", "noise": NOISE}
BERNOULLI = {"value_range": "unit", "likelihood": "bernoulli", "noise": 1.0}


def encode(params, x, given):
  """N((x - b) M + shift, variance), of a linear model."""
  mean = (losses.flat(x) - params["bias"][None]) @ params["matrix"] + params["shift"]
  return models.Encoding(mean, models.Gaussian(mean, jnp.broadcast_to(jnp.log(params["variance"])[None], mean.shape)))


def decode(params, z, given):
  return (z @ params["weights"] + params["bias"][None])[..., None]


def log_prior(params, z):
  return jax.scipy.stats.norm.logpdf(z).sum(-1)


LINEAR = types.SimpleNamespace(encode=encode, decode=decode, log_prior=log_prior)


def probabilistic_pca(stretch=1.0, shift=0.0):
  """One of 6 numbers and 2 units, whose posterior is exact but `stretch` times as wide and `shift` off.

  The directions of the units are orthogonal, so that the exact posterior has a diagonal covariance.
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
  of_pixels = functools.partial(likelihood.log_likelihood, **options)
  return likelihood.log_weights(LINEAR, params, x, {}, keys, log_likelihood=of_pixels, samples=samples)


def logs_of(params, x, likelihood_name="gaussian", samples=256):
  params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
  return np.asarray(
    weigh(params, x, randomness.example_keys(jax.random.key(3), np.arange(len(x))), likelihood_name, samples)
  )


def test_with_the_exact_posterior_each_weight_is_the_likelihood():
  params, x, exact = probabilistic_pca()
  logs = logs_of(params, x)
  np.testing.assert_allclose(logs, np.repeat(exact[:, None], 256, 1), atol=2e-3)
  np.testing.assert_allclose(likelihood.effective_samples(logs), 256, rtol=1e-3)


@pytest.mark.parametrize(("stretch", "shift"), [(1.5, 0.0), (1.2, 0.1), (0.9, -0.1)])
def test_of_probabilistic_pca_the_bound_lies_between_the_elbo_and_the_truth(stretch, shift):
  params, x, exact = probabilistic_pca(stretch, shift)
  logs = logs_of(params, x)
  bounds = [likelihood.log_means(logs, 1 << power).mean() for power in range(9)]
  assert (np.diff(bounds) > 0).all()
  gaps = likelihood.log_means(logs, 256)[:, 0] - exact  # the same examples, so that only the samples make a difference
  assert bounds[0] < exact.mean() - 0.02
  assert abs(gaps.mean()) < 4 * gaps.std() / len(x) ** 0.5 + 1e-3
  assert bounds[0] == pytest.approx(logs.mean(), abs=1e-4)


def test_of_a_bernoulli_decoder_it_agrees_with_quadrature():
  generator = np.random.default_rng(0)
  weights, bias = generator.normal(size=(1, 5)), generator.normal(size=5)
  x = generator.integers(0, 2, (30, 5, 1)).astype(np.float32)
  params = {"weights": weights, "bias": bias, "matrix": weights.T / 5, "shift": 0.0, "variance": np.ones(1)}
  nodes, shares = np.polynomial.hermite_e.hermegauss(60)
  logits = nodes[:, None] * weights + bias
  log_p = special.log_expit(np.where(x[:, None, :, 0] > 0, logits, -logits)).sum(-1)  # [examples, nodes]
  wanted = special.logsumexp(log_p, axis=1, b=shares / shares.sum())
  found = likelihood.log_means(logs_of(params, x, "bernoulli", 2048), 2048)[:, 0]
  np.testing.assert_allclose(found, wanted, atol=0.15)
  assert abs((found - wanted).mean()) < 0.02


@pytest.mark.parametrize(
  ("options", "density"),
  [
    (BERNOULLI, lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits))),
    (GAUSSIAN, lambda x, logits: stats.norm.logpdf(x, logits, NOISE)),
    ({**GAUSSIAN, "value_range": "unit"}, lambda x, logits: stats.norm.logpdf(x, special.expit(logits), NOISE)),
  ],
)
def test_the_likelihood_of_pixels_is_that_of_scipy(options, density):
  generator = np.random.default_rng(0)
  logits, x = generator.normal(size=(7, 3, 2, 1)), generator.integers(0, 2, (7, 3, 2, 1))
  found = likelihood.log_likelihood(*(jnp.asarray(each, jnp.float32) for each in (logits, x)), **options)
  np.testing.assert_allclose(found, density(x, logits).reshape(7, -1).sum(1), rtol=1e-5)


def test_log_means_and_effective_samples_of_known_weights():
  weights = np.array([[1.0, 3.0, 5.0, 7.0]])
  np.testing.assert_allclose(likelihood.log_means(np.log(weights) - 900.0, 4), np.log([[4.0]]) - 900.0)
  np.testing.assert_allclose(likelihood.log_means(np.log(weights), 2), np.log([[2.0, 6.0]]))
  np.testing.assert_allclose(likelihood.effective_samples(np.log(weights) + 900.0), 16**2 / 84)
  np.testing.assert_allclose(likelihood.effective_samples(np.array([[-500.0, 0.0, -500.0]])), 1.0)


@pytest.mark.parametrize("samples", [1, 4, 32])
def test_log_means_are_those_of_scipy_in_double_precision(samples):
  logs = (100 * np.random.default_rng(0).normal(size=(5, 32))).astype(np.float32)
  groups = logs.reshape(5, -1, samples).astype(np.float64)
  wanted = special.logsumexp(groups, axis=2, b=1 / samples)
  np.testing.assert_allclose(likelihood.log_means(logs, samples), wanted, rtol=1e-13)


def subject_of(test, value_range="unit", labels=None, one_class=None, **objective):
  """A variational autoencoder with random weights and these test examples."""
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
  """What is found of nine grey examples."""
  return dict(likelihood.analyze(subject_of(examples(9))))


def test_the_elbo_is_that_of_the_objective():
  made = subject_of(examples(9), "symmetric", likelihood="gaussian", noise=0.5)
  objective = objectives.build(model=made.run.model, value_range="symmetric", **made.run.config.objective)
  batch = {"x": np.repeat(made.test, 1000, 0), "weight": np.ones(9000, np.float32)}
  keys = randomness.example_keys(jax.random.key(1), np.arange(9000))
  loss, _ = jax.jit(functools.partial(objective, made.run.model))(made.run.variables, batch, keys)
  found = dict(likelihood.analyze(made))
  assert found["negative_elbo"] == pytest.approx(float(loss), rel=0.02)
  assert found["nll"] < found["negative_elbo"]
  assert "likelihood" not in found  # a remark


def test_its_standard_error_is_that_of_a_mean(monkeypatch):
  logs = np.random.default_rng(0).normal(size=(5, likelihood.SAMPLES))
  monkeypatch.setattr(contexts.EvalContext, "each", lambda *_: logs)
  nll = -np.log(np.exp(logs).mean(1))
  assert dict(likelihood.analyze(subject_of(examples(5))))["nll_standard_error"] == pytest.approx(stats.sem(nll))


def test_of_one_class_the_likelihood_is_of_its_test_examples_alone():
  kept = np.array([0, 1, 2])  # the noise of an example is that of its number
  labels = np.where(np.isin(np.arange(9), kept), 3, 5)
  found = dict(likelihood.analyze(subject_of(examples(9), labels=labels, one_class=3)))
  assert found["likelihood_examples"] == 3
  assert found["nll"] == pytest.approx(dict(likelihood.analyze(subject_of(examples(9)[kept])))["nll"], rel=1e-6)


def test_the_batches_do_not_change_it(monkeypatch):
  monkeypatch.setattr(contexts, "_BATCH", 4)
  found = dict(likelihood.analyze(subject_of(examples(9))))
  for name in ("nll", "nll_standard_error", "negative_elbo", "effective_samples"):
    assert found[name] == pytest.approx(bernoulli()[name], rel=1e-6), name


def test_of_grey_pixels_it_is_said_that_a_bernoulli_likelihood_is_no_density():
  assert "no normalised density" in bernoulli()["likelihood"]
  assert bernoulli()["likelihood_examples"] == 9


def test_of_large_sets_some_examples_speak_and_a_single_one_has_no_error(monkeypatch):
  monkeypatch.setattr(likelihood, "EXAMPLES", 1)
  found = dict(likelihood.analyze(subject_of(np.round(examples(5)))))
  assert found["likelihood_examples"] == 1
  assert np.isfinite(found["nll"])
  assert np.isnan(found["nll_standard_error"])
  assert "likelihood" not in found  # the pixels are black and white


def test_of_many_examples_those_at_even_distances_speak_for_all(monkeypatch):
  wanted = dict(likelihood.analyze(subject_of(examples(9)[[0, 4, 8]])))
  monkeypatch.setattr(likelihood, "EXAMPLES", 3)
  found = dict(likelihood.analyze(subject_of(examples(9))))
  assert found["likelihood_examples"] == 3
  assert found["nll"] == pytest.approx(wanted["nll"], rel=1e-6)


@pytest.mark.parametrize(("examples_", "count"), [(0.5, 1), (1, 1), (2.9, 2), (5, 5), (50, 9)])
def test_of_large_examples_fewer_are_looked_at_but_one(monkeypatch, examples_, count):
  monkeypatch.setattr(likelihood, "_MOST_NUMBERS", int(examples_ * likelihood.SAMPLES * 12))
  assert dict(likelihood.analyze(subject_of(examples(9))))["likelihood_examples"] == count


def test_a_likelihood_that_is_not_finite_is_said(monkeypatch):
  monkeypatch.setattr(contexts.EvalContext, "each", lambda *_: np.array([[0.0, np.nan]]))
  assert [name for name, _ in likelihood.analyze(subject_of(examples(3)))] == ["likelihood"]


def test_the_picture_goes_from_the_elbo_to_the_bound():
  powers, bounds = bernoulli()["likelihood_bound"].lines["importance-weighted bound"]
  assert 2 ** powers[-1] == bernoulli()["likelihood_samples"] == likelihood.SAMPLES
  np.testing.assert_allclose(bounds[[0, -1]], [bernoulli()["negative_elbo"], bernoulli()["nll"]])

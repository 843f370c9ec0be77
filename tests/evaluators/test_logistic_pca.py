import made_contexts
import numpy as np
import pytest
from scipy import optimize

from ae_jax import data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import logistic_pca
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile


def grey(*shape, seed=0):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def objective(codes, weights, x, ridge):
  """Returns the objective in nats per example, including the ridge, in double precision."""
  codes, weights, x = (np.float64(array) for array in (codes, weights, x))
  logits = codes @ weights[:-1] + weights[-1]
  nats = np.logaddexp(0, logits) - x * logits
  return (nats.sum() + 0.5 * ridge * (np.square(codes).sum() + np.square(weights[:-1]).sum())) / len(x)


def by_scipy(x, latent, ridge, tries=6):
  """Returns the lowest objective that L-BFGS finds from several starts."""
  count, size = x.shape

  def unpacked(flat):
    return flat[: count * latent].reshape(count, latent), flat[count * latent :].reshape(latent + 1, size)

  def value(flat):
    codes, weights = unpacked(flat)
    logits = codes @ weights[:-1] + weights[-1]
    residual = (1 / (1 + np.exp(-logits)) - x) / count
    ridged = ridge / count
    slopes = residual @ weights[:-1].T + ridged * codes, codes.T @ residual + ridged * weights[:-1], residual.sum(0)
    return objective(codes, weights, x, ridge), np.concatenate([slope.ravel() for slope in slopes])

  starts = np.random.default_rng(0).normal(size=(tries, count * latent + (latent + 1) * size))
  options = {"maxiter": 5000, "ftol": 1e-13, "gtol": 1e-9}
  results = [optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
  return min(result.fun for result in results)


@pytest.mark.parametrize(("latent", "ridge"), [(1, 0.1), (2, 0.3), (1, 1.0)])
def test_the_fit_reaches_the_minimum_of_scipy(latent, ridge):
  x = grey(24, 12)
  (codes, weights), objectives = logistic_pca.fit(x, latent, ridge, tolerance=1e-8, max_sweeps=500)
  assert objective(codes, weights, x, ridge) == pytest.approx(objectives[-1], rel=1e-5)
  assert objectives[-1] == pytest.approx(by_scipy(np.float64(x), latent, ridge), rel=1e-4)


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
def test_the_objective_falls_with_every_sweep_and_is_returned_exactly(ridge):
  x = np.round(grey(24, 12) ** 2)
  (codes, weights), objectives = logistic_pca.fit(x, 2, ridge, max_sweeps=30)
  assert (np.diff(objectives) <= 0).all()
  assert objectives[-1] < objectives[0]
  assert objective(codes, weights, x, ridge) == pytest.approx(objectives[-1], rel=1e-5)


def test_binary_data_that_a_plane_separates_have_almost_no_nats():
  generator = np.random.default_rng(0)
  x = (generator.normal(size=(24, 2)) @ generator.normal(size=(2, 12)) > 0).astype(np.float32)
  plane, line = (logistic_pca.fit(x, latent, 1e-5, 1e-6, 200)[0] for latent in (2, 1))
  assert objective(*plane, x, 0.0) < 0.01 * 12 * np.log(2)
  assert objective(*line, x, 0.0) > 0.1 * 12 * np.log(2)


def test_data_of_a_logistic_model_are_fitted_down_to_their_entropy():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(24, 2)) @ generator.normal(size=(2, 12)) + generator.normal(size=12)
  x = (1 / (1 + np.exp(-logits))).astype(np.float32)
  solution, _ = logistic_pca.fit(x, 2, 1e-5, 1e-8, 200)
  floor = float(losses.bernoulli_entropy(x).mean())
  assert floor < objective(*solution, x, 0.0) < floor + 0.005


@pytest.mark.parametrize("seed", [0, 1])
def test_the_codes_of_test_examples_minimise_the_objective_given_the_weights(seed):
  """The start is far away: the bias makes all pixels black, and half of them are white."""
  weights, x = np.random.default_rng(seed).normal(size=(3, 12)), np.round(grey(24, 12, seed=seed))
  weights[-1] = -12.0
  codes, gradients = logistic_pca.codes_of(x, weights.astype(np.float32), 0.05)
  assert gradients.max() < 1e-3
  for code, example in zip(codes, x, strict=True):
    minimum = optimize.minimize(lambda z, x=example: objective(z[None], weights, x[None], 0.05), np.zeros(2), tol=1e-9)
    value = objective(code[None], weights, example[None], 0.05)
    assert value == pytest.approx(minimum.fun, rel=1e-6)


def test_codes_do_not_depend_on_other_examples(monkeypatch):
  weights, x = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32), grey(24, 12)
  expected, _ = logistic_pca.codes_of(x, weights, 0.05)
  monkeypatch.setattr(logistic_pca, "_ROWS", 5)
  results, _ = logistic_pca.codes_of(x[::-1], weights, 0.05)
  np.testing.assert_allclose(results[::-1], expected, atol=1e-5)


def test_constant_examples_fewer_than_the_latent_size_are_fitted():
  same = np.full((3, 12), 0.25, np.float32)
  (codes, weights), objectives = logistic_pca.fit(same, 40, 1e-4)
  assert np.isfinite(objectives).all()
  np.testing.assert_allclose(1 / (1 + np.exp(-(codes @ weights[:-1] + weights[-1]))), same, atol=1e-3)


def context_of(value_range="unit", latent=2, labels=None, one_class=None):
  train, test = (grey(24, 3, 4, 1, seed=seed) for seed in (1, 2))
  run = made_contexts.fake_run(made_contexts.fake_model(latent), lambda method, x, given: np.full_like(x, 0.5))
  return contexts.EvalContext(run, data.Dataset("made", value_range, train, test, None, labels, one_class))


def test_the_analysis_compares_the_model_with_logistic_pca():
  context = context_of()
  results = dict(logistic_pca.analyze(context))
  (_, weights), _ = logistic_pca.fit(context.train.reshape(24, -1), 2, logistic_pca.RIDGE)
  codes, _ = logistic_pca.codes_of(context.test.reshape(24, -1), weights, logistic_pca.RIDGE)
  assert results["nats"] == pytest.approx(objective(codes, weights, context.test.reshape(24, -1), 0.0), rel=1e-5)
  assert results["squared_error"] < (error := np.square(context.test - 0.5).sum() / 24)
  assert results["model_over_logistic_pca"] == pytest.approx(error / results["squared_error"], rel=1e-5)
  assert (results["training_examples"], results["test_examples"]) == (24, 24)
  assert results["largest_gradient_of_a_code"] < 1e-3


def test_anomalies_do_not_count():
  results = dict(logistic_pca.analyze(context_of(labels=np.arange(24) % 3, one_class=0)))
  assert results["test_examples"] == 8


@pytest.mark.parametrize(
  ("options", "remark"),
  [
    ({"value_range": "real"}, "'logistic_pca' needs data in [0, 1]; set config.data.range='unit'"),
    ({"value_range": "symmetric"}, "'logistic_pca' needs data in [0, 1]; set config.data.range='unit'"),
    ({"latent": 129}, "logistic PCA is not fitted: the latent size of this model is 129, and the limit is 128"),
  ],
)
def test_unsupported_models_and_data_have_only_a_remark(options, remark):
  assert list(logistic_pca.EVALUATOR.analyze(context_of(**options))) == [("remark", remark)]

import dataclasses
import functools

import jax
import jax.numpy as jnp
import made_contexts
import numpy as np
import optax
import pytest
from conftest import config_of
from scipy import spatial, stats
from scipy.special import expit
from sklearn.decomposition import PCA

from ae_jax import api, data, errors, models, objectives
from ae_jax.data import batch_schedule
from ae_jax.decisions import scores, thresholds
from ae_jax.evaluators import anomaly, pca
from ae_jax.evaluators.context import EvalContext
from ae_jax.ops import losses
from ae_jax.training import steps

pytestmark = pytest.mark.quick_compile


def dataset_of(train, test, labels, one_class=0):
  return data.Dataset("made", "real", train, test, np.zeros(len(train), int), np.asarray(labels), one_class)


def random_dataset(labels=(0, 1, 0, 2, 0, 1, 0), shape=(6, 2)):
  generator = np.random.default_rng(0)
  return dataset_of(*(generator.normal(size=(n, *shape)).astype(np.float32) for n in (9, len(labels))), labels)


def share_of_pairs(score, anomalous):
  """Returns the fraction of (anomalous, normal) pairs in which the anomaly scores higher; ties count half."""
  won = [(a > n) + 0.5 * (a == n) for a in score[anomalous] for n in score[~anomalous]]
  return sum(won) / len(won)


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with few
def test_auroc_is_the_share_of_pairs_in_the_right_order(levels):
  generator = np.random.default_rng(levels)
  score, anomalous = generator.integers(0, levels, 80).astype(np.float32), generator.uniform(size=80) < 0.3
  assert anomaly.auroc(score, anomalous) == pytest.approx(share_of_pairs(score, anomalous))
  assert anomaly.auroc(-score, anomalous) == pytest.approx(1 - share_of_pairs(score, anomalous))


@pytest.mark.parametrize(("anomalies", "normal", "shift"), [(8, 60, 1.5), (40, 40, 0.5), (200, 200, 2.0)])
def test_auroc_interval_covers_the_true_area(anomalies, normal, shift):
  """In about 95 % of draws of Gaussian scores, whose area is known; also for few anomalies."""
  generator, true = np.random.default_rng(0), stats.norm.cdf(shift / np.sqrt(2))
  scores = generator.normal(size=(400, anomalies + normal)) + shift * (np.arange(anomalies + normal) < anomalies)
  ranks = scores.argsort(1).argsort(1)[:, :anomalies].sum(1) - anomalies * (anomalies - 1) / 2
  bounds = np.array([anomaly.auroc_interval(area, anomalies, normal) for area in ranks / (anomalies * normal)])
  assert 0.91 < ((bounds[:, 0] <= true) & (true <= bounds[:, 1])).mean() < 0.99


def test_auroc_interval_is_symmetric_shrinks_and_is_in_the_unit_interval():
  for area in (0.0, 0.3, 0.97, 1.0):
    low, high = anomaly.auroc_interval(area, 5, 40)
    assert 0 <= low <= area <= high <= 1
    assert high - low > 0.1
    assert anomaly.auroc_interval(1 - area, 40, 5) == pytest.approx((1 - high, 1 - low))
    few, many = anomaly.auroc_interval(area, 5, 40), anomaly.auroc_interval(area, 500, 4000)
    assert many[1] - many[0] < (few[1] - few[0]) / 3
  assert np.isnan(anomaly.auroc_interval(np.nan, 5, 5)).all()


def test_auroc_interval_of_a_proportion_is_wilsons():
  """With one anomaly and one normal example, the area is a proportion of one trial."""
  assert anomaly.auroc_interval(1.0, 1, 1) == pytest.approx(thresholds.wilson(1, 1))


def test_auprc_is_the_mean_precision_at_each_anomaly():
  generator = np.random.default_rng(0)
  score, anomalous = generator.permutation(80).astype(np.float32), generator.uniform(size=80) < 0.3
  precisions = [anomalous[score >= threshold].mean() for threshold in score[anomalous]]
  assert anomaly.auprc(score, anomalous) == pytest.approx(np.mean(precisions))


def test_separating_scores_have_area_one_and_equal_scores_have_chance():
  dataset = random_dataset()
  separated = dict(anomaly.metrics({"anomaly_score": np.where(dataset.anomalous, 2.0, 0.5)}, dataset))
  assert separated == {
    "test/auroc": 1.0,
    "test/auprc": 1.0,
    "test/anomalous_squared_error": 2.0,
  }
  equal = dict(anomaly.metrics({"anomaly_score": np.ones(7)}, dataset))
  assert equal["test/auroc"] == 0.5
  assert (
    equal["test/auprc"]
    == dict(anomaly.baselines(dataset, models.CodeSpec((1,))))["test/chance_auprc"]
    == pytest.approx(3 / 7)
  )


def test_a_score_that_is_not_finite_gives_nan_areas():
  results = dict(anomaly.metrics({"anomaly_score": np.array([1, np.nan, 1, 1, 1, 1, 1])}, random_dataset()))
  assert np.isnan([results["test/auroc"], results["test/auprc"]]).all()


def test_a_reference_that_is_not_finite_gives_nan_areas():
  train, test = (np.random.default_rng(seed).random((30, 4, 4, 1), np.float32) for seed in range(2))
  context = made_contexts.context_of(train, test, one_class=0)
  vars(context)["reference"] = context.reference._replace(element_errors=np.full((4, 4, 1), np.inf, np.float32))
  for kind in ("normalised", "knn"):
    score = anomaly.SCORES[kind][1](context)
    assert np.isnan(anomaly.auroc(score, context.dataset.anomalous))


def test_pca_detects_examples_outside_the_plane_of_the_training_data():
  generator = np.random.default_rng(0)
  plane = generator.normal(size=(30, 3)) @ generator.normal(size=(3, 12))
  labels = np.repeat([0, 1], 5)
  test = plane[20:] + labels[:, None] * generator.normal(size=(10, 12))
  train, test = (x.astype(np.float32).reshape(-1, 6, 2) for x in (plane[:20], test))
  dataset = dataset_of(train, test, labels)
  assert dict(anomaly.baselines(dataset, models.CodeSpec((3,))))["test/pca_auroc"] == 1.0
  errors_at = {latent: pca.baseline_squared_errors(dataset, models.CodeSpec((latent,))) for latent in (2, 3, 99)}
  assert errors_at[3][:5].max() < 1e-9 < 1e-3 < errors_at[2][:5].max()
  np.testing.assert_allclose(errors_at[99][:5], 0, atol=1e-9)


@pytest.mark.parametrize("batch_size", [3, 7])
def test_the_score_is_the_squared_error_for_any_batch_size(batch_size):
  dataset = random_dataset()
  options = {**config_of("dense", "digits").model, "latent": 2, "widths": (3,)}
  model = models.build(shape=dataset.shape, **options)
  variables = jax.jit(model.init)(jax.random.key(0))

  test = jnp.asarray(dataset.test.reshape(7, -1))

  @jax.jit
  def score(indices, weights):
    batch = steps.read_batch(indices, weights, examples={"x": test}, model=model, value_range="real")
    return anomaly.per_example(model, variables, batch, None, "real", None)["anomaly_score"]

  rows = zip(*batch_schedule.evaluation_batches(7, batch_size, 1), strict=True)
  results = np.concatenate([np.asarray(score(*row))[row[1] > 0] for row in rows])
  expected = losses.squared_error(jax.jit(model.reconstruct)(variables, dataset.test), dataset.test)
  np.testing.assert_allclose(results, expected, rtol=1e-5)
  assert dict(anomaly.metrics({"anomaly_score": results}, dataset))["test/auroc"] == share_of_pairs(
    results, dataset.anomalous
  )


@pytest.mark.parametrize(
  ("labels", "one_class", "message"),
  [
    ((0, 1), None, "config.evaluators: 'anomaly' needs config.data.one_class"),
    ((0, 0), 0, "with config.data.one_class=0 there are no anomalies"),
    ((1, 2), 0, "with config.data.one_class=0 there are no normal examples"),
  ],
)
def test_normal_and_anomalous_test_examples_are_required(labels, one_class, message):
  x = np.zeros((2, 4, 1), np.float32)
  with pytest.raises(errors.UserError) as refusal:
    anomaly.EVALUATOR.check(None, dataset_of(x, x, labels, one_class))
  assert message in str(refusal.value)


@functools.cache
def model_of(shape, latent=2, likelihood="gaussian"):
  """Returns a small random model, its variables and its config."""
  config = config_of("dense", "digits")
  config.model.update(latent=latent, widths=(3,))
  config.objective.likelihood = likelihood
  model = models.build(shape=shape, **config.model)
  return model, jax.jit(model.init)(jax.random.key(0)), config.lock()


def context_of(dataset, **options):
  """Returns a context with the model of `model_of`."""
  model, variables, config = model_of(dataset.shape, **options)
  return EvalContext(api.Run(variables, config, {}, [], model, 1), dataset)


def test_mahalanobis_agrees_with_scipy():
  generator = np.random.default_rng(0)
  train, codes = generator.normal(size=(50, 3)) @ generator.normal(size=(3, 3)), generator.normal(size=(7, 3))
  covariance = np.cov(train.T)
  for ridge, tolerance in ((1e-6 * np.trace(covariance) / 3, 1e-9), (0.0, 1e-3)):  # the ridge changes little
    inverse = np.linalg.inv(covariance + ridge * np.eye(3))
    expected = [spatial.distance.mahalanobis(code, train.mean(0), inverse) for code in codes]
    np.testing.assert_allclose(scores.mahalanobis(codes, train), expected, rtol=tolerance)


def test_mahalanobis_handles_singular_covariances():
  generator = np.random.default_rng(0)
  flat = generator.normal(size=(50, 3)) * [1.0, 1.0, 0.0]
  inside, outside = scores.mahalanobis(np.array([[3.0, 3.0, 0.0], [0.0, 0.0, 1.0]]), flat)
  assert inside < 10 < outside
  assert scores.mahalanobis(np.zeros((2, 3)), np.zeros((50, 3))).tolist() == [0.0, 0.0]


def examples_for(likelihood):
  """Returns `random_dataset()`, in [0, 1] for a bernoulli likelihood."""
  dataset = random_dataset()
  if likelihood == "gaussian":
    return dataset
  return dataclasses.replace(dataset, value_range="unit", train=expit(dataset.train), test=expit(dataset.test))


@functools.cache
def gradient_norms_one_by_one(likelihood):
  """Returns the gradient norm of each example of `examples_for(likelihood)`, computed from the objective."""
  context = context_of(examples_for(likelihood), likelihood=likelihood)
  objective = objectives.build("reconstruction", context.run.model, context.dataset.value_range, likelihood=likelihood)
  loss = lambda variables, x: objective(context.run.model, variables, {"x": x, "weight": jnp.ones(1)}, None)[0]
  gradient = jax.jit(jax.grad(loss))
  return [float(optax.tree.norm(gradient(context.run.variables, x[None]))) for x in context.test]


@pytest.mark.parametrize(
  ("likelihood", "gradients", "numbers"),
  [("gaussian", 3, 2**23), ("gaussian", 64, 2**23), ("gaussian", 64, 1), ("bernoulli", 3, 2**23)],  # 1: a large model
)
def test_gradient_norms_do_not_depend_on_the_batch(monkeypatch, likelihood, gradients, numbers):
  monkeypatch.setattr(anomaly, "_GRADIENTS", gradients)
  monkeypatch.setattr(anomaly, "_GRADIENT_NUMBERS", numbers)
  results = anomaly.gradient_norms(context_of(examples_for(likelihood), likelihood=likelihood))
  np.testing.assert_allclose(results, gradient_norms_one_by_one(likelihood), rtol=1e-5)


def pca_residuals(dataset, components):
  """Returns the squared distances of test examples to the plane of the training examples, by scikit-learn."""
  train, test = (split.reshape(len(split), -1).astype(np.float64) for split in (dataset.train, dataset.test))
  pca = PCA(components, svd_solver="full").fit(train)
  return np.square(pca.inverse_transform(pca.transform(test)) - test).sum(1)


def test_scores_of_the_analysis_are_fitted_on_the_training_set():
  generator = np.random.default_rng(3)
  train, test = (generator.uniform(size=(n, 6, 2)).astype(np.float32) for n in (60, 40))
  dataset = dataclasses.replace(dataset_of(train, test, np.arange(40) % 2), value_range="unit")
  context = context_of(dataset)
  covariance = np.cov(context.train_codes.T.astype(np.float64))
  inverse = np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / 2 * np.eye(2))
  mean = context.train_codes.mean(0, dtype=np.float64)
  scores = {
    "squared_error": np.square(context.run.reconstruct(test) - test).sum((1, 2)),
    "mahalanobis": [spatial.distance.mahalanobis(code, mean, inverse) for code in context.test_codes],
    "pca": pca_residuals(dataset, 2),
  }
  results = dict(anomaly.analyze(context))
  for name, score in scores.items():
    assert results[f"auroc/{name}"] == pytest.approx(share_of_pairs(np.asarray(score), dataset.anomalous)), name


def test_the_baseline_is_pca_with_one_component_per_latent():
  areas = [
    share_of_pairs(pca_residuals(random_dataset(), latent), random_dataset().anomalous) for latent in (1, 2, 3, 4)
  ]
  assert len(set(areas)) > 2
  for latent, area in zip((1, 2, 3, 4), areas, strict=True):
    assert dict(anomaly.baselines(random_dataset(), models.CodeSpec((latent,))))["test/pca_auroc"] == pytest.approx(
      area
    )


@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
def test_the_score_equals_run_score_in_every_range(value_range):
  dataset = dataclasses.replace(examples_for("bernoulli"), value_range=value_range)
  context = context_of(dataset)
  config = context.run.config.copy_and_resolve_references().unlock()
  config.data.range = value_range
  run = dataclasses.replace(context.run, config=config)
  results = anomaly.per_example(
    run.model, run.variables, {"x": jnp.asarray(dataset.test)}, None, value_range, dataset.span
  )
  np.testing.assert_allclose(results["anomaly_score"], run.score(dataset.test), rtol=1e-5)


def test_each_score_separates_planted_anomalies_by_class():
  normal = np.random.default_rng(0).normal(size=(40, 6, 2)).astype(np.float32)
  labels = np.repeat([0, 4, 7], [8, 2, 2])
  test = np.concatenate([normal[30:38], 50 + normal[:2], -50 + normal[:2]])
  results = dict(anomaly.analyze(context_of(dataset_of(normal[:30], test, labels))))
  for score in ("squared_error", "mahalanobis", "gradient_norm", "pca"):
    for name in (f"auroc/{score}", f"auprc/{score}", f"auroc/{score}/class_4", f"auroc/{score}/class_7"):
      assert results[name] == 1.0
  assert set(results["auroc_by_class"].lines) == {label for label, _ in anomaly.SCORES.values()}
  assert results["auroc_by_class"].x_names == ("class 4", "class 7")


KEYS = {label: key for key, (label, _) in anomaly.SCORES.items()}


def test_figure_has_the_anomalous_classes_in_the_order_of_their_areas():
  dataset = dataclasses.replace(random_dataset((0, 1, 0, 3, 0)), class_names=("good", "bent", "absent", "hole"))
  results = dict(anomaly.analyze(context_of(dataset)))
  figure = results["auroc_by_class"]
  assert set(figure.x_names) == {"bent", "hole"}
  assert figure.y_bounds == (0, 1)
  assert "the normal class good, in ascending order for the squared error;" in figure.title
  for (label, key), line in zip(KEYS.items(), figure.lines.items(), strict=True):
    assert line[0] == label
    areas = [results[f"auroc/{key}/class_{dataset.class_names.index(name)}"] for name in figure.x_names]
    np.testing.assert_array_equal(line[1], [[0, 1], areas])
  assert (np.diff(figure.lines["squared error"][1]) >= 0).all()
  assert "auroc/pca/class_3" in results


def test_areas_do_not_depend_on_the_order_of_the_test_examples():
  dataset, order = random_dataset(), np.array([3, 1, 6, 0, 5, 2, 4])
  other = dataset_of(dataset.train, dataset.test[order], dataset.test_labels[order])
  one, two = (
    {name: value for name, value in anomaly.analyze(context_of(each)) if isinstance(value, float)}
    for each in (dataset, other)
  )
  assert one == pytest.approx(two)


def test_mahalanobis_uses_the_covariance_and_does_not_flag_duplicates():
  generator, scale = np.random.default_rng(0), np.array([1.0, 2.0, 3.0, 0.1])
  train, normal = (scale * generator.normal(size=(size, 4)) for size in (200, 50))
  anomalous = np.repeat([False, True], 50)
  codes = np.concatenate([normal, train[:50] + np.eye(4)[3] * 2.0])
  assert anomaly.auroc(scores.mahalanobis(codes, train), anomalous) == 1.0
  assert anomaly.auroc(np.linalg.norm(codes - train.mean(0), axis=1), anomalous) < 0.8
  duplicates = np.concatenate([normal, train[:50]])
  assert anomaly.auroc(scores.mahalanobis(duplicates, train), anomalous) == pytest.approx(0.5, abs=0.15)


def test_too_many_classes_leave_only_the_areas_over_all_classes(monkeypatch):
  monkeypatch.setattr(anomaly, "_MOST_CLASSES", 1)
  results = dict(anomaly.analyze(context_of(random_dataset())))
  assert "there are 2 anomalous classes" in results["by_class"]
  areas = ("auroc", "auroc_low", "auroc_high", "auprc")
  assert results.keys() == {"by_class", *(f"{area}/{score}" for area in areas for score in anomaly.SCORES)}
  assert all(results[f"auroc_low/{score}"] <= results[f"auroc/{score}"] for score in anomaly.SCORES)

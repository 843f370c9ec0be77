import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import data, errors, losses, models, steps
from ae_jax.data import epochs
from ae_jax.evaluators import anomaly, reconstruction


def dataset_of(train, test, labels, one_class=0):
  return data.Dataset("made", "real", train, test, np.zeros(len(train), int), np.asarray(labels), one_class)


def made(labels=(0, 1, 0, 2, 0, 1, 0), shape=(6, 2)):
  generator = np.random.default_rng(0)
  return dataset_of(*(generator.normal(size=(n, *shape)).astype(np.float32) for n in (9, len(labels))), labels)


def pairs(score, anomalous):
  """The share of (anomalous, normal) pairs in which the anomaly scores higher, ties half."""
  won = [(a > n) + 0.5 * (a == n) for a in score[anomalous] for n in score[~anomalous]]
  return sum(won) / len(won)


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with few
def test_auroc_is_the_share_of_pairs_in_the_right_order(levels):
  generator = np.random.default_rng(levels)
  score, anomalous = generator.integers(0, levels, 80).astype(np.float32), generator.uniform(size=80) < 0.3
  assert anomaly.auroc(score, anomalous) == pytest.approx(pairs(score, anomalous))
  assert anomaly.auroc(-score, anomalous) == pytest.approx(1 - pairs(score, anomalous))


def test_auprc_is_the_mean_precision_at_each_anomaly():
  generator = np.random.default_rng(0)
  score, anomalous = generator.permutation(80).astype(np.float32), generator.uniform(size=80) < 0.3
  precisions = [anomalous[score >= threshold].mean() for threshold in score[anomalous]]
  assert anomaly.auprc(score, anomalous) == pytest.approx(np.mean(precisions))


def test_scores_that_separate_are_perfect_and_equal_ones_are_chance():
  dataset = made()
  apart = dict(anomaly.metrics({"anomaly_score": np.where(dataset.anomalous, 2.0, 0.5)}, dataset))
  assert apart == {
    "test/auroc": 1.0,
    "test/auprc": 1.0,
    "test/anomalous_squared_error": 2.0,
  }
  equal = dict(anomaly.metrics({"anomaly_score": np.ones(7)}, dataset))
  assert equal["test/auroc"] == 0.5
  assert equal["test/auprc"] == dict(anomaly.rulers(dataset, 1))["test/chance_auprc"] == pytest.approx(3 / 7)


def test_a_training_that_ran_away_has_no_area():
  found = dict(anomaly.metrics({"anomaly_score": np.array([1, np.nan, 1, 1, 1, 1, 1])}, made()))
  assert np.isnan([found["test/auroc"], found["test/auprc"]]).all()


def test_pca_finds_what_leaves_the_plane_of_the_training_data():
  generator = np.random.default_rng(0)
  plane = generator.normal(size=(30, 3)) @ generator.normal(size=(3, 12))
  labels = np.repeat([0, 1], 5)
  test = plane[20:] + labels[:, None] * generator.normal(size=(10, 12))
  train, test = (x.astype(np.float32).reshape(-1, 6, 2) for x in (plane[:20], test))
  dataset = dataset_of(train, test, labels)
  assert dict(anomaly.rulers(dataset, 3))["test/pca_auroc"] == 1.0
  errors_at = {latent: reconstruction.pca_squared_errors(dataset, latent) for latent in (2, 3, 99)}
  assert errors_at[3][:5].max() < 1e-9 < 1e-3 < errors_at[2][:5].max()
  np.testing.assert_allclose(errors_at[99][:5], 0, atol=1e-9)


@pytest.mark.parametrize("batch_size", [3, 7])
def test_the_score_is_the_squared_error_whatever_the_batches(batch_size):
  dataset = made()
  options = {**config_of("dense", "digits").model, "latent": 2, "widths": (3,)}
  model = models.build(shape=dataset.shape, **options)
  params = jax.jit(model.init)(jax.random.key(0))

  test = jnp.asarray(dataset.test.reshape(7, -1))

  @jax.jit
  def score(indices, weights):
    batch = steps.read_batch(indices, weights, examples=test, model=model, value_range="real")
    return anomaly.per_example(model, params, batch, None, "real")["anomaly_score"]

  rows = zip(*epochs.in_order(7, batch_size, 1), strict=True)
  found = np.concatenate([np.asarray(score(*row))[row[1] > 0] for row in rows])
  wanted = losses.squared_error(jax.jit(model.reconstruct)(params, dataset.test), dataset.test)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  assert dict(anomaly.metrics({"anomaly_score": found}, dataset))["test/auroc"] == pairs(found, dataset.anomalous)


@pytest.mark.parametrize(
  ("labels", "one_class", "message"),
  [
    ((0, 1), -1, "config.evaluators: 'anomaly' needs config.data.one_class"),
    ((0, 0), 0, "with config.data.one_class=0 there are no anomalies"),
    ((1, 2), 0, "with config.data.one_class=0 there are no normal examples"),
  ],
)
def test_it_needs_both_kinds(labels, one_class, message):
  x = np.zeros((2, 4, 1), np.float32)
  with pytest.raises(errors.UserError) as refusal:
    anomaly.check(None, dataset_of(x, x, labels, one_class))
  assert message in str(refusal.value)

import numpy as np
import pytest
from made_contexts import fake_model

from ae_jax import data, errors
from ae_jax.evaluators import posterior

pytestmark = pytest.mark.quick_compile


def dataset_of(labels):
  images = np.zeros((len(labels), 3, 3, 1), np.float32)
  return data.Dataset("made", "unit", images, images, labels, labels, 0)


def test_units_whose_posterior_mean_varies_are_active():
  generator = np.random.default_rng(0)
  mean = generator.normal(size=(400, 5)) * [1.0, 0.2, 0.05, 0.0, 0.0] + [0, 0, 0, 3.0, 0.0]
  kl = np.tile([2.0, 1.0, 0.01, 4.5, 0.0], (400, 1))
  metrics = dict(posterior.metrics({"posterior_mean": mean, "posterior_kl": kl}, dataset_of(np.zeros(400, int))))
  assert metrics["test/active_units"] == 2  # variances 1, 0.04, 0.0025, 0, 0 against 0.01
  assert metrics["test/kl"] == pytest.approx(7.51)
  assert [metrics[f"test/kl_dimension/{j}"] for j in range(5)] == pytest.approx([2.0, 1.0, 0.01, 4.5, 0.0])


def test_a_unit_is_active_above_a_variance_of_a_hundredth():
  signs = np.tile([[1.0], [-1.0]], (50, 1))
  assert posterior.active(signs * np.sqrt([0.0099, 0.0101])).tolist() == [False, True]


def test_anomalies_do_not_count_in_the_kl():
  kl = np.array([[1.0], [2.0], [90.0]])
  metrics = dict(posterior.metrics({"posterior_mean": kl, "posterior_kl": kl}, dataset_of(np.array([0, 0, 1]))))
  assert metrics["test/kl"] == metrics["test/kl_dimension/0"] == 1.5


def test_only_the_first_dimensions_have_a_metric_and_all_count_in_the_total():
  kl = np.ones((3, 5000))
  metrics = dict(posterior.metrics({"posterior_mean": kl, "posterior_kl": kl}, dataset_of(np.zeros(3, int))))
  assert metrics["test/kl"] == 5000
  assert sum(name.startswith("test/kl_dimension/") for name in metrics) == posterior.MAX_LOGGED_DIMENSIONS == 1024


def test_a_model_without_a_posterior_is_refused():
  images = np.zeros((2, 3, 3, 1), np.float32)
  with pytest.raises(errors.UserError, match="gaussian"):
    posterior.EVALUATOR.check(fake_model(), data.Dataset("made", "unit", images, images, None, None))

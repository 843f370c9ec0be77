"""The family of models for tables, and outputs and losses of categories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import errors, models, objectives
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile

GROUPS = (("category", 1, 4), ("boolean", 5, 6))
OPTIONS = {"latent": 2, "width": 0, "activation": "relu", "bottleneck": "identity"}


def built(groups=()):
  return models.build("table", (6,), groups=groups, **OPTIONS)


def example(logits):
  x = np.zeros_like(logits)
  x[:, [0, 4]], x[:, 2], x[:, 5] = 0.5, 1.0, 1.0
  return x


def test_training_begins_with_a_linear_autoencoder():
  model = built()
  variables = model.init(jax.random.key(0))
  x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
  both = model.reconstruct(variables, x[:1] + x[1:2])
  zero = model.reconstruct(variables, np.zeros((1, 6), np.float32))
  parts = [model.reconstruct(variables, row) for row in (x[:1], x[1:2])]
  np.testing.assert_allclose(both, parts[0] + parts[1] - zero, atol=1e-5)


def test_images_are_refused():
  with pytest.raises(errors.UserError, match="'table' expects table"):
    models.build("table", (8, 8, 1), **OPTIONS)


def test_outputs_of_categories_are_probabilities_and_others_are_unchanged():
  logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  outputs = np.asarray(built(GROUPS).outputs(logits, "real"))
  np.testing.assert_array_equal(outputs[:, [0, 4]], logits[:, [0, 4]])
  np.testing.assert_allclose(outputs[:, 1:4], jax.nn.softmax(logits[:, 1:4]), rtol=1e-6)
  np.testing.assert_allclose(outputs[:, 5], jax.nn.sigmoid(logits[:, 5]), rtol=1e-6)
  np.testing.assert_array_equal(built().outputs(logits, "real"), logits)


def test_the_mixed_likelihood_is_the_sum_of_the_likelihoods_of_the_columns():
  logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  x = example(logits)
  numbers = losses.gaussian_nats(np.square(logits - x)[:, [0, 4]].sum(1), 2, 1.0)
  category = -jax.nn.log_softmax(logits[:, 1:4])[:, 1]
  boolean = jnp.log1p(jnp.exp(-logits[:, 5]))
  expected = numbers + category + boolean
  np.testing.assert_allclose(losses.mixed_nats(logits, x, GROUPS).sum(1), expected, rtol=1e-5)
  objective = objectives.build("reconstruction", built(GROUPS), "real", likelihood="mixed")
  np.testing.assert_allclose(objective.reconstruction_term(built(GROUPS), logits, x), expected, rtol=1e-5)
  assert objective.unit == "nats"


def test_without_groups_the_mixed_likelihood_is_gaussian():
  logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  expected = losses.gaussian_nats(losses.squared_error(logits, example(logits)), 6, 1.0)
  np.testing.assert_allclose(losses.mixed_nats(logits, example(logits), ()).sum(1), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-90.0, 90.0])
def test_extreme_logits_give_finite_nats(logit):
  logits = np.full((1, 6), logit, np.float32)
  assert np.isfinite(losses.mixed_nats(logits, example(logits), GROUPS)).all()


@pytest.mark.parametrize("value_range", ["unit", "symmetric"])
def test_the_mixed_likelihood_needs_the_range_real(value_range):
  with pytest.raises(errors.UserError, match=r"'mixed' needs a table and config.data.range='real'"):
    objectives.build("reconstruction", built(GROUPS), value_range, likelihood="mixed")

import jax
import numpy as np
import pytest

from ae_jax import errors, models, objectives

SHAPE = (6, 5, 1)


@pytest.fixture
def model():
  return models.build("dense", SHAPE, latent=3, widths=(7,), activation="tanh")


def batch_of(size, seed=0):
  x = np.random.default_rng(seed).uniform(size=(size, *SHAPE)).astype(np.float32)
  return {"x": x, "weight": np.ones(size, np.float32)}


CASES = [("bernoulli", "unit"), ("gaussian", "unit"), ("gaussian", "symmetric"), ("gaussian", "real")]


@pytest.mark.parametrize(("likelihood", "value_range"), CASES)
def test_value_is_that_of_numpy(model, likelihood, value_range):
  objective = objectives.build("reconstruction", value_range, likelihood=likelihood)
  params, batch = model.init(jax.random.key(0)), batch_of(4)
  logits = np.asarray(model.decode(params, model.encode(params, batch["x"])), np.float64)
  x = batch["x"].astype(np.float64)
  sigmoid = 1 / (1 + np.exp(-logits))
  if likelihood == "bernoulli":
    exact = -(x * np.log(sigmoid) + (1 - x) * np.log(1 - sigmoid))
  else:
    exact = np.square({"unit": sigmoid, "symmetric": np.tanh(logits), "real": logits}[value_range] - x)
  loss, terms = objective(model, params, batch, jax.random.key(0))
  np.testing.assert_allclose(loss, exact.sum() / 4, rtol=1e-5)
  assert terms == {{"bernoulli": "nats", "gaussian": "squared_error"}[likelihood]: loss}


@pytest.mark.parametrize(("likelihood", "value_range"), CASES)
def test_duplicating_or_padding_the_batch_changes_neither_value_nor_gradient(model, likelihood, value_range):
  objective = objectives.build("reconstruction", value_range, likelihood=likelihood)
  params, batch = model.init(jax.random.key(0)), batch_of(4)
  doubled = {key: np.concatenate([value, value]) for key, value in batch.items()}
  padding = batch_of(3, seed=9)
  padded = {"x": np.concatenate([batch["x"], padding["x"]]), "weight": np.repeat(np.float32([1, 0]), [4, 3])}
  gradient = jax.value_and_grad(lambda p, b: objective(model, p, b, jax.random.key(0))[0])
  wanted = gradient(params, batch)
  for other in (doubled, padded):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(params, other), wanted)


@pytest.mark.parametrize("value_range", ["symmetric", "real"])
def test_bernoulli_is_refused_outside_the_unit_range(value_range):
  with pytest.raises(errors.UserError, match=r"config\.data\.range"):
    objectives.build("reconstruction", value_range, likelihood="bernoulli")

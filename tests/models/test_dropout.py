"""Dropout: its masks, that the mask of an example depends on its key alone, and that only training uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax import errors, models, objectives
from ae_jax.models import dropout
from ae_jax.training import steps

pytestmark = pytest.mark.quick_compile

SLOW = ("vae", "sparse", "unet", "sequence")  # seconds each, to compile
KEYS = jax.random.split(jax.random.key(0), 8)


def normal(*shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


def build(name, rate, shape=(8, 8, 1)):
  """Returns a small model of a family and its objective."""
  options, objective = FAMILIES[name]
  shape, value_range, data = ((16, 1), "real", ()) if name == "sequence" else (shape, "unit", ("digits",))
  config = config_of(name, *data)
  model = models.build(shape=shape, **{**config.model, **options, "dropout": rate})
  likelihood = "gaussian" if name == "sequence" else "bernoulli"
  return model, objectives.build(model=model, value_range=value_range, likelihood=likelihood, **objective)


def batch_of(model, size=8):
  x = np.random.default_rng(0).uniform(size=(size, *model.shape)).astype(np.float32)
  return {"x": x, "weight": np.ones(size, np.float32)}


@pytest.mark.parametrize(("keys", "rate"), [(KEYS, 0.0), (None, 0.5)])
def test_rate_0_or_no_keys_returns_the_input(keys, rate):
  h = normal(8, 5)
  assert dropout.drop(h, keys, rate, 0) is h


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_fraction_of_zero_units_is_the_rate_and_the_mean_is_kept(rate):
  outputs = dropout.drop(jnp.ones((8, 5_000)), KEYS, rate, 3)
  np.testing.assert_allclose(np.unique(outputs), [0, 1 / (1 - rate)], rtol=1e-6)
  deviation = np.sqrt(rate * (1 - rate) / outputs.size)
  assert abs((outputs == 0).mean() - rate) < 5 * deviation
  assert abs(outputs.mean() - 1) < 5 * deviation / (1 - rate)


@pytest.mark.parametrize("batch_axis", [0, -1, 1])
def test_mask_of_an_example_depends_on_its_key_alone(batch_axis):
  h, order = jnp.moveaxis(normal(8, 4, 3), 0, batch_axis), np.random.default_rng(0).permutation(8)
  drop = jax.jit(lambda h, keys: dropout.drop(h, keys, 0.5, 2, batch_axis))
  whole = drop(h, KEYS)
  np.testing.assert_array_equal(drop(h.take(order, batch_axis), KEYS[order]), whole.take(order, batch_axis))
  np.testing.assert_array_equal(drop(h.take(order[:3], batch_axis), KEYS[order[:3]]), whole.take(order[:3], batch_axis))


def test_layers_of_encoder_and_decoder_draw_different_masks():
  layers = [0, 1, 2, dropout.DECODER, dropout.DECODER + 1, 2 * dropout.DECODER]
  masks = [np.asarray(dropout.drop(jnp.ones((8, 40)), KEYS, 0.5, layer)) for layer in layers]
  assert len({mask.tobytes() for mask in masks}) == len(layers)


def test_dropout_is_independent_of_the_noise_of_the_objective():
  """No layer uses a key that the objective draws from: the example's key, or a small number folded into it."""
  used_keys = []
  drop = lambda h, keys, *_: used_keys.append(keys) or h
  model, _ = build("dense", 0.5)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("ae_jax.models.dense.drop", drop)
    model.encode(model.init(jax.random.key(0)), batch_of(model)["x"], keys=KEYS, train=True)
  (keys,) = (np.asarray(jax.random.key_data(used)) for used in used_keys if used is not None)
  folds = [KEYS, *(jax.vmap(jax.random.fold_in, (0, None))(KEYS, number) for number in range(20))]
  assert not any((jax.random.key_data(fold) == keys).all(-1).any() for fold in folds)


@pytest.mark.runs_optax  # Flax's RMSNorm promotes types
@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES]
)
def test_every_family_has_dropout_in_training_and_not_in_evaluation(name):
  """Masks depend on the keys alone: the gradient of a batch equals that of its microbatches."""
  (model, objective), (plain, plain_objective) = build(name, 0.2), build(name, 0.0)
  variables, batch = jax.jit(model.init)(jax.random.key(0)), batch_of(model)
  step = jax.jit(steps.value_and_gradient, static_argnames=("model", "objective", "microbatches"))
  whole, split = (
    step(variables, batch, KEYS, model=model, objective=objective, microbatches=count) for count in (1, 4)
  )
  if not objective.needs_whole_batch:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), split, whole)

  @jax.jit
  def results(variables, batch):
    losses = objective(model, variables, batch, KEYS)[0], plain_objective(plain, variables, batch, KEYS)[0]
    return losses, [model.autoencode(variables, batch["x"], keys=KEYS, train=train) for train in (False, True)]

  (evaluated, undropped), (kept, dropped) = results(variables, batch)
  np.testing.assert_array_equal(evaluated, undropped)
  assert (kept[0].z != dropped[0].z).any() or (kept[1] != dropped[1]).any()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "vae"])
@pytest.mark.parametrize("rate", [1, 1.0, -0.1, float("nan"), "0.5", True, None])
def test_invalid_rate_is_refused(name, rate):
  with pytest.raises(errors.UserError, match=r"config\.model\.dropout=.*: must be a number in \[0, 1\)"):
    build(name, rate)

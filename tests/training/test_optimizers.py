import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ae_jax import errors
from ae_jax.training import optimizers

pytestmark = pytest.mark.runs_optax

OPTIONS = {"learning_rate": 0.1, "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
RUN = {"epochs": 4, "steps_per_epoch": 10}


def updates(steps=40, name="sgd", **options):
  """Yields the decrease of a single parameter, whose gradient is always 1, in each step."""
  optimizer = optimizers.optimizer_factory(name, **{**OPTIONS, **options}, **RUN)()
  params = jnp.ones(())
  state = optimizer.init(params)
  for _ in range(steps):
    update, state = optimizer.update(jnp.ones(()), state, params, norm=jnp.ones(()))
    yield -float(update)


def test_learning_rate_rises_to_the_peak_and_falls_to_zero():
  for schedule in ("cosine", "linear"):
    rates = list(updates(schedule=schedule, warmup_epochs=1.5, steps=41))
    assert np.all(np.diff(rates[:16]) > 0)
    assert np.all(np.diff(rates[16:]) < 0)
    np.testing.assert_allclose([rates[0], rates[15], rates[40]], [0.1 / 15, 0.1, 0.0], atol=1e-8)


def test_constant_learning_rate_is_constant():
  np.testing.assert_allclose(list(updates()), 0.1, rtol=1e-6)


def test_adam_with_weight_decay_equals_adamw():
  ours = optimizers.optimizer_factory("adam", **{**OPTIONS, "weight_decay": 0.3}, **RUN)()
  theirs = optax.adamw(0.1, weight_decay=0.3)
  params = jnp.asarray([1.0, -2.0])
  gradient = jnp.asarray([0.5, 3.0])
  a, b = ours.init(params), theirs.init(params)
  for _ in range(3):
    (u, a), (v, b) = ours.update(gradient, a, params), theirs.update(gradient, b, params)
    np.testing.assert_allclose(u, v, rtol=1e-6)


@pytest.mark.parametrize(
  ("schedule", "curve"),
  [("constant", np.ones_like), ("linear", lambda t: 1 - t), ("cosine", lambda t: (1 + np.cos(np.pi * t)) / 2)],
)
def test_schedule_matches_its_closed_form(schedule, curve):
  """`t` is the fraction of the steps after the warmup, whose 1.6 steps are rounded to 2."""
  rates = list(updates(schedule=schedule, warmup_epochs=0.16))
  np.testing.assert_allclose(rates, 0.1 * np.concatenate([[0.5, 0.75], curve(np.arange(38) / 38)]), atol=1e-7)


ALIASES = {
  "adam": optax.adam,
  "nadam": optax.nadam,
  "rmsprop": optax.rmsprop,
  "adagrad": optax.adagrad,
  "sgd": optax.sgd,
  "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
  "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
}
GRADIENTS = [  # of norms 5, 0.5, 0 and 13
  {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[-4.0]])},
  {"a": jnp.asarray([0.3, 0.4]), "b": jnp.asarray([[0.0]])},
  {"a": jnp.zeros(2), "b": jnp.zeros((1, 1))},
  {"a": jnp.asarray([-5.0, 0.0]), "b": jnp.asarray([[12.0]])},
]


def assert_same_updates(ours, theirs):
  """Asserts that both optimizers turn GRADIENTS into the same updates."""
  params = jax.tree.map(jnp.ones_like, GRADIENTS[0])
  a, b = ours.init(params), theirs.init(params)
  for gradient in GRADIENTS:
    u, a = ours.update(gradient, a, params, norm=jnp.linalg.norm(ravel_pytree(gradient)[0]))
    v, b = theirs.update(gradient, b, params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7), u, v)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_equals_that_of_optax(name):
  assert_same_updates(optimizers.optimizer_factory(name, **OPTIONS, **RUN)(), ALIASES[name](0.1))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_clipping_precedes_the_optimizer(name):
  ours = optimizers.optimizer_factory(name, **{**OPTIONS, "clip_norm": 2.0}, **RUN)()
  assert_same_updates(ours, optax.chain(optax.clip_by_global_norm(2.0), ALIASES[name](0.1)))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_minimises_a_quadratic(name):
  optimizer = optimizers.optimizer_factory(name, **OPTIONS, epochs=10, steps_per_epoch=10)()
  quadratic = lambda x: jnp.square(x).sum()
  x = jnp.asarray([1.0, -0.5])
  state = optimizer.init(x)
  for _ in range(100):
    update, state = optimizer.update(jax.grad(quadratic)(x), state, x)
    x = optax.apply_updates(x, update)
  assert quadratic(x) < 0.15


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"learning_rate": 0.0}, "learning_rate=0.0: must be a positive number"),
    ({"learning_rate": float("nan")}, "learning_rate=nan"),
    ({"learning_rate": 1e300}, "learning_rate=1e+300: must be a positive number from"),
    ({"learning_rate": 1e-300}, "learning_rate=1e-300: must be"),
    ({"learning_rate": "1"}, "learning_rate='1': must be"),
    ({"weight_decay": 10**400}, "must be a number of at least 0"),
    ({"warmup_epochs": 4.5}, "warmup_epochs=4.5: must be from 0 to epochs=4"),
    ({"weight_decay": -1.0}, "weight_decay=-1.0"),
    ({"clip_norm": -1.0}, "clip_norm=-1.0: must be a number of at least 0"),
    ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ({"name": "adan"}, "did you mean 'adam'"),
  ],
)
def test_invalid_options_are_refused(options, message):
  with pytest.raises(errors.UserError, match=r"config\.optimizer\.") as refusal:
    list(updates(**options))
  assert message in str(refusal.value)


def test_large_integers_act_as_floats():
  integers = {"learning_rate": 10**30, "weight_decay": 10**20, "clip_norm": 10**20}
  floats = {key: float(value) for key, value in integers.items()}
  for actual, expected in zip(updates(steps=3, **integers), updates(steps=3, **floats), strict=True):
    assert actual == expected or actual != actual  # NaN


def test_more_steps_than_int32_can_count_are_refused():
  optimizers.optimizer_factory("adam", **OPTIONS, epochs=214_748_364, steps_per_epoch=10)()
  with pytest.raises(errors.UserError, match=r"config\.epochs=214748365: must be at most 214748364 at 10 "):
    optimizers.optimizer_factory("adam", **OPTIONS, epochs=214_748_365, steps_per_epoch=10)()

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax import models, objectives
from ae_jax.models import cost
from ae_jax.ops import remat
from ae_jax.training import steps

pytestmark = pytest.mark.runs_optax


def described(name, shape=(28, 28, 1), **options):
  """(model, its config's objective) of a shipped config."""
  config = config_of(name, *(["digits"] if name != "sequence" else []))
  shape, value_range = ((64, 1), "real") if name == "sequence" else (shape, "unit")
  model = models.build(shape=shape, **{**config.model, **options})
  return model, objectives.build(model=model, value_range=value_range, **config.objective)


@functools.partial(jax.jit, static_argnums=(0, 1))
def arguments(model, rows):
  """Variables, a batch and its keys."""
  keys = jax.random.split(jax.random.key(0), rows)
  x = jax.random.uniform(jax.random.key(1), (rows, *model.shape))
  return model.init(jax.random.key(2)), {"x": x, "weight": jnp.ones(rows)}, keys


@pytest.mark.parametrize("name", ["cnn", "attention", "sparse"])  # custom gradients, a loop, a mean over the batch
def test_what_is_computed_again_is_the_same(name):
  options, objective = FAMILIES[name]
  model, _ = described(name, (8, 8, 1), **options)
  objective = objectives.build(model=model, value_range="unit", likelihood="bernoulli", **objective)
  found, again = (
    jax.jit(functools.partial(steps.accumulate_gradients, model=model, objective=each, microbatches=1))(*arguments(model, 5))
    for each in (objective, dataclasses.replace(objective, remat=True))
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), again, found)


@pytest.mark.parametrize(("name", "part"), [("dense", 0.7), ("cnn", 0.2), ("attention", 0.2), ("sequence", 0.4)])
def test_a_part_of_the_intermediates_is_kept(name, part):
  model, objective = described(name)
  given = jax.eval_shape(functools.partial(arguments, model, 64))
  kept = [
    cost.kept_bytes(lambda *args, each=each: each(model, *args)[0], *given, platform="cpu")
    for each in (objective, dataclasses.replace(objective, remat=True))
  ]
  assert kept[1] < part * kept[0]


def test_a_loop_of_layers_needs_less_memory_compiled():
  """On CPU too, which is told how much by XLA itself."""
  model, objective = described("attention", depth=8, patch=7)
  given = jax.eval_shape(functools.partial(arguments, model, 64))
  needed = [
    jax.jit(functools.partial(steps.accumulate_gradients, model=model, objective=each, microbatches=1))
    .lower(*given)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
    for each in (objective, dataclasses.replace(objective, remat=True))
  ]
  assert needed[1] < 0.5 * needed[0]


def test_segments_end_where_least_passes():
  """Two short vectors are widened and narrowed again and again: nothing wide is kept, though it is fewer arrays."""

  def function(w, x):
    a, b = x * w, x + w
    for _ in range(8):
      wide = jnp.outer(a, b)  # 10,000 numbers
      for _ in range(6):
        wide = jnp.sin(wide)
      a, b = wide.sum(0), wide.sum(1)
    return (a * b).sum()

  w, x = (jax.ShapeDtypeStruct((100,), jnp.float32) for _ in range(2))
  kept = [cost.kept_bytes(f, w, x) for f in (function, remat.in_segments(function))]
  assert kept[0] > 8 * 6 * 4 * 10_000
  assert kept[1] < 4 * 10_000


def test_constants_and_results_that_are_inputs_pass_through():
  function = remat.in_segments(lambda x, y: {"a": jnp.sin(x) + np.arange(3.0), "b": y, "c": 2.0})
  found = function(jnp.ones(3), 5.0)
  np.testing.assert_allclose(found["a"], np.sin(1) + np.arange(3))
  assert (found["b"], found["c"]) == (5.0, 2.0)

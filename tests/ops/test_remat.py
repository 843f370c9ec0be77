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


def model_and_objective(name, shape=(28, 28, 1), **model_options):
  """Returns the model and the objective of a shipped config."""
  config = config_of(name, *(["digits"] if name != "sequence" else []))
  shape, value_range = ((64, 1), "real") if name == "sequence" else (shape, "unit")
  model = models.build(shape=shape, **{**config.model, **model_options})
  return model, objectives.build(model=model, value_range=value_range, **config.objective)


@functools.partial(jax.jit, static_argnums=(0, 1))
def arguments(model, rows):
  """Returns variables, a batch and its keys."""
  keys = jax.random.split(jax.random.key(0), rows)
  x = jax.random.uniform(jax.random.key(1), (rows, *model.shape))
  return model.init(jax.random.key(2)), {"x": x, "weight": jnp.ones(rows)}, keys


def gradients_of(model, objective):
  return jax.jit(functools.partial(steps.accumulate_gradients, model=model, objective=objective, microbatches=1))


@pytest.mark.quick_compile
@pytest.mark.parametrize("name", ["cnn", "attention", "sparse"])  # custom gradients, a loop, a mean over the batch
def test_rematerialised_gradient_is_the_same(name):
  model_options, objective = FAMILIES[name]
  model, _ = model_and_objective(name, (8, 8, 1), **model_options)
  objective = objectives.build(model=model, value_range="unit", likelihood="bernoulli", **objective)
  plain, recomputed = (
    gradients_of(model, variant)(*arguments(model, 5))
    for variant in (objective, dataclasses.replace(objective, remat=True))
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), recomputed, plain)


@pytest.mark.parametrize(("name", "part"), [("dense", 0.7), ("cnn", 0.2), ("attention", 0.2), ("sequence", 0.4)])
def test_remat_keeps_only_a_part_of_the_intermediates(name, part):
  model, objective = model_and_objective(name)
  abstract = jax.eval_shape(functools.partial(arguments, model, 64))
  kept = [
    cost.kept_bytes(lambda *args, variant=variant: variant(model, *args)[0], *abstract, platform="cpu")
    for variant in (objective, dataclasses.replace(objective, remat=True))
  ]
  assert kept[1] < part * kept[0]


def test_remat_of_a_loop_of_layers_needs_less_compiled_memory():
  """XLA's own memory analysis confirms it, also on CPU."""
  model, objective = model_and_objective("attention", depth=8, patch=7)
  abstract = jax.eval_shape(functools.partial(arguments, model, 64))
  needed = [
    gradients_of(model, variant).lower(*abstract).compile().memory_analysis().temp_size_in_bytes
    for variant in (objective, dataclasses.replace(objective, remat=True))
  ]
  assert needed[1] < 0.5 * needed[0]


def test_segments_end_where_the_fewest_elements_are_alive():
  """Two short vectors are repeatedly expanded to a matrix and summed: no matrix is kept, although it is one array."""

  def function(w, x):
    a, b = x * w, x + w
    for _ in range(8):
      wide = jnp.outer(a, b)  # 10,000 elements
      for _ in range(6):
        wide = jnp.sin(wide)
      a, b = wide.sum(0), wide.sum(1)
    return (a * b).sum()

  w, x = (jax.ShapeDtypeStruct((100,), jnp.float32) for _ in range(2))
  kept = [cost.kept_bytes(f, w, x) for f in (function, remat.in_segments(function))]
  assert kept[0] > 8 * 6 * 4 * 10_000
  assert kept[1] < 4 * 10_000


def test_constants_and_inputs_can_be_results():
  function = remat.in_segments(lambda x, y: {"a": jnp.sin(x) + np.arange(3.0), "b": y, "c": 2.0})
  results = function(jnp.ones(3), 5.0)
  np.testing.assert_allclose(results["a"], np.sin(1) + np.arange(3))
  assert (results["b"], results["c"]) == (5.0, 2.0)

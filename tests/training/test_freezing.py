"""Frozen arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import models, objectives
from ae_jax.models import variable_names
from ae_jax.training import freezing, optimizers, steps
from ae_jax.training.state import init_state

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

BATCH = {"x": jnp.ones((8, 12, 12, 1)) * jnp.linspace(0, 1, 8)[:, None, None, None], "weight": jnp.ones(8)}


def stepped(freeze, **options):
  """The variables before and after a training step of a small dense model."""
  model = models.build(shape=(12, 12, 1), **{**config_of("dense", "digits").model, "latent": 3, "widths": (5,)})
  objective = objectives.build("reconstruction", model, "unit", likelihood="bernoulli")
  options = {"schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.1, "clip_norm": 0.0, **options}
  optimizer = optimizers.optimizer_factory("sgd", learning_rate=0.1, **options, epochs=1, steps_per_epoch=1)()
  state = init_state(jax.random.key(0), model=model, optimizer=optimizer)
  step = jax.jit(
    lambda state: steps.train_step(
      state,
      BATCH,
      jax.random.key(1),
      model=model,
      objective=objective,
      optimizer=optimizer,
      microbatches=1,
      freeze=freeze,
    )[0]
  )
  return state.variables, step(state).variables


def test_weight_decay_leaves_frozen_parameters():
  before, after = (variable_names.named(variables) for variables in stepped("decoder/logits"))
  same = {name for name in before if np.array_equal(before[name], after[name])}
  assert same == {"decoder/logits/bias", "decoder/logits/kernel"}


def test_the_gradient_of_frozen_parameters_is_not_clipped_with_the_others():
  """The update of the others has the length of the limit, although the frozen gradient is much larger."""
  before, after = stepped("encoder|decoder/hidden|decoder/logits/kernel", weight_decay=0.0, clip_norm=1e-3)
  change = jax.tree.map(lambda one, other: one - other, before.params, after.params)
  norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(change)))
  np.testing.assert_allclose(norm, 0.1 * 1e-3, rtol=1e-3)


def test_the_network_beside_a_linear_path_has_the_names_of_a_network():
  assert variable_names.matches("encoder", "network/encoder/code/kernel")
  assert variable_names.matches("network/encoder", "network/encoder/code/kernel")
  assert not variable_names.matches("encoder", "state/encoder")


def test_frozen_state_stays():
  before = models.Variables({"encoder": {"kernel": jnp.ones(2)}}, {"codebook": jnp.ones(3), "counts": jnp.ones(3)})
  after = jax.tree.map(lambda leaf: leaf + 1, before)
  kept = variable_names.named(freezing.with_frozen(after, before, "state/codebook"))
  assert {name: float(array[0]) for name, array in kept.items()} == {
    "encoder/kernel": 2.0,
    "state/codebook": 1.0,
    "state/counts": 2.0,
  }

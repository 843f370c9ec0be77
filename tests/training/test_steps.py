import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import models, objectives
from ae_jax.data import batch_schedule, ranges
from ae_jax.runs import checksums
from ae_jax.system import distributed
from ae_jax.training import optimizers, programs, steps
from ae_jax.training.state import TrainState, init_state

pytestmark = pytest.mark.runs_optax

SHAPE = (9, 8, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 72), np.uint8)
EXAMPLES = {"x": IMAGES}
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 8)
MODELS = {
  "dense": {"latent": 4, "widths": (9,)},
  "cnn": {"latent": 4, "channels": (3, 4), "decoder_kernels": (3, 3)},
}


def static_arguments(name):
  """The static arguments of the training step for a small model."""
  schedule = {"learning_rate": 0.01, "schedule": "cosine", "warmup_epochs": 1.0, "weight_decay": 0.0, "clip_norm": 0.0}
  model = models.build(shape=SHAPE, **{**config_of(name, "digits").model, **MODELS[name]})
  noisy = {"corruption": "masking", "level": 0.3, "alpha": 1.0, "beta": 0.5}
  return {
    "model": model,
    "objective": objectives.build("denoising", model, "unit", likelihood="bernoulli", **noisy),
    "optimizer": optimizers.optimizer_factory("adam", **schedule, epochs=4, steps_per_epoch=7)(),
    "microbatches": 1,
  }


def trees_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", MODELS)
def test_chunk_equals_its_single_steps_bitwise(name):
  static = static_arguments(name)
  indices, weights = batch_schedule.BatchSchedule(50, 8, 1, seed=0).batches(0)
  chunk = jax.jit(functools.partial(steps.train_chunk, **static, value_range="unit"))
  state = start = jax.jit(functools.partial(init_state, model=static["model"], optimizer=static["optimizer"]))(KEY)
  chunk_state, terms, _ = chunk(start, EXAMPLES, indices, weights, KEY)
  losses = []
  for row in range(len(indices)):
    state, term, _ = chunk(state, EXAMPLES, indices[row : row + 1], weights[row : row + 1], KEY)
    losses.append(term["loss"][0])
  trees_equal(chunk_state, state)
  trees_equal(terms["loss"], jnp.stack(losses))
  assert int(chunk_state.step) == len(indices)
  leaves = zip(jax.tree.leaves(start.params), jax.tree.leaves(chunk_state.params), strict=True)
  assert any((a != b).any() for a, b in leaves)


@pytest.mark.parametrize("name", MODELS)
def test_initialisation_with_fewer_optimizations_has_the_same_bits(name):
  static = static_arguments(name)
  init = functools.partial(init_state, model=static["model"], optimizer=static["optimizer"])
  trees_equal(jax.jit(init)(KEY), distributed.jit_once(init)(KEY))


@pytest.mark.quick_compile
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [4, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 8))])
def test_accumulated_gradient_equals_that_of_the_whole_batch(name, count):
  """Also with padding, and with microbatches of padding alone."""
  static = static_arguments(name)
  model, objective = static["model"], static["objective"]
  variables = jax.jit(model.init)(KEY)
  gradient = jax.jit(
    functools.partial(steps.value_and_gradient, model=model, objective=objective), static_argnames="microbatches"
  )
  for real in (8, 5, 1):
    weights = np.float32([1] * real + [0] * (8 - real))
    batch = steps.read_batch(np.arange(8), weights, examples=EXAMPLES, model=model, value_range="unit")
    whole, accumulated = (gradient(variables, batch, KEYS, microbatches=number) for number in (1, count))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), accumulated, whole)


def test_keys_depend_on_the_step_alone():
  """With an augmentation the objective receives the same keys, and the augmented batch."""
  all_keys, batches = [], []
  dense = static_arguments("dense")["model"]

  class Spy(objectives.Objective):
    def __call__(self, model, variables, batch, keys, *, train):
      assert train
      all_keys.append(jax.random.key_data(keys))
      batches.append(batch["x"])
      return jnp.float32(0) * variables.params["a"], objectives.Aux({}, {})

  class Model(models.Model):
    def init(self, key):
      return models.Variables({"a": jnp.ones(())})

  model = Model(dense.module, SHAPE, batch_last=False)
  optimizer = optimizers.optimizer_factory(
    "sgd",
    learning_rate=1.0,
    schedule="constant",
    warmup_epochs=0.0,
    weight_decay=0.0,
    clip_norm=0.0,
    epochs=1,
    steps_per_epoch=1,
  )()
  state = init_state(KEY, model=model, optimizer=optimizer)
  static = {"model": model, "objective": Spy("unit", ranges.SPANS["unit"], likelihood="bernoulli"), "microbatches": 1}
  for step in (0, 1, 5):
    state_at_step = TrainState(jnp.int32(step), state.params, state.opt_state)
    batch = {"x": jnp.arange(3.0), "weight": jnp.ones(3)}
    step_key = jax.random.fold_in(KEY, step)
    keys = jnp.stack([jax.random.fold_in(step_key, row) for row in range(3)])
    for augment, x in ((None, batch["x"]), (add_noise, add_noise(batch["x"], keys))):
      steps.train_step(state_at_step, batch, KEY, optimizer=optimizer, augment=augment, **static)
      trees_equal(all_keys[-1], jax.random.key_data(keys))
      trees_equal(batches[-1], x)


def add_noise(x, keys):
  return x + jax.vmap(jax.random.uniform)(keys)


def test_compiled_chunk_is_traced_once_donates_its_state_and_refuses_other_shapes():
  static = static_arguments("dense")
  traces = []

  class Counted(objectives.Objective):
    def __call__(self, *arguments, **options):
      traces.append(1)
      return super().__call__(*arguments, **options)

  state = init_state(KEY, model=static["model"], optimizer=static["optimizer"])
  indices, weights = batch_schedule.BatchSchedule(50, 8, 1, seed=0).batches(0)
  everywhere = distributed.replicated(distributed.mesh(jax.devices()[:1]))
  chunk = programs.compile_program(
    steps.train_chunk,
    (state, EXAMPLES, indices, weights, KEY),
    everywhere,
    donate=(0,),
    **{**static, "objective": Counted("unit", ranges.SPANS["unit"], likelihood="bernoulli")},
    value_range="unit",
  )
  traced = len(traces)
  for _ in range(3):
    old, (state, *_) = state, chunk(state, EXAMPLES, indices, weights, KEY)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old)), "the state was copied, not donated"
  assert len(traces) == traced
  with pytest.raises(TypeError):
    chunk(state, EXAMPLES, indices[:2], weights[:2], KEY)


def test_checksums_agree_between_numpy_and_jax_and_detect_every_bit():
  generator = np.random.default_rng(0)
  leaves = [
    generator.normal(size=(700, 999)).astype(np.float32),  # more than one block
    np.int32(-7),
    generator.integers(0, 2**32, size=5, dtype=np.uint32),
  ]
  sums = checksums.compute(leaves)
  assert sums == checksums.compute(jax.tree.map(jnp.asarray, leaves)) == [int(n) for n in checksums._checksums(leaves)]
  for at, bit in ((0, 0), (5_000, 31), (699_299, 13)):
    flipped = leaves[0].copy()
    flipped.view(np.uint32).reshape(-1)[at] ^= np.uint32(1 << bit)
    assert checksums.compute([flipped])[0] != sums[0]
  assert checksums.compute([np.roll(leaves[0], 1)])[0] != sums[0]

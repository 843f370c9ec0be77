"""Trainings without a run folder."""

import contextlib

import jax
import numpy as np
import pytest

from ae_jax import data
from ae_jax.system import distributed
from ae_jax.training import device_arrays, in_memory, programs, train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


@pytest.fixture
def dataset(tiny):
  return data.load(**tiny.data)


def leaves(run):
  return jax.tree.leaves(run.variables)


def test_the_model_is_that_of_a_training_with_a_folder(tiny, dataset, tmp_path):
  with_folder, without = train.train_run(tiny, tmp_path, dataset), in_memory.train_run(tiny, dataset)
  for one, other in zip(leaves(with_folder), leaves(without), strict=True):
    np.testing.assert_array_equal(one, other)
  assert without.step == with_folder.step
  loss = [[record["train/loss"] for record in run.records if "train/loss" in record] for run in (with_folder, without)]
  assert loss[0] == loss[1]
  assert without.workdir is None


def test_equal_trainings_share_programs_and_others_do_not(tiny, dataset):
  first = in_memory.train_run(tiny, dataset)
  before = programs.compilations()
  again = in_memory.train_run(tiny, dataset)
  assert programs.compilations() == before
  tiny.optimizer.learning_rate *= 0.5
  other = in_memory.train_run(tiny, dataset)
  assert programs.compilations() > before
  assert all(np.array_equal(one, two) for one, two in zip(leaves(first), leaves(again), strict=True))
  assert not all(np.array_equal(one, two) for one, two in zip(leaves(first), leaves(other), strict=True))


def test_a_training_starts_from_given_variables(tiny, dataset):
  first = in_memory.train_run(tiny, dataset)
  tiny.epochs, tiny.optimizer.warmup_epochs, tiny.optimizer.learning_rate = 1, 0.0, 1e-20
  continued = in_memory.train_run(tiny, dataset, first.variables)
  for one, other in zip(leaves(first), leaves(continued), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


@contextlib.contextmanager
def setting(name, value):
  """Changes a setting of JAX for the whole process."""
  before = getattr(jax.config, name)
  jax.config.update(name, value)
  try:
    yield
  finally:
    jax.config.update(name, before)


@pytest.mark.parametrize(
  "other",
  [
    lambda: jax.default_matmul_precision("highest"),
    lambda: jax.numpy_dtype_promotion("strict" if jax.config.jax_numpy_dtype_promotion == "standard" else "standard"),
    lambda: setting("jax_enable_x64", True),
    lambda: setting("jax_debug_nans", True),
    lambda: setting("jax_default_prng_impl", "rbg"),
    lambda: jax.default_device(jax.devices()[1]),
  ],
)
def test_programs_are_shared_only_under_equal_settings_of_jax(other):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  square = lambda x: x @ x
  x = jax.ShapeDtypeStruct((2, 2), np.float32, sharding=sharding)
  compiled = lambda: programs.compile_program(square, (x,), sharding, mode=distributed.auto)
  with programs.reused():
    first = compiled()
    with other():
      assert compiled() is not first
    assert compiled() is first


def test_random_keys_are_those_of_the_settings_of_jax():
  sharding = distributed.replicated(distributed.mesh(jax.devices()[:1]))
  kind = lambda: jax.random.key_impl(device_arrays._placed_keys(0, sharding, programs.settings())[0])
  usual = kind()
  with setting("jax_default_prng_impl", "rbg"):
    assert kind() != usual


def test_programs_whose_arguments_have_no_hash_are_compiled_each_time():
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  scale = lambda x, *, factor: x * factor["a"]
  factor = {"a": np.float32(2), "b": np.zeros(2)}
  with programs.reused():
    first, second = (
      programs.compile_program(scale, (jax.numpy.ones(3),), sharding, mode=distributed.auto, factor=factor)
      for _ in range(2)
    )
  assert first is not second
  np.testing.assert_array_equal(second(jax.numpy.ones(3)), 2 * np.ones(3))

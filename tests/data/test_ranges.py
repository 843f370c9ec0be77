import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.data import ranges

BYTES = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)


@pytest.mark.parametrize(("value_range", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1), ("real", 0, 1)])
def test_bytes_map_linearly_onto_the_range(value_range, low, high):
  values = ranges.normalise(BYTES, value_range)
  assert values.dtype == np.float32
  np.testing.assert_allclose(values.ravel(), np.linspace(low, high, 256), atol=1e-6)
  assert ranges.range_error(values, value_range) is None
  np.testing.assert_array_equal(ranges.normalise(jnp.asarray(BYTES), value_range), values)


def test_floats_are_unchanged():
  x = np.random.default_rng(0).uniform(size=(2, 3, 3, 1))
  np.testing.assert_array_equal(ranges.normalise(x, "unit"), x.astype(np.float32))


@pytest.mark.parametrize(
  ("array", "value_range", "words"),
  [
    (np.array([0.5, np.nan]), "unit", "NaN"),
    (np.array([0.5, np.inf]), "real", "infinite"),
    (np.array([0.0, 255.0]), "unit", "from 0 to 255, outside the range 'unit'"),
    (np.array([-0.1, 0.5]), "unit", "from -0.1"),
    (np.array([-1.5, 0.5]), "symmetric", "outside the range 'symmetric' [-1, 1]"),
    (np.array([1, 2]), "unit", "int64"),
    (np.array([True]), "unit", "bool"),
    (np.array(["a"]), "unit", "dtype"),
  ],
)
def test_invalid_examples_are_detected(array, value_range, words):
  assert words in ranges.range_error(array, value_range)


def test_values_that_are_not_finite_are_counted_and_the_first_is_located():
  examples = np.zeros((4, 2, 3), np.float32)
  examples[2, 1, 0], examples[3, 0, 0] = np.nan, np.inf
  assert "(2 of 24, the first at [2, 1, 0])" in ranges.range_error(examples, "real")

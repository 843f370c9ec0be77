import jax
import numpy as np
import pytest

from ae_jax.data import ranges
from ae_jax.objectives import corruptions

X = np.random.default_rng(0).uniform(0.2, 0.8, size=(50, 20, 30)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 50)
SPANS = [*ranges.SPANS.values(), ranges.Span(-300.0, 2000.0, 0.0)]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["masking", "salt_and_pepper"])
def test_level_is_the_fraction_of_corrupted_elements(name, level, span):
  noisy, mask = corruptions.corrupt(name, KEYS, X, level, span)
  assert abs(float(np.mean(mask)) - level) <= 4 * np.sqrt(level * (1 - level) / X.size)
  np.testing.assert_array_equal(np.asarray(noisy)[~np.asarray(mask)], X[~np.asarray(mask)])
  values = set(np.unique(np.asarray(noisy)[np.asarray(mask)]).tolist())
  assert values <= ({span.missing} if name == "masking" else {span.low, span.high})
  if name == "salt_and_pepper" and level:
    high = np.mean(np.asarray(noisy)[np.asarray(mask)] == span.high)
    assert abs(high - 0.5) < 4 * 0.5 / np.sqrt(level * X.size)


@pytest.mark.parametrize("span", SPANS)
def test_gaussian_noise_scales_with_the_span_and_corrupts_all_elements(span):
  noisy, mask = corruptions.corrupt("gaussian", KEYS, X, 0.3, span)
  noise = (np.asarray(noisy) - X) / (span.high - span.low)
  assert np.all(mask)
  assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(X.size)
  assert noise.std() == pytest.approx(0.3, rel=4 / np.sqrt(2 * X.size))


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_noise_depends_on_the_key_of_the_example_alone(name):
  unit = ranges.SPANS["unit"]
  noisy, _ = corruptions.corrupt(name, KEYS, X, 0.3, unit)
  part, _ = corruptions.corrupt(name, KEYS[7:9], X[7:9], 0.3, unit)
  np.testing.assert_array_equal(noisy[7:9], part)
  same, _ = corruptions.corrupt(name, KEYS[:2], np.stack([X[0], X[0]]), 0.3, unit)
  assert (same[0] != same[1]).any()

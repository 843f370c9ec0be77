"""Augmentations: their effect, dependence on the example's key alone, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.data import augmentation, ranges

IMAGE = np.random.default_rng(0).uniform(0.2, 0.8, (7, 6, 3)).astype(np.float32)
SERIES = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 300)
ENTRIES = {
  "flip": {"name": "flip"},
  "shift": {"name": "shift", "pixels": 2},
  "crop": {"name": "crop", "pixels": 2},
  "brightness": {"name": "brightness", "level": 0.5},
}


def build(*entries, shape=IMAGE.shape, value_range="unit", span=None):
  return augmentation.build(entries, shape, value_range, span or ranges.SPANS[value_range])


def augmented(x, *entries, **data):
  """Returns the batch x, augmented with the first of KEYS."""
  return np.asarray(jax.jit(build(*entries, **data))(x, KEYS[: len(x)]))


def many(function, x):
  """Returns the results of a function (key, x) for all KEYS."""
  return np.asarray(jax.jit(jax.vmap(function, (0, None)))(KEYS, x))


def windows(x, pixels, mode):
  """Returns all crops of a padded image or series, computed by NumPy."""
  sides = x.shape[:-1]
  padded = np.pad(x, [(pixels, pixels)] * len(sides) + [(0, 0)], mode=mode)
  views = np.lib.stride_tricks.sliding_window_view(padded, x.shape)
  return views.reshape(-1, *x.shape)


def test_all_augmentations_are_covered():
  assert ENTRIES.keys() == augmentation.AUGMENTATIONS.keys()


def test_flip_mirrors_with_probability_one_half_and_is_an_involution():
  flipped = many(augmentation.flip, IMAGE)
  mirrored = (flipped == IMAGE[:, ::-1]).all((1, 2, 3))
  assert ((flipped == IMAGE).all((1, 2, 3)) ^ mirrored).all()
  assert 0.4 < mirrored.mean() < 0.6
  np.testing.assert_array_equal(many(lambda key, x: augmentation.flip(key, augmentation.flip(key, x)), IMAGE)[0], IMAGE)


@pytest.mark.parametrize(
  ("function", "x", "mode"),
  [(augmentation.shift, IMAGE, "edge"), (augmentation.shift, SERIES, "edge"), (augmentation.crop, IMAGE, "reflect")],
)
def test_shift_and_crop_draw_windows_of_the_padded_example_uniformly(function, x, mode):
  results = many(lambda key, x: function(key, x, 2), x)
  expected = windows(x, 2, mode)
  assert results.shape[1:] == x.shape
  same = (results[:, None] == expected[None]).reshape(*results.shape[:1], len(expected), -1).all(-1)
  assert (same.sum(1) == 1).all()
  share = same.mean(0)
  assert (np.abs(share - 1 / len(expected)) < 5 * np.sqrt(share.mean() / len(KEYS))).all()
  assert share.min() > 0


def test_shift_repeats_the_edge():
  ramp = jnp.arange(5, dtype=jnp.float32)[:, None]
  shifted = {tuple(row.ravel().tolist()) for row in many(lambda key, x: augmentation.shift(key, x, 1), ramp)}
  assert shifted == {(0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4)}


@pytest.mark.parametrize("value_range", ranges.INTERVALS)
def test_brightness_adds_a_constant_and_clips_to_the_range(value_range):
  span = ranges.Span(-2.0, 6.0, 0.0) if value_range == "real" else None
  low, high, _ = span or ranges.SPANS[value_range]
  x = low + (high - low) * IMAGE
  results = augmented(np.repeat(x[None], len(KEYS), 0), ENTRIES["brightness"], value_range=value_range, span=span)
  added = results - x
  within = np.ones_like(results, bool) if value_range == "real" else (results > low) & (results < high)
  spread = np.where(within, added, np.nan)
  np.testing.assert_allclose(np.nanmax(spread, (1, 2, 3)), np.nanmin(spread, (1, 2, 3)), atol=1e-5)
  most = 0.5 * (high - low)
  assert np.abs(added).max() <= most * 1.0001
  assert added.min() < -0.9 * most
  assert added.max() > 0.9 * most
  if value_range == "real":
    assert results.min() < low
    assert results.max() > high
  else:
    assert results.min() == low
    assert results.max() == high


def test_augmentation_is_bitwise_invariant_to_permuting_and_splitting_the_batch():
  augment = jax.jit(build(*ENTRIES.values()))
  x, keys = np.random.default_rng(2).uniform(size=(13, *IMAGE.shape)).astype(np.float32), KEYS[:13]
  whole = np.asarray(augment(x, keys))
  assert (whole != x).any()
  order = np.random.default_rng(3).permutation(13)
  np.testing.assert_array_equal(augment(x[order], keys[order]), whole[order])
  parts = [augment(x[start : start + 4], keys[start : start + 4]) for start in range(0, 13, 4)]  # the last of one
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_entries_apply_in_order_with_independent_keys():
  x = np.zeros((len(KEYS), *IMAGE.shape), np.float32)
  first = augmented(x, ENTRIES["brightness"], value_range="real")[:, 0, 0, 0]
  both = augmented(x, ENTRIES["brightness"], ENTRIES["brightness"], value_range="real")[:, 0, 0, 0]
  assert abs(np.corrcoef(first, both - first)[0, 1]) < 0.2
  clipped = augmented(x, ENTRIES["brightness"], ENTRIES["brightness"])[:, 0, 0, 0]
  expected = np.clip(np.maximum(first, 0.0) + (both - first), 0.0, 1.0)  # clipped after each
  np.testing.assert_allclose(clipped, expected, atol=1e-6)


def test_augmentation_is_independent_of_the_noise_of_the_objective():
  """Objectives draw noise with the example's key, or with keys derived from it."""
  x = np.zeros((len(KEYS), *IMAGE.shape), np.float32)
  added = augmented(x, ENTRIES["brightness"], value_range="real")[:, 0, 0, 0]
  noises = [jax.vmap(jax.random.uniform)(KEYS)]
  noises += [jax.vmap(lambda key, n=n: jax.random.uniform(jax.random.fold_in(key, n)))(KEYS) for n in range(4)]
  assert max(abs(np.corrcoef(added, np.asarray(noise))[0, 1]) for noise in noises) < 0.2


def test_build_returns_none_without_entries_and_hashable_augmentations():
  assert build() is None
  assert build("flip") == build({"name": "flip"})
  assert build(*ENTRIES.values()) == build(*ENTRIES.values())
  assert hash(build(*ENTRIES.values())) == hash(build(*ENTRIES.values()))
  assert build(ENTRIES["shift"]) != build({"name": "shift", "pixels": 3})


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (4, "config.data.augment[0]=4: must be a dict such as"),
    ("shift", "config.data.augment[0].pixels is missing; 'shift' needs pixels"),
    ("flp", "config.data.augment[0].name='flp' is unknown; did you mean 'flip'"),
    ({"pixels": 2}, "config.data.augment[0]={'pixels': 2}: must be a dict such as"),
    ({"name": "shift", 3: 4}, "must be a dict such as"),
    ({"name": "flp"}, "config.data.augment[0].name='flp' is unknown; did you mean 'flip'"),
    ({"name": 3}, "config.data.augment[0].name=3 is unknown"),
    ({"name": "flip", "pixels": 2}, "config.data.augment[0].pixels is not an option of 'flip'"),
    ({"name": "shift", "pixel": 2}, "config.data.augment[0].pixel is not an option of 'shift'; did you mean 'pixels'"),
    ({"name": "shift"}, "config.data.augment[0].pixels is missing; 'shift' needs pixels"),
    ({"name": "shift", "pixels": 0}, "config.data.augment[0].pixels=0: must be an integer from 1 to 5"),
    ({"name": "shift", "pixels": 6}, "config.data.augment[0].pixels=6: must be an integer from 1 to 5"),
    ({"name": "shift", "pixels": 2.0}, "config.data.augment[0].pixels=2.0: must be an integer"),
    ({"name": "crop", "pixels": True}, "config.data.augment[0].pixels=True: must be an integer"),
    ({"name": "brightness", "level": 0}, "config.data.augment[0].level=0: must be a number in (0, 1]"),
    ({"name": "brightness", "level": 1.5}, "config.data.augment[0].level=1.5: must be a number in (0, 1]"),
    ({"name": "brightness", "level": float("nan")}, "config.data.augment[0].level=nan: must be a number in (0, 1]"),
  ],
)
def test_invalid_entries_are_refused(entry, message):
  with pytest.raises(errors.UserError) as refusal:
    build(entry)
  assert message in str(refusal.value)


@pytest.mark.parametrize("name", ENTRIES)
def test_series_accept_shift_only(name):
  if name == "shift":
    assert augmented(SERIES[None], ENTRIES[name], shape=SERIES.shape).shape == (1, *SERIES.shape)
  else:
    with pytest.raises(
      errors.UserError, match=rf"config\.data\.augment\[1\]\.name='{name}': must be 'shift' for series"
    ):
      build(ENTRIES["shift"], ENTRIES[name], shape=SERIES.shape)


def test_too_many_entries_are_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.augment=.*: must be at most 100 entries"):
    build(*[ENTRIES["flip"]] * 101)

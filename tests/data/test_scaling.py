import re

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import lazy_arrays, ranges

BYTES = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
WORDS = np.random.default_rng(0).integers(0, 65_536, (60, 4, 4), np.uint16)
BITS = BYTES > 100


@pytest.fixture
def load(tmp_path):
  """Returns a function that saves an array of examples and loads it."""

  def save_and_load(examples, value_range="unit", placement="memory"):
    np.save(tmp_path / "x.npy", examples)
    return data.load("npy", str(tmp_path / "x.npy"), value_range, placement=placement)

  return save_and_load


def values(dataset):
  """Returns all examples in the data range, sorted."""
  both = np.concatenate([dataset.train[:], dataset.test])
  return np.sort(ranges.normalise(both, dataset.value_range).ravel())


@pytest.mark.parametrize("placement", ["memory", "stream"])
@pytest.mark.parametrize("value_range", ["unit", "symmetric"])
@pytest.mark.parametrize(
  ("examples", "fractions", "words"),
  [
    (BYTES.astype(np.int64), BYTES / 255, "int64 from 0 to 255, read as bytes"),
    (BYTES.astype(">u2"), BYTES / 255, "uint16 from 0 to 255, read as bytes"),
    (BYTES.astype(np.float16), BYTES / 255, "float16 from 0 to 255, read as bytes"),
    (BYTES.astype(np.float64), BYTES / 255, "float64 from 0 to 255, read as bytes"),
    (WORDS, WORDS / 65_535, "uint16 from .* to 65,[0-9]*, divided by 65,535"),
    (WORDS.astype(np.int32), WORDS / 65_535, "int32 from .*, divided by 65,535"),
    (BITS, BITS, "bool from 0 to 1, taken as the ends"),
    (BITS.astype(np.uint8), BITS, "uint8 from 0 to 1, taken as the ends"),
    (BITS.astype(np.int16), BITS, "int16 from 0 to 1, taken as the ends"),
  ],
)
def test_the_unit_is_recognised_and_said(load, examples, fractions, words, value_range, placement):
  dataset = load(examples, value_range, placement)
  expected = np.sort(fractions.ravel().astype(float)) * (2 if value_range == "symmetric" else 1)
  np.testing.assert_allclose(values(dataset), expected - (value_range == "symmetric"), atol=2e-7)
  (remark,) = dataset.remarks
  assert re.search(words, remark)


@pytest.mark.parametrize("placement", ["memory", "stream"])
@pytest.mark.parametrize("examples", [BYTES, BYTES * 0, BITS.astype(np.float32), BYTES / 255])
def test_bytes_and_floats_in_the_range_are_unchanged_without_a_remark(load, examples, placement):
  dataset = load(examples, placement=placement)
  assert dataset.scaling is None
  assert dataset.remarks == ()
  assert dataset.train.dtype == (np.uint8 if examples.dtype == np.uint8 else np.float32)


def test_the_range_real_scales_nothing_but_bytes(load):
  counts = BYTES.astype(np.int64) * 300 - 5
  dataset = load(counts, "real")
  np.testing.assert_array_equal(values(dataset), np.sort(counts.ravel()))
  assert "int64 from -5 to 76,495, not scaled" in dataset.remarks[0]
  assert load(BYTES.astype(float), "real").remarks == ()
  np.testing.assert_allclose(values(load(BYTES, "real")), np.sort(BYTES.ravel()) / 255, atol=1e-7)


@pytest.mark.parametrize("examples", [BYTES - 1.5, BYTES / 2, BYTES.astype(int) * 1000, BYTES.astype(int) - 1])
@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_other_values_outside_the_range_are_refused(load, examples, placement):
  with pytest.raises(errors.UserError, match="outside the range 'unit'"):
    load(examples, placement=placement)


@pytest.mark.parametrize(
  ("examples", "other", "message"),
  [
    (BITS.astype(np.uint8), 7, "has values from 0 to 7, but the values from 0 to 1 that were found are taken as"),
    (BYTES.astype(np.int64), 256, "to 256, but the values from [0-9]* to [0-9]* that were found are read as bytes"),
    (BYTES.astype(np.float32), 0.5, "that were found are read as bytes"),
  ],
)
def test_a_streamed_row_in_another_unit_is_refused_when_it_is_read(load, monkeypatch, examples, other, message):
  monkeypatch.setattr(lazy_arrays, "PROBES", 1)
  kept = np.flatnonzero(np.random.default_rng(0).permutation(60) >= 12)  # the training examples
  changed = examples.copy()
  unseen = next(row for row in kept[::-1] if row not in lazy_arrays.probe_indices(60))
  changed[unseen, 0, 0] = other
  changed[[0, 59]] = examples[[1, 1]]
  dataset = load(changed, placement="stream")
  with pytest.raises(errors.UserError, match=rf"placement=memory.* training example \d+ .*{message}"):
    dataset.train[:]


def test_test_examples_are_in_the_unit_of_all_examples(tmp_path):
  np.savez(tmp_path / "x.npz", x_train=BYTES.astype(int), x_test=BITS.astype(int))
  dataset = data.load("npz", str(tmp_path / "x.npz"), "unit")
  assert dataset.test.max() == 1
  assert dataset.test.dtype == np.uint8

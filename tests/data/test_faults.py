"""Suspicious values of a data set are named once, and usual data have no faults."""

import numpy as np
import pytest

from ae_jax import data
from ae_jax.data import faults, schema

GENERATOR = np.random.default_rng(0)
TRAIN, TEST = (GENERATOR.uniform(size=(count, 6)).astype(np.float32) for count in (100, 40))
SERIES = GENERATOR.normal(size=(100, 9, 2))
UNEVEN = GENERATOR.normal(size=(100, 1, 6, 1)) * 10.0 ** np.array([-2, -1, 0, 2, 1, 0])[:, None]
BYTES = GENERATOR.integers(0, 256, (40, 5, 5, 1), np.uint8)


def with_value(row, column, value):
  changed = TRAIN.copy()
  changed[row, column] = value
  return changed


CASES = [  # training examples, test examples, range, scale, parts of the only fault
  (TRAIN, TEST, "unit", "none", ()),
  (TRAIN, TEST, "real", "none", ()),
  (TRAIN / 255, TEST / 255, "unit", "none", ("divided by 255 twice", "config.data.range=real")),
  (TRAIN / 255, TEST / 255, "real", "none", ()),
  (BYTES, BYTES[:0], "unit", "none", ()),
  (BYTES // 128, BYTES[:0], "unit", "none", ("less than 2%",)),
  (np.zeros_like(TRAIN), TEST, "unit", "none", ()),  # no scale is better for constant data
  (with_value(7, 2, 1e3), TEST, "real", "standard", ("one training example", "the value 1000", "scale=quantile")),
  (with_value(7, 2, 1e3), TEST, "real", "quantile", ("one training example", "remove it")),
  (TRAIN * [1, 1, 50, 1, 1, 1], TEST, "real", "none", ("column 2 has more than 95%", "config.data.scale=standard")),
  (TRAIN * [1, 1, 50, 1, 1, 1], TEST, "real", "standard", ()),
  (SERIES * [1, 9], SERIES[:5], "real", "none", ("channel 1 has more than 95%", "config.data.scale=standard")),
  (UNEVEN, UNEVEN[:0], "real", "none", ("element (0, 3, 0) has more than 95%", "as a table [N, 6]")),
  (TRAIN, np.concatenate([TEST, TRAIN[:5]]), "unit", "none", ("5 of 45 test examples", "config.data.group")),
]  # fmt: skip


def test_the_value_of_an_outlier_has_its_column_and_unit():
  columns = (schema.Column("dose mg/dL", "numeric"), schema.Column("visit", "date"))
  rows = GENERATOR.normal(size=(50, 2)).astype(np.float32)
  rows[7, 1] = 9000
  find = lambda scale: faults.find({"train": rows, "test": rows[:3] + 1}, "real", scale, schema.Schema(columns), "x")
  assert any("9000 days after the first date in column 'visit'" in text for text in find("none"))
  assert any("9000 standard deviations in column 'visit'" in text for text in find("standard"))


@pytest.mark.parametrize(("train", "test", "value_range", "scale", "parts"), CASES)
def test_each_fault_is_named_in_its_case_only(train, test, value_range, scale, parts):
  arrays = {"train": train.astype(np.float32) if train.dtype != np.uint8 else train, "test": test}
  found = faults.find(arrays, value_range, scale, None, "config.data.name='made'")
  assert len(found) == bool(parts)
  for text in found:
    assert text.startswith("config.data.name='made': ")
    assert all(part in text for part in parts)


def test_faults_of_bytes_and_of_floats_agree():
  arrays = {"train": BYTES, "test": BYTES[:3]}
  floats = {name: (values / 255).astype(np.float32) for name, values in arrays.items()}
  assert faults.find(arrays, "unit", "none", None, "x") == faults.find(floats, "unit", "none", None, "x") != []


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "diabetes"])
def test_bundled_data_have_no_faults_if_they_are_scaled(name):
  options = {"scale": "standard"} if name != "digits" else {}
  assert data.load(name, "", "unit" if name == "digits" else "real", **options).faults == ()


def test_loaded_data_keep_their_faults(tmp_path):
  np.savez(tmp_path / "x.npz", x_train=TRAIN / 255, x_test=np.concatenate([TRAIN[:3], TEST]) / 255)
  for placement in ("memory", "stream"):
    dataset = data.load("npz", str(tmp_path / "x.npz"), "unit", placement=placement)
    assert not set(dataset.faults) & set(dataset.remarks)
    assert [part in text for part, text in zip(("twice", "3 of 43"), dataset.faults, strict=True)] == [True, True]


@pytest.mark.parametrize("shape", [(3_000, 7), (3_000, 3, 5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_equal_rows_have_equal_hashes_and_others_have_different_ones(shape, dtype):
  rows = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
  _, expected = np.unique(rows.reshape(len(rows), -1), axis=0, return_inverse=True)
  _, found = np.unique(faults.row_hashes(rows), return_inverse=True)
  _, pairs = np.unique(np.stack([expected.ravel(), found], 1), axis=0, return_index=True)
  assert len(pairs) == expected.max() + 1 == found.max() + 1
  assert faults.row_hashes(rows[:0]).shape == (0,)
  hashes, shared = faults.row_hashes(rows), faults.row_hashes(np.concatenate([rows[:30], rows[:20] + 7]))
  assert faults.count_distinct(hashes) == found.max() + 1
  assert faults.count_common(shared, hashes) == 30
  assert faults.count_distinct(hashes[:0]) == 0

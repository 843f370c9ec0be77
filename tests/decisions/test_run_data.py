"""Examples of a data set in parts, with their names and labels."""

import numpy as np
import pytest
from made_exports import made

from ae_jax import data
from ae_jax.data import lazy_arrays
from ae_jax.decisions import run_data

pytestmark = pytest.mark.quick_compile

X = np.random.default_rng(0).random((12, 6, 5, 1), np.float32)
LABELS = np.arange(12) % 2


def dataset(**fields):
  return data.Dataset("npz", "unit", X[:6], X[6:8], **{"train_labels": None, "test_labels": None, **fields})


def joined(found):
  parts = [known | {"x": inputs.x} for known, inputs in found]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_parts_hold_every_example_once_whatever_their_size(monkeypatch, rows):
  monkeypatch.setattr(lazy_arrays, "PART_BYTES", rows * X[0].nbytes)
  parts = [*run_data.in_parts(made(), dataset(train_labels=LABELS[:6], test_labels=LABELS[6:8]))]
  assert max(len(inputs.x) for _, inputs in parts) == min(rows, 6)
  found = joined(parts)
  np.testing.assert_array_equal(found["x"], X[:8])
  assert found["split"].tolist() == ["train"] * 6 + ["test"] * 2
  assert found["name"].tolist() == [*"01234501"]
  assert found["label"].tolist() == [*"01010101"]


def test_a_split_without_labels_gets_empty_ones():
  source = dataset(train_labels=LABELS[:6], test_labels=LABELS[6:8], validation=X[8:], class_names=("even", "odd"))
  found = joined(run_data.in_parts(made(), source))
  expected = {"train": ["even", "odd"] * 3, "test": ["even", "odd"], "validation": [""] * 4}
  assert {split: found["label"][found["split"] == split].tolist() for split in expected} == expected


def test_without_labels_there_is_no_column():
  assert "label" not in joined(run_data.in_parts(made(), dataset(validation=X[8:])))

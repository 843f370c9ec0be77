import re

import numpy as np
import pytest

from ae_jax import data
from ae_jax.data import remarks

BYTES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)


def load(name, path):
  return data.load(name, str(path), "unit")


def save_archive(folder, **arrays):
  np.savez(folder / "data.npz", **arrays)
  return folder / "data.npz"


def save_files(folder, **arrays):
  for name, values in arrays.items():
    np.save(folder / f"{name}.npy", values)
  return folder


UNREAD = ("embeddings", "masks", "weights", "x_dev")


def test_unread_arrays_are_listed_in_one_remark(tmp_path):
  arrays = {"x_train": BYTES, "y_train": np.arange(20)}
  for kind, write, suffix in [("npz", save_archive, ""), ("npy", save_files, ".npy")]:
    (tmp_path / kind).mkdir()
    assert load(kind, write(tmp_path / kind, **arrays)).remarks == ()
    path = write(tmp_path / kind, **arrays, **dict.fromkeys(UNREAD, BYTES))
    (remark,) = load(kind, path).remarks
    assert remark.startswith(
      f"config.data.path='{path}': not read: {', '.join(name + suffix for name in UNREAD)}; the "
    )
    assert f"x_train{suffix}, x_test{suffix}, y_train{suffix}, y_test{suffix}" in remark
  assert load("npy", tmp_path / "npy" / "x_train.npy").remarks == ()  # a path to a file reports no other files


def test_long_lists_of_unread_arrays_are_shortened(tmp_path):
  for count, expected in [(8, "more00, .*, more07; the"), (30, "more00, .*, more06, 23 more; the")]:
    (remark,) = load("npz", save_archive(tmp_path, x_train=BYTES, **{f"more{i:02}": [i] for i in range(count)})).remarks
    assert re.search(expected, remark)
    assert "more08" not in remark


@pytest.mark.parametrize(
  ("shape", "columns", "text"),
  [
    ((28, 20, 1), 0, "examples of shape 28 x 20 x 1"),
    ((13,), 6, "examples of 6 columns (13 inputs of the model)"),
    ((1,), 1, "examples of 1 column"),
    ((30,), 30, "examples of 30 columns"),
  ],
)
def test_columns_of_a_table_and_inputs_of_the_model_are_both_named(shape, columns, text):
  assert remarks.examples_of(shape, columns) == text

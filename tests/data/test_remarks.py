import re

import numpy as np
import pytest

from ae_jax import data

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


UNREAD = ("mask_train", "target_train", "weight_train", "x_val")


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


@pytest.mark.parametrize("values", [(0, 1), (1,), (0,), (0, 2), (0, 255)])
@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_binary_bytes_cause_a_remark(tmp_path, values, placement):
  images = np.random.default_rng(0).choice(np.array(values, np.uint8), (60, 4, 4))
  np.save(tmp_path / "x.npy", images)
  remarks = data.load("npy", str(tmp_path / "x.npy"), "unit", placement=placement).remarks
  if max(values) == 1:
    assert len(remarks) == 1
    assert "every byte is 0 or 1" in remarks[0]
    assert "store 0 and 255, or floats 0.0 and 1.0" in remarks[0]
  else:
    assert remarks == ()


def test_binary_floats_and_other_bytes_cause_no_remark(tmp_path):
  images = np.random.default_rng(0).integers(0, 2, (60, 4, 4), np.uint8)
  larger = images.copy()
  larger[40:, 2, 2] = 2  # not among the first examples
  for array in (images.astype(np.float32), larger):
    np.save(tmp_path / "x.npy", array)
    assert data.load("npy", str(tmp_path / "x.npy"), "unit").remarks == ()

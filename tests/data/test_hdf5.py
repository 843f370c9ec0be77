import os

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import detection, hdf5

h5py = pytest.importorskip("h5py")

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (50, 6, 7, 3), np.uint8)
LABELS = np.array(["cat", "dog"])[np.arange(50) % 2]


def write(path, chunks=None, **arrays):
  with h5py.File(path, "w") as file:
    for name, values in arrays.items():
      texts = {"dtype": h5py.string_dtype()} if values.dtype.kind == "U" else {}
      file.create_dataset(name, data=values.astype(object) if texts else values, **texts)
    if chunks:
      file.create_dataset("x_train", data=IMAGES, chunks=(chunks, 6, 7, 3), compression="gzip")
  return path


@pytest.mark.parametrize("chunks", [None, 1, 7, 50])
def test_hdf5_equals_npz_in_memory_and_streamed(tmp_path, chunks):
  arrays = {"y_train": LABELS} | ({} if chunks else {"x_train": IMAGES})
  path = write(tmp_path / "a.h5", chunks, **arrays)
  np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS)
  expected = data.load("npz", str(tmp_path / "a.npz"), "unit")
  for placement in ("memory", "stream"):
    dataset = data.load("hdf5", str(path), "unit", placement=placement)
    assert dataset.fingerprints == expected.fingerprints
    assert dataset.class_names == ("cat", "dog")
    order = GENERATOR.permutation(len(dataset.train))[:20]
    np.testing.assert_array_equal(dataset.train[order], expected.train[order])


def test_each_chunk_is_read_once():
  class Counted:
    chunks, shape, dtype, reads = (8, 6, 7, 3), IMAGES.shape, IMAGES.dtype, 0

    def __getitem__(self, index):
      assert index.start // 8 == (index.stop - 1) // 8
      self.reads += 1
      return IMAGES[index]

  array, indices = Counted(), GENERATOR.permutation(50)
  np.testing.assert_array_equal(hdf5._rows(array, indices), IMAGES[indices])
  assert array.reads == 7


def test_arrays_in_groups_have_names_and_others_are_named(tmp_path):
  path = write(tmp_path / "a.h5", **{"group/images": IMAGES, "group/labels": np.arange(50), "rest": np.zeros(3)})
  with pytest.raises(errors.UserError, match=r"Add --config\.data\.x=group/images --config\.data\.y=group/labels"):
    data.load("hdf5", str(path), "unit")
  dataset = data.load("hdf5", str(path), "unit", x="group/images", y="group/labels")
  assert "not read: rest" in dataset.remarks[0]
  assert detection.detect(str(path)).options == {"x": "group/images", "y": "group/labels"}


def test_arrays_in_other_files_are_not_read(tmp_path):
  write(tmp_path / "secret.h5", x_train=IMAGES)
  (tmp_path / "raw").write_bytes(bytes(100))
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["x_train"] = h5py.ExternalLink(os.fspath(tmp_path / "secret.h5"), "x_train")
    file.create_dataset("x_test", (10, 10), np.uint8, external=[(os.fspath(tmp_path / "raw"), 0, 100)])
  with pytest.raises(errors.UserError, match="contains no array `x_train`; it contains nothing"):
    data.load("hdf5", str(tmp_path / "a.h5"), "unit")


@pytest.mark.parametrize("size", [0, 60, 2000])
def test_damaged_files_end_in_one_line(tmp_path, size):
  content = write(tmp_path / "a.h5", x_train=IMAGES).read_bytes()
  (tmp_path / "a.h5").write_bytes(content[:size])
  with pytest.raises(errors.UserError, match="not a readable HDF5 file"):
    data.load("hdf5", str(tmp_path / "a.h5"), "unit")
  with pytest.raises(errors.UserError, match="file not found"):
    data.load("hdf5", str(tmp_path / "b.h5"), "unit")

import os
import pathlib
import zipfile

import numpy as np
import pytest

from ae_jax import cache, data, errors
from ae_jax.data import sources

MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist" / "3.0.1"


def load(name, path="", range="unit"):
  return data.load(name, str(path), range)


def test_mnist_5k_is_mnist_and_its_split_is_stratified_and_fixed():
  dataset = load("mnist_5k")
  assert dataset.train.shape == (4000, 28, 28, 1)
  assert dataset.test.shape == (1000, 28, 28, 1)
  assert dataset.train.dtype == np.uint8
  assert np.bincount(dataset.train_labels).tolist() == [400] * 10
  assert np.bincount(dataset.test_labels).tolist() == [100] * 10
  assert dataset.fingerprint().startswith("8700a68efccf6c03")
  both = np.concatenate([dataset.train, dataset.test]).reshape(5000, -1)
  assert len(np.unique(both, axis=0)) == 5000
  assert abs(both.mean() / 255 - 0.1307) < 0.003  # MNIST's mean pixel


def test_digits_are_sixteenths():
  dataset = load("digits")
  assert dataset.train.shape[1:] == dataset.shape == (8, 8, 1)
  assert len(dataset.train) + len(dataset.test) == 1797
  assert dataset.train.dtype == np.float32
  np.testing.assert_array_equal(dataset.train * 16 % 1, 0)


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
def test_the_full_set_comes_through_tfds_and_then_from_the_cache(monkeypatch):
  dataset = load("mnist")
  assert dataset.train.shape == (60_000, 28, 28, 1)
  assert dataset.test.shape == (10_000, 28, 28, 1)
  assert np.bincount(dataset.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert abs(dataset.train.mean() / 255 - 0.1306604762) < 1e-9  # facts of the official file
  from PIL import Image

  monkeypatch.setattr(Image, "open", None)  # nothing is decoded twice
  assert load("mnist").fingerprint() == dataset.fingerprint()


def test_an_unprepared_set_says_what_prepares_it(tmp_path):
  with pytest.raises(errors.UserError, match=r"pip install -e '..tfds.'.*tfds build mnist.*mnist_5k needs no prep"):
    load("mnist", tmp_path)


def test_a_set_that_cannot_be_prepared_says_why_and_what_to_do(tmp_path, monkeypatch):
  import tensorflow_datasets

  def fails(builder, **_):
    raise ConnectionError("no route\nto host")

  monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: name)  # TensorFlow is there, it seems
  monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fails)
  with pytest.raises(errors.UserError, match=r"preparing it failed \(no route to host\): run `tfds build mnist"):
    load("mnist", tmp_path)


@pytest.mark.parametrize(
  ("name", "message"),
  [("mnist_5l", "did you mean 'mnist_5k'"), ("cifar_10", "did you mean 'cifar10'"), ("", "unknown")],
)
def test_an_unknown_name_is_met_with_the_nearest(name, message):
  with pytest.raises(errors.UserError, match=message):
    load(name)


def test_an_embedded_set_reads_no_file():
  with pytest.raises(errors.UserError, match=r"config\.data\.path='x.npz'"):
    load("mnist_5k", "x.npz")


BYTES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)


def saved(folder, **arrays):
  np.savez(folder / "data.npz", **arrays)
  return folder / "data.npz"


def test_npz_gives_what_was_put_in(tmp_path):
  labels = np.arange(20)
  path = saved(tmp_path, x_train=BYTES, x_test=BYTES[:3], y_train=labels, y_test=labels[:3])
  dataset = load("npz", path)
  np.testing.assert_array_equal(dataset.train, BYTES)
  np.testing.assert_array_equal(dataset.test, BYTES[:3])
  np.testing.assert_array_equal(dataset.train_labels, labels)


def test_npz_without_a_test_half_holds_a_fifth_out(tmp_path):
  dataset = load("npz", saved(tmp_path, x_train=BYTES, y_train=np.arange(20)))
  assert (len(dataset.train), len(dataset.test)) == (16, 4)
  assert sorted([*dataset.train_labels, *dataset.test_labels]) == list(range(20))
  np.testing.assert_array_equal(BYTES[dataset.test_labels], dataset.test)


def test_npz_takes_grey_images_without_a_channel_axis_and_doubles(tmp_path):
  grey = np.random.default_rng(0).uniform(-1, 1, (10, 4, 4))
  dataset = load("npz", saved(tmp_path, x_train=grey), "symmetric")
  assert dataset.train.dtype == np.float32
  assert dataset.shape == (4, 4, 1)
  assert dataset.peak == 2


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"images": BYTES}, "no array `x_train` in it; it holds images"),
    ({}, "no array `x_train`"),
    ({"x_train": BYTES[0, 0]}, "has 2 axes|3 images"),
    ({"x_train": BYTES[:, None]}, "has 5 axes"),
    ({"x_train": np.float64(3)}, "3 images or more"),
    ({"x_train": BYTES[:2]}, "3 images or more"),
    ({"x_train": BYTES[:1], "x_test": BYTES}, "one training example; 2 or more"),
    ({"x_train": BYTES[:, :, :, :2]}, "has 2 channels"),
    ({"x_train": BYTES[:, :0]}, "nothing in it"),
    ({"x_train": BYTES.astype(np.int64)}, "dtype int64"),
    ({"x_train": BYTES.astype(np.float32)}, "outside the range 'unit'"),
    ({"x_train": np.where(BYTES == 3, np.nan, 0.5)}, "NaN"),
    ({"x_train": np.full((9, 3, 3), 1e300)}, "infinite"),
    ({"x_train": BYTES, "x_test": BYTES[:, :4]}, "the training examples are uint8"),
    ({"x_train": BYTES, "x_test": BYTES / 255}, "the training examples are uint8"),
    ({"x_train": BYTES, "y_train": np.arange(19)}, "one label per image"),
    ({"x_train": BYTES, "y_test": np.arange(20)}, "one label per image"),
    ({"x_train": np.array([None, "a"])}, "never unpickled"),
    ({"x_train": np.array(["a", "b", "c"])}, "axes|dtype"),
  ],
)
def test_npz_that_is_not_what_it_should_be_is_refused(tmp_path, arrays, message):
  with pytest.raises(errors.UserError, match=message) as refusal:
    load("npz", saved(tmp_path, **arrays))
  assert "data.npz" in str(refusal.value)
  assert "\n" not in str(refusal.value)


def test_missing_and_damaged_files_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.path is empty"):
    load("npz")
  with pytest.raises(errors.UserError, match="there is no such file"):
    load("npz", tmp_path / "absent.npz")
  with pytest.raises(errors.UserError, match="not a readable"):
    load("npz", tmp_path)
  whole = saved(tmp_path, x_train=BYTES).read_bytes()
  generator = np.random.default_rng(0)
  for case in range(60):
    damaged = bytearray(whole[: generator.integers(len(whole))] if case % 2 else whole)
    for place in generator.integers(len(damaged), size=20) if damaged else ():
      damaged[place] ^= generator.integers(1, 256)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(errors.UserError):
      load("npz", tmp_path / "damaged.npz")
  np.save(tmp_path / "bare.npy", BYTES)
  with pytest.raises(errors.UserError, match="one bare array"):
    load("npz", tmp_path / "bare.npy")


def test_an_unknown_range_is_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.range='units' is unknown; did you mean 'unit'"):
    load("digits", range="units")


def test_the_fingerprint_is_of_the_contents():
  first = load("digits")
  second = load("digits")
  assert first.fingerprint() == second.fingerprint()
  second.train[0, 0, 0, 0] += 1 / 16
  assert first.fingerprint() != second.fingerprint()


def test_the_cache_makes_once_and_survives_damage(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path))
  made = []

  def make():
    made.append(1)
    return {"a": np.arange(5)}

  for version, times in [("1", 1), ("1", 1), ("2", 2)]:
    np.testing.assert_array_equal(cache.arrays("some/set", version, make)["a"], np.arange(5))
    assert len(made) == times
  files = list((tmp_path / "arrays").iterdir())
  assert all(zipfile.is_zipfile(file) for file in files)
  for file in files:
    file.write_bytes(file.read_bytes()[:50])
  cache.arrays("some/set", "1", make)
  assert len(made) == 3


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "file"))
  assert cache.arrays("a", "1", lambda: {"a": np.ones(2)})["a"].sum() == 2

import os
import pathlib
import types
import zipfile

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import lazy_arrays, sources
from ae_jax.system import cache

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


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
def test_the_full_set_streams_as_it_is_in_memory():
  decoded, streamed = load("mnist"), data.load("mnist", "", "unit", placement="stream")
  assert isinstance(streamed.train, lazy_arrays.LazyArray)
  some = lazy_arrays.probes(60_000)
  np.testing.assert_array_equal(streamed.train[some], decoded.train[some])
  np.testing.assert_array_equal(streamed.train_labels[some], decoded.train_labels[some])
  np.testing.assert_array_equal(streamed.test, decoded.test)
  np.testing.assert_array_equal(streamed.test_labels, decoded.test_labels)


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
  ("splits", "held_out"),
  [(("train", "test"), "test"), (("validation", "train", "test"), "test"), (("train", "validation"), "validation")],
)
def test_the_test_split_is_held_out_or_where_there_is_none_the_one_for_validation(splits, held_out):
  from tensorflow_datasets import features

  given = {"image": features.Image(shape=(4, 4, 3)), "label": features.ClassLabel(num_classes=2)}
  info = types.SimpleNamespace(features=given, splits=dict.fromkeys(splits))
  found = sources._image_set(types.SimpleNamespace(info=info), "here")
  assert found == ("image", "label", {"train": "train", "test": held_out})
  info.splits = {"train": None}
  with pytest.raises(errors.UserError, match=r"here: has splits \['train'\]; `train` and `test` are wanted"):
    sources._image_set(types.SimpleNamespace(info=info), "here")


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


def test_an_unknown_range_is_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.range='units' is unknown; did you mean 'unit'"):
    load("digits", range="units")


@pytest.mark.parametrize("name", ["digits", "mnist_5k", "heartbeats"])
def test_a_set_that_is_an_array_streams_from_it(name):
  held, streamed = (data.load(name, "", "real", placement=placement) for placement in ("memory", "stream"))
  assert (held.streams, streamed.streams) == (False, True)
  np.testing.assert_array_equal(streamed.train, held.train)
  assert streamed.fingerprint() == held.fingerprint()
  assert streamed.peak == held.peak


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

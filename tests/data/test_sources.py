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


def test_mnist_5k_has_mnist_statistics_and_a_fixed_stratified_split():
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


def test_digits_are_multiples_of_one_sixteenth():
  dataset = load("digits")
  assert dataset.train.shape[1:] == dataset.shape == (8, 8, 1)
  assert len(dataset.train) + len(dataset.test) == 1797
  assert dataset.train.dtype == np.float32
  np.testing.assert_array_equal(dataset.train * 16 % 1, 0)


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
def test_mnist_loads_from_tfds_and_then_from_the_cache(monkeypatch):
  dataset = load("mnist")
  assert dataset.train.shape == (60_000, 28, 28, 1)
  assert dataset.test.shape == (10_000, 28, 28, 1)
  assert np.bincount(dataset.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert abs(dataset.train.mean() / 255 - 0.1306604762) < 1e-9  # facts of the official file
  from PIL import Image

  monkeypatch.setattr(Image, "open", None)  # nothing is decoded twice
  assert load("mnist").fingerprint() == dataset.fingerprint()


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
def test_streamed_mnist_equals_mnist_in_memory():
  decoded, streamed = load("mnist"), data.load("mnist", "", "unit", placement="stream")
  assert isinstance(streamed.train, lazy_arrays.LazyArray)
  rows = lazy_arrays.probe_indices(60_000)
  np.testing.assert_array_equal(streamed.train[rows], decoded.train[rows])
  np.testing.assert_array_equal(streamed.train_labels[rows], decoded.train_labels[rows])
  np.testing.assert_array_equal(streamed.test, decoded.test)
  np.testing.assert_array_equal(streamed.test_labels, decoded.test_labels)


def test_error_for_an_unprepared_set_names_the_commands(tmp_path):
  with pytest.raises(errors.UserError, match=r"pip install 'ae_jax.tfds.'.*tfds build mnist.*mnist_5k needs no prep"):
    load("mnist", tmp_path)


def test_failed_preparation_reports_the_reason_and_the_fix(tmp_path, monkeypatch):
  import tensorflow_datasets

  def fails(builder, **_):
    raise ConnectionError("no route\nto host")

  monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: name)  # pretends that TensorFlow is installed
  monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fails)
  with pytest.raises(errors.UserError, match=r"preparing it failed \(no route to host\)\. Run `tfds build mnist"):
    load("mnist", tmp_path)


@pytest.mark.parametrize(
  ("splits", "held_out"),
  [(("train", "test"), "test"), (("validation", "train", "test"), "test"), (("train", "validation"), "validation")],
)
def test_held_out_split_is_test_or_else_validation(splits, held_out):
  from tensorflow_datasets import features

  feature_types = {"image": features.Image(shape=(4, 4, 3)), "label": features.ClassLabel(num_classes=2)}
  info = types.SimpleNamespace(features=feature_types, splits=dict.fromkeys(splits))
  image_set = sources._image_set(types.SimpleNamespace(info=info), "here")
  validation = {"validation": "validation"} if len(splits) == 3 else {}
  assert image_set == ("image", "label", {"train": "train", "test": held_out} | validation)
  builder = types.SimpleNamespace(info=info)
  assert sources._image_set(builder, "here", False)[2] == {"train": "train", "test": held_out}
  info.splits = {"train": None}
  with pytest.raises(errors.UserError, match=r"here: has splits \['train'\]; use a data set with `train`, and `test`"):
    sources._image_set(types.SimpleNamespace(info=info), "here")


@pytest.mark.parametrize(
  ("name", "message"),
  [("mnist_5l", "did you mean 'mnist_5k'"), ("cifar_10", "did you mean 'cifar10'"), ("", "unknown")],
)
def test_unknown_name_suggests_the_nearest(name, message):
  with pytest.raises(errors.UserError, match=message):
    load(name)


def test_embedded_set_refuses_a_path():
  with pytest.raises(errors.UserError, match=r"config\.data\.path='x.npz'"):
    load("mnist_5k", "x.npz")


def test_unknown_range_is_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.range='units' is unknown; did you mean 'unit'"):
    load("digits", range="units")


@pytest.mark.parametrize("name", ["digits", "mnist_5k", "heartbeats"])
def test_embedded_sets_stream_from_memory(name):
  held, streamed = (data.load(name, "", "real", placement=placement) for placement in ("memory", "stream"))
  assert (held.streams, streamed.streams) == (False, True)
  np.testing.assert_array_equal(streamed.train, held.train)
  assert streamed.fingerprint() == held.fingerprint()
  assert streamed.peak == held.peak


def test_fingerprint_depends_on_the_contents():
  first = load("digits")
  second = load("digits")
  assert first.fingerprint() == second.fingerprint()
  second.train[0, 0, 0, 0] += 1 / 16
  assert first.fingerprint() != second.fingerprint()


def test_cache_computes_once_and_recovers_from_damage(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path))
  calls = []

  def make():
    calls.append(1)
    return {"a": np.arange(5)}

  for version, times in [("1", 1), ("1", 1), ("2", 2)]:
    np.testing.assert_array_equal(cache.arrays("some/set", version, make)["a"], np.arange(5))
    assert len(calls) == times
  files = list((tmp_path / "arrays").iterdir())
  assert all(zipfile.is_zipfile(file) for file in files)
  for file in files:
    file.write_bytes(file.read_bytes()[:50])
  cache.arrays("some/set", "1", make)
  assert len(calls) == 3


def test_unwritable_cache_still_returns_the_arrays(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "file"))
  assert cache.arrays("a", "1", lambda: {"a": np.ones(2)})["a"].sum() == 2

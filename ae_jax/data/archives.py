"""Data sources for `npz` archives, single `npy` files and folders of `npy` files."""

import contextlib
import functools
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import array_names, array_roles, lazy_arrays, numpy_files, remarks, several_files, splits


def npz(name: str, path: str, **options: Any) -> dict[str, Any]:
  """Reads the examples and labels of an archive; only the training examples are required.

  The arrays have the names of Keras' mnist.npz (x_train, y_train, x_test, y_test) or of MedMNIST (train_images,
  train_labels, test_images, test_labels); see `array_names` for the names of a validation set. Examples are [N, ...]
  (see `kinds.with_channels`). Labels have one of the forms that `labels.as_integers` accepts. If there are no test
  examples, they are drawn from the training examples (see `draws.divide`). Arrays of Python objects raise UserError.
  Examples can be streamed from archives of `numpy.savez`, but not from archives of `numpy.savez_compressed`.

  Optional arrays are target_train, mask_train and weight_train (see `loss_columns`), lengths_train (the lengths of
  padded series, see `lengths`), and for the test set the same names with _test.

  Args:
    name: Name of the source.
    path: Path of the archive.
    **options: Keys of `config.data`; see `array_names.Options`.
  """
  where, chosen = splits.where_of(name, path, ".npz file"), array_names.Options(**options)
  with _members(path, where) as headers:
    stored, names = array_roles.read(headers, chosen, where)
  return array_roles.train_and_test(stored, names, chosen.layout, where, array_roles.unread(headers, names, where))


def arrays_of(path: str, where: str) -> dict[str, lazy_arrays.LazyArray]:
  """Returns the arrays of an archive by name; their values are not read. `where` is the prefix of messages."""
  with _members(path, where) as headers:
    return {name: header() for name, header in headers.items()}


def array_of(path: str, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of an npy file; its values are not read."""
  with numpy_files.convert_errors(where):
    return numpy_files.of_file(pathlib.Path(path), where)


@contextlib.contextmanager
def _members(path: str, where: str) -> Iterator[array_names.Headers]:
  """Yields {array name: function that reads the header of the array}; the archive is open inside the context."""
  with numpy_files.convert_errors(where), open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise errors.UserError(f"{where}: is a single array, not an archive; set config.data.name=npy")
    with zipfile.ZipFile(file) as archive:
      yield {
        info.filename.removesuffix(".npy"): functools.partial(numpy_files.of_member, path, file, archive, info, where)
        for info in archive.infolist()
      }


def npy(name: str, path: str, **options: Any) -> dict[str, Any]:
  """Reads one file with all examples, several such files, or a folder with one file per array, such as x_train.npy.

  The array names and the arguments are the same as for `npz`; `x`, `y` and `group` are for folders only.
  """
  files, chosen = several_files.of_path(path), array_names.Options(**options)
  if len(files) == 1:
    where = splits.where_of(name, path, ".npy file or folder of .npy files")
  else:
    where = f"config.data.path={path!r}"
  if not os.path.isdir(path):
    for key in ("x", "y", "group"):
      value = getattr(chosen, key)
      errors.check(not value, f"data.{key}", value, f"empty, because {path} is a single array")
    stored = several_files.arrays(files, where) if len(files) > 1 else {"x_train": array_of(path, where)}
    x, notes = {"x_train": stored.pop("x_train")}, several_files.note(files, where)
    return array_roles.train_and_test(x, {"x_train": "x_train"}, chosen.layout, where, notes) | stored
  with numpy_files.convert_errors(where):
    files, headers = _files(path, where)
    stored, names = array_roles.read(headers, chosen, where)
  expected = [f"{array}.npy" for array in names.values()]
  notes = remarks.not_read(where, set(files) - set(expected), f"the files that are read are {', '.join(expected)}")
  return array_roles.train_and_test(stored, names, chosen.layout, where, notes)


def _files(path: str, where: str) -> tuple[list[str], array_names.Headers]:
  """Returns the file names in a folder, and {array name: function that reads the header} for its .npy files."""
  files = sorted(remarks.visible(path))
  arrays = [file for file in files if file.endswith(".npy")]
  return files, {
    file.removesuffix(".npy"): functools.partial(numpy_files.of_file, pathlib.Path(path, file), where)
    for file in arrays
  }


def largest(path: str) -> dict[str, str]:
  """Returns {"x": array name, "y": array name}, suggestions for `config.data.x` and `config.data.y`.

  The path is an archive or a folder of .npy files; see `array_names.largest`.

  Raises:
    UserError: The file or folder cannot be read.
  """
  where = f"config.data.path={path!r}"
  if os.path.isdir(path):
    with numpy_files.convert_errors(where):
      return array_names.largest(_files(path, where)[1])
  with _members(path, where) as read:
    return array_names.largest(read)

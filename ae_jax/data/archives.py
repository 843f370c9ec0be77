"""Data sources for `npz` and `npy` files, read whole or, if they exceed the memory budget, through a memory map.

Nothing is unpickled, and nothing is unpacked to disk. A memory map reads only the requested rows. The checksums of an
archive are verified only when it is read whole.
"""

import contextlib
import functools
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.data import array_names, labels, lazy_arrays, remarks, splits

LAYOUTS = {"nhwc": "[N, H, W, C]", "nchw": "[N, C, H, W]"}  # config.data.layout -> axes of images
_MOST_CHANNELS = 4  # a second axis of at most this size, before two larger ones, looks like channels
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # largest compression ratio of deflate
_LOCAL_HEADER = 30  # bytes of the header of a zip member, before its name and its extra field
_FORTRAN = "is in Fortran order; convert it with numpy.ascontiguousarray"


def npz(
  name: str,
  path: str,
  *,
  x: str = "",
  y: str = "",
  layout: str = "nhwc",
  group: str = "",
  read_validation: bool = True,
) -> dict[str, Any]:
  """Reads the examples and labels of an archive; only the training examples are required.

  The names x_train, y_train, x_test, y_test (also of Keras' mnist.npz) and train_images, train_labels, test_images,
  test_labels (of MedMNIST) are known, and the names of a validation set in `array_names`. Examples are [N, ...] (see
  `kinds.with_channels`), and labels are in any form of `labels.as_integers`. Without test examples, they are drawn from
  the training examples (see `draws.divide`). Arrays of Python objects are refused. Examples can be streamed from
  archives of `numpy.savez`, but not from archives of `numpy.savez_compressed`. Targets, masks and weights of the
  examples (see `loss_columns`) are target_train, mask_train, weight_train, and the same names with _test. lengths_train
  and lengths_test are the lengths of padded series (see `lengths`).

  Args:
    name: Name of the source.
    path: Path of the archive.
    x: Name of the array of examples; "" for the known names.
    y: Name of the array of their labels; "" for the known names, if `x` is "" too.
    layout: Order of the axes of images, a key of `LAYOUTS`.
    group: Name of the array with the group of each training example, in any dtype; "" for none.
    read_validation: Whether a validation set is read.
  """
  where = where_of(name, path, ".npz file")
  with _members(path, where) as read:
    names = array_names.choose(read, x, y, where, group=group, read_validation=read_validation)
    stored = {role: read[array]() for role, array in names.items() if array in read}
  listed = ", ".join(names.values())
  notes = remarks.not_read(where, read.keys() - set(names.values()), f"the arrays that are read are {listed}")
  return train_and_test(stored, names, layout, where, notes)


@contextlib.contextmanager
def _members(path: str, where: str) -> Iterator[array_names.Headers]:
  """Yields {name of an array: function that reads its header} of an archive, which is open inside the context."""
  with _convert_errors(where), open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise errors.UserError(f"{where}: is a single array, not an archive; set config.data.name=npy")
    with zipfile.ZipFile(file) as archive:
      yield {
        info.filename.removesuffix(".npy"): functools.partial(_member, path, file, archive, info, where)
        for info in archive.infolist()
      }


def npy(
  name: str,
  path: str,
  *,
  x: str = "",
  y: str = "",
  layout: str = "nhwc",
  group: str = "",
  read_validation: bool = True,
) -> dict[str, Any]:
  """Reads one file of all examples, or a folder of files that are named like the arrays of `npz`, such as x_train.npy.

  The arguments are those of `npz`; `x`, `y` and `group` are for folders only.
  """
  where = where_of(name, path, ".npy file or folder of .npy files")
  if not os.path.isdir(path):
    for key, value in (("x", x), ("y", y), ("group", group)):
      errors.check(not value, f"data.{key}", value, f"empty, because {path} is a single array")
    with _convert_errors(where):
      stored = {"x_train": _file(pathlib.Path(path), where)}
    return train_and_test(stored, {"x_train": "x_train"}, layout, where)
  with _convert_errors(where):
    files, read = _files(path, where)
    names = array_names.choose(read, x, y, where, group=group, read_validation=read_validation)
    stored = {role: read[array]() for role, array in names.items() if array in read}
  expected = [f"{array}.npy" for array in names.values()]
  notes = remarks.not_read(where, set(files) - set(expected), f"the files that are read are {', '.join(expected)}")
  return train_and_test(stored, names, layout, where, notes)


def _files(path: str, where: str) -> tuple[list[str], array_names.Headers]:
  """Returns the names in a folder, and {name of an array: function that reads its header} of its .npy files."""
  files = sorted(remarks.visible(path))
  arrays = [file for file in files if file.endswith(".npy")]
  return files, {
    file.removesuffix(".npy"): functools.partial(_file, pathlib.Path(path, file), where) for file in arrays
  }


def largest(path: str) -> dict[str, str]:
  """Returns values of `config.data.x` and `config.data.y` for an archive or a folder of .npy files.

  See `array_names.largest`.

  Raises:
    UserError: The file or folder cannot be read.
  """
  where = f"config.data.path={path!r}"
  if os.path.isdir(path):
    with _convert_errors(where):
      return array_names.largest(_files(path, where)[1])
  with _members(path, where) as read:
    return array_names.largest(read)


def where_of(name: str, path: str, expected: str) -> str:
  """Returns the prefix of error messages; raises UserError if the file does not exist."""
  splits.check_path(name, path, expected)
  where = f"config.data.path={path!r}"
  if not os.path.exists(path):
    raise errors.UserError(f"{where}: file not found; check the path")
  return where


def _convert_errors(where: str) -> contextlib.AbstractContextManager[None]:
  """Converts exceptions to a one-line UserError; NumPy, zipfile and zlib raise many types for damaged files."""
  return errors.convert_errors(f"{where}: not a readable NumPy file")


def _member(path: str, file: Any, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> lazy_arrays.LazyArray:
  """Returns an array of an archive as a LazyArray."""
  with archive.open(info) as member:
    shape, fortran, dtype = _header(member)
    header = member.tell()
  possible = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED)
  if info.file_size != header + math.prod(shape) * dtype.itemsize or info.file_size > possible:
    raise ValueError(f"the size of {info.filename} does not match its header; save the archive again")
  file.seek(info.header_offset + _LOCAL_HEADER - 4)
  offset = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4))) + header

  def load():
    with _convert_errors(where), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
      return arrays[info.filename]

  compressed = info.compress_type != zipfile.ZIP_STORED
  obstacle = "is compressed; save it with numpy.savez" if compressed else _FORTRAN if fortran else None
  return _mapped(path, info.filename, offset, shape, dtype, obstacle, load, where)


def file_array(path: pathlib.Path, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of a .npy file; raises UserError if it cannot be read."""
  with _convert_errors(f"{where}: {path.name}"):
    return _file(path, where)


def _file(path: pathlib.Path, where: str) -> lazy_arrays.LazyArray:
  """Returns the array of a .npy file as a LazyArray."""
  if path.exists() and not path.is_file():
    raise ValueError(f"{path.name} is a folder, a pipe or a device; expected a .npy file")
  with open(path, "rb") as file:
    shape, fortran, dtype = _header(file)
    offset = file.tell()
    if os.fstat(file.fileno()).st_size < offset + math.prod(shape) * dtype.itemsize:
      raise ValueError(f"the size of {path.name} does not match its header; save the array again")

  def load():
    with _convert_errors(where), open(path, "rb") as file:
      return np.load(file, allow_pickle=False)

  return _mapped(path, path.name, offset, shape, dtype, _FORTRAN if fortran else None, load, where)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Returns (shape, Fortran order, dtype) from the header of a file in NumPy format."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"it has NumPy format {version}; save a plain array, which has format (1, 0) or (2, 0)")
  shape, fortran, dtype = _HEADERS[version](file)
  if min(shape, default=0) < 0:
    raise ValueError(f"its shape {shape} is invalid; save the array again")
  if not dtype.itemsize or 0 in shape:
    raise ValueError(f"it is empty: it has shape {shape} and dtype {dtype}; save an array with elements")
  if dtype.hasobject:
    raise ValueError("it contains Python objects, which are never unpickled; save an array of numbers")
  return shape, fortran, dtype


def _mapped(
  path: str | pathlib.Path,
  array: str,
  offset: int,
  shape: tuple[int, ...],
  dtype: np.dtype,
  obstacle: str | None,
  load: Callable[[], np.ndarray],
  where: str,
) -> lazy_arrays.LazyArray:
  """Returns a LazyArray that reads rows through a memory map of a file.

  Args:
    path: File that contains the array.
    array: Name of the array in messages.
    offset: Position of the first element in the file, in bytes.
    shape: Shape of the array.
    dtype: Dtype of the array.
    obstacle: Error text (reason and fix) raised when rows are read; None if the file can be memory-mapped.
    load: Function that reads the whole array.
    where: Prefix of error messages.
  """

  @functools.cache
  def memory_map():
    return np.memmap(path, dtype, "r", offset, shape)

  def read(indices):
    if obstacle:
      raise errors.UserError(
        f"{where}: {array} cannot be streamed because it {obstacle}, or set config.data.placement=memory"
      )
    with _convert_errors(where):
      return np.asarray(memory_map()[indices])

  return lazy_arrays.LazyArray(shape, dtype, read, functools.cache(load))


def train_and_test(
  stored: Mapping[str, lazy_arrays.LazyArray],
  names: Mapping[str, str],
  layout: str,
  where: str,
  notes: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the arrays of a source; the keys of `stored` and `names` are roles: x_train, y_train, mask_train, ..."""
  arrays, notes = {}, [*notes]
  for half in splits.HALVES:
    if f"x_{half}" in stored:
      arrays[half] = _channels_last(stored[f"x_{half}"], layout, names[f"x_{half}"], where)
  arrays |= _loss_columns(stored, names, layout, where)
  shape = arrays["train"].shape
  if "test" not in arrays:
    if not shape or shape[0] < 3:
      raise errors.UserError(
        f"{where}: `{names['x_train']}` has shape {shape}; provide at least 3 examples, or add test examples"
      )
    if "validation" in arrays:
      notes.append(splits.no_test_set(where, f"`{names['x_validation']}`"))
  if "group_train" in stored:
    arrays["train_group"] = _groups(stored["group_train"], shape, names, where)
  given = {half: names[f"y_{half}"] for half in splits.HALVES if f"y_{half}" in stored}
  for half, name in given.items():
    shape, images = stored[f"y_{half}"].shape, stored.get(f"x_{half}")
    if images is None or shape[:1] != images.shape[:1]:
      raise errors.UserError(
        f"{where}: `{name}` has shape {shape}; expected one label per example of `{names[f'x_{half}']}`"
      )
    labels.check(shape, stored[f"y_{half}"].dtype, name, where)
  loaded = {name: stored[f"y_{half}"].load() for half, name in given.items()}
  integers, class_names, label_notes = labels.as_integers(loaded, where)
  arrays |= {f"{half}_labels": integers[name] for half, name in given.items()}
  return arrays | {"class_names": class_names, "remarks": [*notes, *label_notes]}


def _loss_columns(
  stored: Mapping[str, lazy_arrays.LazyArray], names: Mapping[str, str], layout: str, where: str
) -> dict[str, lazy_arrays.MaybeLazy]:
  """Returns {"train_mask": array, ...} for `array_names.OF_LOSS`; raises UserError if a number of rows is wrong."""
  columns = {}
  for role in array_names.OF_LOSS:
    if role not in stored:
      continue
    name, _, half = role.partition("_")
    array, examples = stored[role], stored.get(f"x_{half}")
    if examples is None or array.shape[:1] != examples.shape[:1]:
      raise errors.UserError(
        f"{where}: `{names[role]}` has shape {array.shape}; expected one row per example of "
        f"`{names.get(f'x_{half}', f'x_{half}')}`"
      )
    moves = name == "target" or (name == "mask" and len(array.shape) == len(examples.shape))
    columns[f"{half}_{name}"] = _channels_last(array, layout, names[role], where) if moves else array
  return columns


def _groups(
  groups: lazy_arrays.LazyArray, shape: tuple[int, ...], names: Mapping[str, str], where: str
) -> Shaped[np.ndarray, " examples"]:
  """Returns the group of each training example; `shape` is the shape of the array of training examples."""
  if groups.shape not in (shape[:1], (*shape[:1], 1)):
    raise errors.UserError(
      f"config.data.group={names['group_train']!r}: this array of {where} has shape {groups.shape}; expected one group "
      f"per example of `{names['x_train']}`"
    )
  return groups.load().reshape(-1)


def _moved(values: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(np.moveaxis(values, 1, -1))


def _channels_last(images: lazy_arrays.LazyArray, layout: str, name: str, where: str) -> lazy_arrays.MaybeLazy:
  """Returns images [N, C, H, W] as [N, H, W, C]; other arrays are unchanged."""
  shape = images.shape
  errors.choose(LAYOUTS, layout, "data.layout")
  if layout == "nchw":
    if len(shape) != 4:
      raise errors.UserError(
        f"{where}: `{name}` has shape {shape}, but config.data.layout='nchw' needs [N, C, H, W]; remove this key"
      )
    return lazy_arrays.map_rows(images, (*shape[2:], shape[1]), images.dtype, _moved)
  if len(shape) == 4 and shape[1] <= _MOST_CHANNELS < min(shape[2:]):
    raise errors.UserError(
      f"{where}: `{name}` has shape {shape}, which looks like [N, C, H, W], but [N, H, W, C] is expected; set "
      f"config.data.layout=nchw, or save numpy.moveaxis({name}, 1, -1)"
    )
  return images

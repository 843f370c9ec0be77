"""Reads many image files as one array: determines the common shape, and reports damaged files and conversions."""

import collections
import concurrent.futures
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import decoding, lazy_arrays, remarks
from ae_jax.system import cache

FITS = ("stretch", "crop", "pad")
ON_BAD = ("error", "skip")
_SIDE = 64  # side of the squares to which images of different sizes are resized
_SIMILAR_RATIOS = 1.1  # aspect ratios that differ by a larger factor are distorted visibly if the images are stretched
_MOST_FILES = 10  # maximum number of damaged files in a message
_MOST_KINDS = 5  # maximum number of sizes or modes in a message
_LOST = {
  "transparency": "transparency is not read; set config.data.channels=4 to read it",
  "bits": "the colours have 16 bits, of which the upper 8 are read",
  "frames": "only the first frame or page is read",
}


class Options(NamedTuple):
  """The keys of `config.data` for image files."""

  preparation: decoding.Preparation
  on_bad: str  # how files that cannot be read are handled: error or skip
  follow_links: bool  # whether links to files and folders outside the folder are followed


class Layout(NamedTuple):
  """Shape and dtype of an image after its preparation."""

  shape: tuple[int, int, int]
  dtype: np.dtype
  scaled: bool  # whether the values are integers of 8 or 16 bits that are scaled to floats in [0, 1]


def options(
  *,
  size: tuple = (),
  fit: str = "stretch",
  channels: int = 0,
  on_bad: str = "error",
  exif_orientation: bool = True,
  follow_links: bool = False,
) -> Options:
  """Checks the keys of `config.data` for image files, and returns them.

  Args:
    size: (height, width) or (side,) to which images are resized; () does not resize them.
    fit: How images of another aspect ratio are resized, one of `FITS`.
    channels: Number of channels to which images are converted; 0 does not convert them.
    on_bad: How files that cannot be read are handled, one of `ON_BAD`.
    exif_orientation: Whether images are rotated or mirrored according to their EXIF orientation.
    follow_links: Whether links to files and folders outside the folder are followed.

  Raises:
    UserError: A value is invalid, or `fit` is set without `size`.
  """
  valid = isinstance(size, tuple) and len(size) <= 2 and all(type(side) is int and side > 0 for side in size)
  wanted = f"(height, width), (side,) or (), with at most {decoding.MOST_PIXELS:,} pixels"
  errors.check(valid and math.prod(size) <= decoding.MOST_PIXELS, "data.size", size, wanted)
  errors.choose(dict.fromkeys(FITS), fit, "data.fit")
  errors.choose(dict.fromkeys(ON_BAD), on_bad, "data.on_bad")
  errors.check(size or fit == FITS[0], "data.fit", fit, f"{FITS[0]!r} if config.data.size is ()")
  wanted = "0 (as stored), 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha); save other channels in a .npz file"
  errors.check(0 <= channels <= 4, "data.channels", channels, wanted)
  preparation = decoding.Preparation(size * 2 if len(size) == 1 else size, fit, channels, exif_orientation)
  return Options(preparation, on_bad, follow_links)


def readable(
  files: Mapping[str, Sequence[str]], chosen: Options, version: str, where: str
) -> tuple[dict[str, list[str]], list[decoding.Header], list[str]]:
  """Returns the files that can be read, their headers in the same order, and notes about the other files.

  The result is cached. If `chosen.on_bad` is "skip", all files are decoded here once, because a damaged file can have a
  valid header.

  Args:
    files: {split: paths}.
    chosen: Options.
    version: Text that changes whenever a file changes.
    where: Prefix of messages.

  Raises:
    UserError: Some files cannot be read, and `chosen.on_bad` is "error"; the message names them.
  """
  paths = [file for of_split in files.values() for file in of_split]

  def scan():
    headers = _in_threads(functools.partial(_header_or_fault, preparation=chosen.preparation), paths)
    faults = [found if isinstance(found, str) else "" for found in headers]
    if any(faults) and chosen.on_bad == "error":
      check_readable(paths, chosen, where)
    if chosen.on_bad == "skip":
      faults = _faults(paths, chosen)
    rows = [("0", "0", "", "") if isinstance(found, str) else tuple(map(str, found)) for found in headers]
    return {"headers": np.array(rows), "faults": np.array(faults)}

  stored = cache.arrays("folder-headers", f"2 {chosen} {version}", scan)
  headers = [decoding.Header(int(h), int(w), str(mode), str(lost)) for h, w, mode, lost in stored["headers"]]
  faulty = {path: str(fault) for path, fault in zip(paths, stored["faults"], strict=True) if fault}
  kept = {split: [path for path in split_files if path not in faulty] for split, split_files in files.items()}
  headers = [found for path, found in zip(paths, headers, strict=True) if path not in faulty]
  notes = [f"{where}: left out {_list_of(faulty.values(), len(paths), ', which cannot be read')}"] if faulty else []
  return kept, headers, notes


def check_readable(paths: Sequence[str], chosen: Options, where: str) -> None:
  """Decodes all files; raises UserError with the names of the files that cannot be read."""
  faults = [fault for fault in _faults(paths, chosen) if fault]
  if faults:
    listed = _list_of(faults, len(paths), " cannot be read")
    advice = "Repair or remove them, or leave them out with --config.data.on_bad=skip"
    raise errors.UserError(f"{where}: {listed}. {advice}")


def common_layout(headers: Sequence[decoding.Header], paths: Sequence[str], chosen: Options, where: str) -> Layout:
  """Returns the shape and dtype that all images have after their preparation.

  Raises:
    UserError: The images differ in size, mode or pixel type, and the options do not convert them to a common one. The
      message counts the images of each size and mode, and lists the flags that convert them.
  """
  preparation = chosen.preparation
  sizes = _count(((found.height, found.width) for found in headers), paths, lambda size: f"{size[0]} x {size[1]}")
  modes = _count((found.mode for found in headers), paths, str)
  deep = {found.mode for found in headers} & decoding.DEEP.keys()
  if deep - {"I;16"} and len(modes.counts) > 1:
    raise errors.UserError(
      f"{where}: the images have different pixel types: {modes.text}. The value range of "
      f"{' and '.join(sorted(deep))} is not known; convert the images to one mode"
    )
  given = {"size", "fit"} if preparation.size else set()
  given |= {"channels"} if preparation.channels else set()
  wanted = {key: value for key, value in conversion(headers).items() if key not in given}
  if wanted:
    flags = " ".join(remarks.as_flag(f"data.{key}", value) for key, value in wanted.items())
    reason = on_fit(headers) if "size" in wanted else ""
    raise errors.UserError(
      f"{where}: the images differ: height x width {sizes.text}; modes {modes.text}. Add {flags} to convert them"
      f"{'; the size is height,width' if 'size' in wanted else ''}{f'; {reason}' if reason else ''}"
    )
  return Layout(decoding.shape(headers[0], preparation), np.dtype(np.float32 if deep else np.uint8), deep == {"I;16"})


def conversion(headers: Sequence[decoding.Header]) -> dict[str, Any]:
  """Returns the keys of config.data that convert images to a common size and mode; {} if they have both already."""
  options: dict[str, Any] = {}
  if len({(found.height, found.width) for found in headers}) > 1:
    options["size"] = (_SIDE, _SIDE)
  if on_fit(headers):
    options["fit"] = "crop"
  if len({found.mode for found in headers}) > 1:
    options["channels"] = 3 if any(decoding.CHANNELS[found.mode] > 2 for found in headers) else 1
  return options


def on_fit(headers: Sequence[decoding.Header]) -> str:
  """Returns a clause that says why images are cropped and not stretched; "" if their aspect ratios are similar."""
  ratios = [found.width / found.height for found in headers]
  if max(ratios) <= _SIMILAR_RATIOS * min(ratios):
    return ""
  return (
    f"the aspect ratios (width / height) go from {min(ratios):.3g} to {max(ratios):.3g}, so config.data.fit=stretch "
    "would distort the images differently; crop keeps their centre, pad keeps whole images with a border of zeros"
  )


def changes(headers: Sequence[decoding.Header], paths: Sequence[str], chosen: Options, where: str) -> list[str]:
  """Returns notes about images that are resized, converted or scaled, and about parts of images that are not read."""
  preparation, notes = chosen.preparation, []
  sizes = _count(((found.height, found.width) for found in headers), paths, lambda size: f"{size[0]} x {size[1]}")
  if preparation.size and {*sizes.counts} != {preparation.size}:
    height, width = preparation.size
    notes.append(f"resized (fit={preparation.fit}) to {height} x {width} from {sizes.text}")
  modes = _count((found.mode for found in headers), paths, str)
  converted = {mode for mode in modes.counts if preparation.channels not in (0, decoding.CHANNELS[mode])}
  if converted:
    has_lost_alpha = preparation.channels in (1, 3) and any(mode.endswith("A") for mode in converted)
    alpha = "; alpha is dropped without blending" if has_lost_alpha else ""
    notes.append(f"converted to {remarks.counted(preparation.channels, 'channel')} from {modes.text}{alpha}")
  if "I;16" in modes.counts:
    count = remarks.counted(modes.counts["I;16"], "image")
    notes.append(f"{count} with 16 bits: the values are divided by 65,535, then scaled to config.data.range like bytes")
  for mode in ("I", "F"):
    if mode in modes.counts:
      notes.append(f"{decoding.DEEP[mode]} images: the values are not scaled")
  lost = collections.Counter(key for found in headers for key in found.lost.split())
  notes += [f"{remarks.counted(lost[key], 'image')}: {words}" for key, words in _LOST.items() if lost[key]]
  return [f"{where}: {note}" for note in notes]


def images(
  files: Sequence[str], layout: Layout, chosen: Options, version: str, check: Callable[[], None]
) -> lazy_arrays.LazyArray:
  """Returns the images as a LazyArray; its `load` stores the decoded images in the cache.

  Args:
    files: Paths.
    layout: Common layout.
    chosen: Options.
    version: Text that changes whenever a file changes.
    check: Function that raises UserError with the names of all damaged files. It is called if `load` cannot decode a
      file.
  """

  def read(indices):
    decode = functools.partial(decoding.decode, expected=layout.shape, preparation=chosen.preparation)
    return np.stack([decode(files[index], files[index], dtype=layout.dtype) for index in indices])

  def read_all():
    try:
      return {"images": lazy_arrays.read_all(lazy)}
    except errors.UserError:
      check()
      raise

  @functools.cache
  def load():
    return cache.arrays("folder", f"{chosen} {layout} {version}", read_all)["images"]

  lazy = lazy_arrays.LazyArray((len(files), *layout.shape), layout.dtype, read)
  return dataclasses.replace(lazy, load=load)


class _Counts(NamedTuple):
  counts: dict[Any, int]  # value -> number of images, most frequent first
  text: str  # the values with their counts


def _count(values: Iterable[Any], paths: Sequence[str], in_words: Callable[[Any], str]) -> _Counts:
  """Counts equal values, one value per path; a value that occurs once is listed with the name of its file."""
  values = list(values)
  counts = dict(collections.Counter(values).most_common())
  texts = []
  for value, count in [*counts.items()][:_MOST_KINDS]:
    name = f": {os.path.basename(paths[values.index(value)])}" if count == 1 else ""
    texts.append(f"{in_words(value)} ({remarks.counted(count, 'image')}{name})")
  rest = len(counts) - len(texts)
  return _Counts(counts, ", ".join([*texts, f"{rest} more"] if rest else texts))


def _list_of(faults: Iterable[str], total: int, verb: str) -> str:
  """Returns a string with the number of faulty files and the first `_MOST_FILES` messages about them."""
  faults = list(faults)
  rest = len(faults) - _MOST_FILES
  listed = "; ".join([*faults[:_MOST_FILES], f"and {rest} more"] if rest > 0 else faults)
  return f"{len(faults)} of {remarks.counted(total, 'image')}{verb}: {listed}"


def _header_or_fault(file: str, preparation: decoding.Preparation) -> decoding.Header | str:
  try:
    return decoding.header(file, file, preparation)
  except errors.UserError as error:
    return str(error)


def _faults(paths: Sequence[str], chosen: Options) -> list[str]:
  """Decodes all files in parallel; returns one error message per file, "" if it can be decoded."""
  return _in_threads(lambda file: decoding.fault(file, file, chosen.preparation), paths)


def _in_threads(function: Callable[[str], Any], paths: Sequence[str]) -> list[Any]:
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return list(pool.map(function, paths))

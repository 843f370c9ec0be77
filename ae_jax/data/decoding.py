"""Decodes image files of a few formats, up to a maximum size. Every error message names the file."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ae_jax import errors

MOST_PIXELS = 2**24  # 4,096 x 4,096; a file of a few kilobytes can declare an image of gigabytes
FORMATS = {  # name in Pillow -> file suffixes; PostScript is missing, because decoding it runs a program
  "BMP": (".bmp",),
  "GIF": (".gif",),
  "JPEG": (".jpg", ".jpeg"),
  "PNG": (".png",),
  "PPM": (".ppm", ".pgm", ".pbm"),
  "TIFF": (".tif", ".tiff"),
  "WEBP": (".webp",),
}
# Pillow mode of the file -> mode after decoding; the conversion is lossless
_MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}

File = str | os.PathLike[str] | io.BufferedIOBase


def shape(file: File, name: str) -> tuple[int, int, int]:
  """Returns the shape (H, W, C) in the header of an image file.

  Raises:
    UserError: The file cannot be read, is too large, or has unsupported channels. The message begins with `name`.
  """
  with _open(file, name) as image:
    return _shape(image)


def decode(file: File, name: str, expected: Sequence[int]) -> UInt8[np.ndarray, "height width channels"]:
  """Returns the image of a file, or its first frame if it has several; EXIF orientation is ignored.

  Args:
    file: Path or binary file.
    name: Name of the file in messages.
    expected: Shape (H, W, C) that the image must have.

  Raises:
    UserError: The file cannot be read, is too large, has another shape, or has channels other than grey or RGB. The
      header is checked before any pixel is decoded.
  """
  with _open(file, name) as image:
    if _shape(image) != tuple(expected):
      raise errors.UserError(
        f"{name}: is {in_words(_shape(image))}, but the other images are {in_words(expected)}; convert or remove it"
      )
    return np.asarray(image.convert(_MODES[image.mode])).reshape(expected)


def in_words(shape: Sequence[int]) -> str:
  """Returns a shape (H, W, C) as the text "W x H with C channels"."""
  height, width, channels = shape
  return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"


def _shape(image: Any) -> tuple[int, int, int]:
  return image.height, image.width, len(_MODES[image.mode])


@contextlib.contextmanager
def _open(file: File, name: str) -> Iterator[Any]:
  from PIL import Image

  # Pillow raises many types of exceptions for damaged files, and its own type for a decompression bomb
  with errors.convert_errors(f"{name}: not a readable image"), Image.open(file, formats=tuple(FORMATS)) as image:
    if image.width * image.height > MOST_PIXELS:
      raise errors.UserError(
        f"{name}: has {image.width} x {image.height} pixels; the limit is {MOST_PIXELS:,} pixels. Reduce the image"
      )
    if image.mode not in _MODES:
      raise errors.UserError(f"{name}: has pixels of mode {image.mode}; expected 8-bit grey or RGB. Convert the image")
    yield image

"""Decoding of image files, limited to a few formats and a maximum size. Every error names the file."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ae_jax import errors

MOST_PIXELS = 2**24  # 4,096 x 4,096: a file of a few kilobytes can ask for gigabytes
FORMATS = {  # Pillow's name -> file suffixes; none of these formats runs a program, as PostScript does
  "BMP": (".bmp",),
  "GIF": (".gif",),
  "JPEG": (".jpg", ".jpeg"),
  "PNG": (".png",),
  "PPM": (".ppm", ".pgm", ".pbm"),
  "TIFF": (".tif", ".tiff"),
  "WEBP": (".webp",),
}
_MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}  # mode of the file -> mode after decoding, without loss

File = str | os.PathLike[str] | io.BufferedIOBase


def shape(file: File, name: str) -> tuple[int, int, int]:
  """Returns the shape (H, W, C) that the header of an image file states.

  Raises:
    UserError: With `name`, if the file cannot be read, is too large, or has unsupported channels.
  """
  with _opened(file, name) as image:
    return _shape(image)


def decode(file: File, name: str, expected: Sequence[int]) -> UInt8[np.ndarray, "height width channels"]:
  """Returns an image as it is stored: EXIF orientation is ignored, and only the first of several frames is read.

  Args:
    file: Path or binary file.
    name: Name of the file in messages.
    expected: Shape (H, W, C) that the image must have.

  Raises:
    UserError: If the file cannot be read, is too large, has another shape, or has channels other than grey or RGB.
      The header is checked before any pixel is decoded.
  """
  with _opened(file, name) as image:
    if _shape(image) != tuple(expected):
      raise errors.UserError(f"{name}: is {in_words(_shape(image))}, but the other images are {in_words(expected)}")
    return np.asarray(image.convert(_MODES[image.mode])).reshape(expected)


def in_words(shape: Sequence[int]) -> str:
  """Returns a shape (H, W, C) as "W x H with C channels"."""
  height, width, channels = shape
  return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"


def _shape(image: Any) -> tuple[int, int, int]:
  return image.height, image.width, len(_MODES[image.mode])


@contextlib.contextmanager
def _opened(file: File, name: str) -> Iterator[Any]:
  from PIL import Image

  # Pillow raises almost any exception for a damaged file, and one of its own for a decompression bomb
  with errors.convert_errors(f"{name}: not a readable image"), Image.open(file, formats=tuple(FORMATS)) as image:
    if image.width * image.height > MOST_PIXELS:
      raise errors.UserError(f"{name}: has {image.width} x {image.height} pixels; the limit is {MOST_PIXELS:,} pixels")
    if image.mode not in _MODES:
      raise errors.UserError(f"{name}: has pixels of mode {image.mode}; expected 8-bit grey or RGB")
    yield image

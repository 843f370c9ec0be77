"""Encoded images as arrays: of few formats, up to so many pixels, and whatever is wrong with one names it."""

import contextlib

import numpy as np

from ae_jax import errors

MOST_PIXELS = 2**24  # 4,096 x 4,096: a file of a few kilobytes can ask for gigabytes
FORMATS = {  # of Pillow -> the ends of their files' names; none of them runs a program, as PostScript does
  "BMP": (".bmp",),
  "GIF": (".gif",),
  "JPEG": (".jpg", ".jpeg"),
  "PNG": (".png",),
  "PPM": (".ppm", ".pgm", ".pbm"),
  "TIFF": (".tif", ".tiff"),
  "WEBP": (".webp",),
}
_MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}  # of a file -> what it is decoded to, without loss


def shape(file, name):
  """(H, W, C) as the head of an image file says (a path or a binary file); UserError, with the name, as of `decode`."""
  with _opened(file, name) as image:
    return _shape(image)


def decode(file, name, wanted):
  """The image uint8 of the wanted shape (H, W, C), as it is stored (EXIF turns nothing); of several frames the first.

  Raises UserError, with the name, for one that cannot be read, is too large, or has another shape or other channels
  than grey or RGB: before a pixel is decoded, where the head of the file tells.
  """
  with _opened(file, name) as image:
    if _shape(image) != tuple(wanted):
      raise errors.UserError(f"{name}: is {in_words(_shape(image))}, not {in_words(wanted)} as the others")
    return np.asarray(image.convert(_MODES[image.mode])).reshape(wanted)


def in_words(shape):
  """(H, W, C) as "W x H with C channels"."""
  height, width, channels = shape
  return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"


def _shape(image):
  return image.height, image.width, len(_MODES[image.mode])


@contextlib.contextmanager
def _opened(file, name):
  from PIL import Image

  # Pillow raises nearly anything at a damaged file, and at what it takes for a bomb itself
  with errors.explained(f"{name}: not a readable image"), Image.open(file, formats=tuple(FORMATS)) as image:
    if image.width * image.height > MOST_PIXELS:
      raise errors.UserError(f"{name}: has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are decoded")
    if image.mode not in _MODES:
      raise errors.UserError(f"{name}: its pixels are {image.mode}; 8-bit grey or RGB is wanted")
    yield image

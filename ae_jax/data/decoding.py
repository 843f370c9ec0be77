"""Decodes image files of a few formats to arrays of one shape. Every error message names the file."""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import DTypeLike

from ae_jax import errors
from ae_jax.system import atomic

MOST_PIXELS = 2**24  # of an example
MOST_FILE_PIXELS = 2**26  # of an image file, before it is resized or cut; a file of kilobytes can declare gigabytes
FORMATS = {  # name in Pillow -> file suffixes; PostScript is missing, because decoding it runs a program
  "BMP": (".bmp",),
  "GIF": (".gif",),
  "JPEG": (".jpg", ".jpeg"),
  "PNG": (".png",),
  "PPM": (".ppm", ".pgm", ".pbm"),
  "TIFF": (".tif", ".tiff"),
  "WEBP": (".webp",),
}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1, "I": 1, "F": 1}  # mode of pixels -> number of channels
DEEP = {"I;16": "16-bit grey", "I": "32-bit integer grey", "F": "floating-point grey"}  # modes read as float32
# Pillow mode of a file -> mode to which its pixels are converted; modes that are not listed stay unchanged
_READ_AS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
_READ_AS |= dict.fromkeys(("I;16L", "I;16B", "I;16N"), "I;16")
_EIGHT_BIT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # number of channels -> mode
_ORIENTATION = 0x0112  # EXIF tag; from 5 to 8, rows and columns are exchanged
_DRAFT = 2  # a JPEG file is decoded at a fraction of its size, but at least twice as large as needed

File = str | os.PathLike[str] | io.BufferedIOBase


@dataclasses.dataclass(frozen=True)
class Preparation:
  """Options for converting image files to a common shape."""

  size: tuple[int, ...] = ()  # (height, width); () keeps the size of the file
  fit: str = "stretch"  # how images of another aspect ratio are resized: stretch, crop (the centre) or pad (with zeros)
  channels: int = 0  # 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha); 0 keeps the channels of the file
  exif_orientation: bool = True  # whether the image is rotated or mirrored as its EXIF orientation says


class Header(NamedTuple):
  """Properties of an image file that are known before its pixels are decoded."""

  height: int  # after the EXIF orientation is applied
  width: int
  mode: str  # key of CHANNELS: mode of the pixels that are read
  lost: str  # parts that are not read, separated by spaces: transparency, bits (the lower 8 of 16), frames


_UNCHANGED = Preparation(exif_orientation=False)


def header(file: File, name: str, preparation: Preparation = _UNCHANGED) -> Header:
  """Returns the header of an image file.

  Raises:
    UserError: The file cannot be read, is too large, or has an unsupported mode. The message begins with `name`.
  """
  with _open(file, name, preparation) as image:
    return _header(image, preparation)


def decode(
  file: File,
  name: str,
  expected: Sequence[int],
  preparation: Preparation = _UNCHANGED,
  dtype: DTypeLike = np.uint8,
) -> Shaped[np.ndarray, "height width channels"]:
  """Returns the image of a file, or its first frame if it has several.

  Images are resized with Pillow's antialiased bilinear filter, like `torchvision.transforms.Resize`. A bilinear filter
  does not overshoot, so floats stay in their range. Pillow converts the channels. Palette, CMYK and YCbCr images are
  read as RGB.

  Args:
    file: Path or binary file.
    name: Name of the file in messages.
    expected: Shape (H, W, C) that the result must have.
    preparation: How the pixels are changed.
    dtype: uint8 or float32. For float32, 16-bit values are divided by 65,535 and 8-bit values by 255; 32-bit integers
      and floats are not scaled.

  Raises:
    UserError: The file cannot be read, is too large, or has another shape or an unsupported mode. The header is checked
      before any pixel is decoded.
  """
  with _open(file, name, preparation) as image:
    found = _header(image, preparation)
    if shape(found, preparation) != tuple(expected):
      raise errors.UserError(
        f"{name}: is {in_words(shape(found, preparation))}, but the other images are {in_words(expected)}; convert or "
        "remove it"
      )
    if found.mode in DEEP and dtype == np.uint8:
      raise errors.UserError(
        f"{name}: has {DEEP[found.mode]} pixels, but the other images have 8 bits; convert it to 8 bits"
      )
    _load(image, found, preparation)
    if found.mode in DEEP:
      return _deep_pixels(image, found.mode, expected[2], preparation)
    pixels = _eight_bit_pixels(image, found.mode, expected[2], preparation).reshape(expected)
    return pixels if dtype == np.uint8 else pixels / np.float32(255)


def _load(image: Any, found: Header, preparation: Preparation) -> None:
  """Decodes the pixels of an opened image, and applies the EXIF orientation."""
  from PIL import ImageOps

  if preparation.size:
    swapped = (found.width, found.height) != image.size
    height, width = (_DRAFT * side for side in preparation.size)
    image.draft(None, (height, width) if swapped else (width, height))  # has an effect only for JPEG
  if preparation.exif_orientation:
    ImageOps.exif_transpose(image, in_place=True)


def fault(file: File, name: str, preparation: Preparation) -> str:
  """Decodes an image file completely and returns the error message if it cannot be read, otherwise ""."""
  try:
    found = header(file, name, preparation)
    decode(file, name, shape(found, preparation), preparation, np.float32)
  except errors.UserError as error:
    return str(error)
  return ""


def shape(found: Header, preparation: Preparation = _UNCHANGED) -> tuple[int, int, int]:
  """Returns the shape (H, W, C) of an image with this header after `preparation` is applied."""
  height, width = preparation.size or (found.height, found.width)
  return height, width, preparation.channels or CHANNELS[found.mode]


def write_png(
  path: str | os.PathLike[str], image: Float[np.ndarray, "height width channels"], low: float, high: float
) -> None:
  """Writes an image as a PNG file, atomically; `low` becomes black and `high` white. Missing folders are made."""
  from PIL import Image

  scaled = np.rint(np.clip((image - low) / (high - low), 0.0, 1.0) * 255).astype(np.uint8)
  file = pathlib.Path(path)
  with errors.convert_os_errors(path):
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace(file) as part:
      Image.fromarray(scaled[..., 0] if scaled.shape[-1] == 1 else scaled).save(part, "PNG")


def in_words(shape: Sequence[int]) -> str:
  """Returns a shape (H, W, C) as the text "H x W with C channels"."""
  height, width, channels = shape
  return f"{height} x {width} with {channels} channel{'s' if channels > 1 else ''}"


def _header(image: Any, preparation: Preparation) -> Header:
  mode = _READ_AS.get(image.mode, image.mode)
  if mode == "I" and image.format in ("PNG", "PPM"):  # these formats have at most 16 bits
    mode = "I;16"
  lost = ["frames"] if getattr(image, "is_animated", False) else []
  if mode in _EIGHT_BIT.values() and ";16" in str(image.tile):  # Pillow reads the upper 8 bits of 16-bit colours
    lost.append("bits")
  elif "transparency" in image.info and (preparation.channels or CHANNELS[mode]) in (1, 3):
    lost.append("transparency")
  height, width = image.height, image.width
  # Pillow transposes the size of TIFF images itself. `Image.getexif` decodes no pixels, unlike `PngImageFile.getexif`.
  if preparation.exif_orientation and image.format != "TIFF" and _exif(image).get(_ORIENTATION, 1) in (5, 6, 7, 8):
    height, width = width, height
  return Header(height, width, mode, " ".join(lost))


def _exif(image: Any) -> Any:
  from PIL import Image

  return Image.Image.getexif(image)


def _eight_bit_pixels(image: Any, mode: str, channels: int, preparation: Preparation) -> np.ndarray:
  """Returns the pixels as uint8 [H, W] or [H, W, channels]."""
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")
  elif image.mode != mode:
    image = image.convert(mode)
  return np.asarray(_resized(image.convert(_EIGHT_BIT[channels]), preparation))


def _deep_pixels(image: Any, mode: str, channels: int, preparation: Preparation) -> np.ndarray:
  """Converts a grey image whose PIL mode is in `DEEP` to float32 [H, W, channels]; an alpha channel is set to 1."""
  from PIL import Image

  with np.errstate(over="ignore"):
    grey = np.asarray(image).astype(np.float32)
  if mode == "I;16":
    grey = grey / np.float32(65535)
  if preparation.size:
    grey = np.asarray(_resized(Image.fromarray(grey), preparation))
  alpha = np.ones_like(grey)
  planes = {1: (grey,), 2: (grey, alpha), 3: (grey,) * 3, 4: (grey, grey, grey, alpha)}
  return np.stack(planes[channels], -1)


def _resized(image: Any, preparation: Preparation) -> Any:
  from PIL import Image, ImageOps

  if not preparation.size:
    return image
  size, bilinear = preparation.size[::-1], Image.Resampling.BILINEAR
  if preparation.fit == "crop":
    return ImageOps.fit(image, size, bilinear)
  if preparation.fit == "pad":
    bands = len(image.getbands())
    return ImageOps.pad(image, size, bilinear, color=(0,) * bands if bands > 1 else 0)
  return image.resize(size, bilinear)


@contextlib.contextmanager
def _open(file: File, name: str, preparation: Preparation) -> Iterator[Any]:
  from PIL import Image

  # Pillow raises many types of exceptions for damaged files, and its own type for a decompression bomb
  with errors.convert_errors(f"{name}: not a readable image"), Image.open(file, formats=tuple(FORMATS)) as image:
    if image.width * image.height > MOST_FILE_PIXELS:
      raise errors.UserError(
        f"{name}: has {image.height} x {image.width} pixels; the limit is {MOST_FILE_PIXELS:,} pixels. Downscale the "
        "image"
      )
    if _READ_AS.get(image.mode, image.mode) not in CHANNELS:
      raise errors.UserError(f"{name}: has pixels of mode {image.mode}; expected grey, RGB or CMYK. Convert the image")
    yield image

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ae_jax import errors
from ae_jax.data import decoding

GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 1), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)


def encoded(image, form, **options):
  """Returns the file contents of a PIL image or an array."""
  file = io.BytesIO()
  image = image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())
  image.save(file, form, **options)
  return file.getvalue()


def png_claiming(width, height):
  """Returns a grey PNG whose header claims a size, with almost no data."""
  chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(4))]
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
  )


@pytest.mark.parametrize("pixels", [GREY, COLOUR])
@pytest.mark.parametrize(
  ("form", "options"), [("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_decode_to_the_encoded_pixels(pixels, form, options):
  file = io.BytesIO(encoded(pixels, form, **options))
  shape = decoding.shape(decoding.header(file, "x"))
  decoded = decoding.decode(file, "x", shape)
  if form == "WEBP" and pixels.shape[2] == 1:  # WEBP has no grey mode
    pixels = pixels.repeat(3, 2)
  assert shape == pixels.shape
  np.testing.assert_array_equal(decoded, pixels)


def test_bilevel_and_palette_images_become_grey_and_rgb():
  bits = io.BytesIO(encoded(Image.fromarray(GREY[..., 0] > 99), "PNG"))
  np.testing.assert_array_equal(decoding.decode(bits, "x", (6, 5, 1)), 255 * (GREY > 99))
  palette = Image.fromarray(COLOUR).quantize(64)
  np.testing.assert_array_equal(
    decoding.decode(io.BytesIO(encoded(palette, "GIF")), "x", (6, 5, 3)), np.asarray(palette.convert("RGB"))
  )


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (png_claiming(9000, 9000), "has 9000 x 9000 pixels; the limit is 67,108,864 pixels"),
    (png_claiming(10_000, 10_000), "(10000 x 10000|exceeds limit)"),
    (png_claiming(2**31 - 1, 2**31 - 1), "exceeds limit"),
    (png_claiming(5, 6), "not a readable image"),
    (encoded(GREY, "PNG")[:-30], "not a readable image"),
    (encoded(GREY, "JPEG")[:-20], "not a readable image: .*truncated"),
    (b"", "not a readable image"),
    (b"not an image", "not a readable image"),
    (encoded(COLOUR, "EPS"), "not a readable image: cannot identify"),  # would run a PostScript program
    (
      encoded(Image.new("RGBA", (5, 6)), "PNG"),
      "is 6 x 5 with 4 channels, but the other images are 6 x 5 with 1 channel",
    ),
    (encoded(Image.new("I;16", (5, 6)), "PNG"), "has 16-bit grey pixels, but the other images have 8 bits"),
    (encoded(Image.new("CMYK", (5, 6)), "JPEG"), "is 6 x 5 with 3 channels, but"),
    (encoded(Image.new("LAB", (5, 6)), "TIFF"), "has pixels of mode LAB; expected grey, RGB or CMYK"),
    (encoded(COLOUR, "PNG"), "is 6 x 5 with 3 channels, but the other images are 6 x 5 with 1 channel"),
    (encoded(GREY[:5], "PNG"), "is 5 x 5 with 1 channel, but the other images are 6 x 5 with 1 channel"),
  ],
)
def test_unreadable_large_and_mismatched_images_are_refused(data, message):
  with pytest.raises(errors.UserError, match=f"^a/b.png: .*{message}") as refusal:
    decoding.decode(io.BytesIO(data), "a/b.png", (6, 5, 1))
  assert "\n" not in str(refusal.value)


def test_damaged_files_raise_user_errors_or_decode_to_the_header_shape():
  generator = np.random.default_rng(0)
  for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
    whole = encoded(GREY if form != "WEBP" else COLOUR, form)
    for _ in range(20):
      damaged = bytearray(whole)
      for place in generator.integers(len(damaged), size=4):
        damaged[place] ^= generator.integers(1, 256)
      try:
        shape = decoding.shape(decoding.header(io.BytesIO(damaged), "x"))
        assert decoding.decode(io.BytesIO(damaged), "x", shape).shape == shape
      except errors.UserError:
        pass

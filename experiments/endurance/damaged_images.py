"""Damaged folders of images: functions (folder, generator) -> (name of the source, path)."""

import io
import os
import struct
import zlib

from PIL import Image

from experiments.endurance.ingredients import BYTE_DAMAGES, image_bytes

CLAIMED = 60_000  # side of a decompression bomb in pixels


def _write_images(folder, generator, **files):
  """Writes a few undamaged images and the given files {stem__suffix: bytes} into a folder."""
  for number in range(4):
    (folder / f"good{number}.png").write_bytes(image_bytes(generator))
  for name, data in files.items():
    (folder / name.replace("__", ".")).write_bytes(data)
  return "folder", str(folder)


def images_damaged(folder, generator):
  """Writes a truncated, altered or shuffled image."""
  form, suffix, mode = (
    ("PNG", "png", "L"),
    ("PNG", "png", "RGB"),
    ("JPEG", "jpg", "L"),
    ("GIF", "gif", "L"),
    ("BMP", "bmp", "L"),
    ("TIFF", "tif", "L"),
    ("PPM", "pgm", "L"),
    ("WEBP", "webp", "RGB"),
    ("PNG", "png", "I;16"),
    ("TIFF", "tif", "F"),
    ("PNG", "png", "RGBA"),
  )[generator.integers(11)]
  data = BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](image_bytes(generator, form, mode), generator)
  return _write_images(folder, generator, **{f"bad__{suffix}": data})


def images_of_another_mode(folder, generator):
  """Writes an image with an unusual mode: 16 bits, palette, CMYK, transparency, one bit, floats, many frames."""
  frames = [Image.new("L", (7, 6), shade) for shade in range(3)]
  animated = io.BytesIO()
  frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
  pages = io.BytesIO()
  frames[0].save(pages, "TIFF", save_all=True, append_images=[Image.new("RGB", (90, 80))])
  odd = [
    ("png", image_bytes(generator, mode="LA")),
    ("png", image_bytes(generator, mode="RGBA")),
    ("png", _png(7, 6, depth=16, rows=(b"\0" + generator.bytes(14)) * 6)),
    ("png", _png(7, 6, depth=1, rows=b"\0\x55" * 6)),
    ("png", _png(7, 6, colour=3, rows=(b"\0" + bytes(7)) * 6, between=_chunk(b"PLTE", bytes(range(9))))),
    ("png", _png(7, 6, colour=3, rows=(b"\0" + b"\xff" * 7) * 6, between=_chunk(b"PLTE", bytes(range(9))))),
    ("png", _png(7, 6, colour=0, rows=(b"\0" + bytes(7)) * 6, between=_chunk(b"tRNS", b"\0\0"))),
    ("jpg", image_bytes(generator, "JPEG", "CMYK")),
    ("jpg", image_bytes(generator, "JPEG", "YCbCr")),
    ("tif", image_bytes(generator, "TIFF", "CMYK")),
    ("tif", _saved(Image.new("F", (7, 6)), "TIFF")),
    ("tif", _saved(Image.new("I;16", (7, 6)), "TIFF")),
    ("tif", _saved(Image.new("LAB", (7, 6)), "TIFF")),
    ("gif", animated.getvalue()),
    ("tif", pages.getvalue()),
  ]
  suffix, data = odd[generator.integers(len(odd))]
  return _write_images(folder, generator, **{f"odd__{suffix}": data})


def images_of_another_kind(folder, generator):
  """Writes a file of another kind with the name of an image."""
  vector = b"<svg xmlns='http://www.w3.org/2000/svg' width='7' height='6'/>"
  script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 6\n(/tmp/ae_jax-was-unpickled) (w) file closefile\n"
  others = [b"", b"hello\n" * 20, generator.bytes(300), vector, script, image_bytes(generator, "ICO"), bytes(4000)]
  others += [image_bytes(generator, "PDF"), image_bytes(generator, "JPEG"), image_bytes(generator, size=(6, 7))]
  suffix = ("png", "jpg", "gif", "tiff", "webp", "bmp", "ppm", "PNG")[generator.integers(8)]
  return _write_images(folder, generator, **{f"other__{suffix}": others[generator.integers(len(others))]})


def images_bomb(folder, generator):
  """Writes a file of kilobytes that unpacks to gigabytes."""
  side = CLAIMED
  rows = b"\0" + bytes(side)
  text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28), 1))
  frames = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b"\x2c"
  bombs = [
    ("png", _png(side, side, rows=rows * 50)),
    ("png", _png(2**31 - 1, 2**31 - 1, rows=rows)),
    ("png", _png(0, 0, rows=b"")),
    ("png", _png(7, 6, rows=(b"\0" + bytes(7)) * 6, between=text)),
    ("png", _png(5000, 5000, rows=(b"\0" + bytes(5000)) * 5000)),
    ("gif", frames + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00\x3b"),
    ("bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)),
    ("ppm", b"P6\n60000 60000\n255\n" + bytes(999)),
    ("pgm", b"P5\n99999999999999999999 3\n255\n" + bytes(99)),
  ]
  suffix, data = bombs[generator.integers(len(bombs))]
  return _write_images(folder, generator, **{f"bomb__{suffix}": data})


def folder_of_odd_files(folder, generator):
  """Writes links, pipes, folders with names of images, or unusual names."""
  source, path = _write_images(folder, generator)
  odd = (
    lambda: os.symlink("/etc/passwd", folder / "link.png"),
    lambda: os.symlink("link.png", folder / "link.png"),
    lambda: os.symlink(folder, folder / "loop"),
    lambda: os.symlink("good0.png", folder / "twin.png"),
    lambda: os.mkfifo(folder / "pipe.png"),
    lambda: (folder / "folder.png").mkdir(),
    lambda: (folder / "a\nb.png").write_bytes(b"text"),
    lambda: (folder / "a\nb.png").write_bytes(image_bytes(generator)),
    lambda: (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(image_bytes(generator, size=(3, 3))),
    lambda: (folder / ".hidden.png").write_bytes(b"text"),
    lambda: (folder / "train").mkdir(),
    lambda: (folder / "test").mkdir(),
    lambda: [file.unlink() for file in folder.glob("good[1-3].png")],
    lambda: [file.unlink() for file in folder.glob("good*.png")],
    lambda: (folder / "notes.txt").write_bytes(b"not an image, and not asked for"),
    lambda: [folder.joinpath(*["d"] * depth).mkdir() for depth in range(1, 100)],
  )
  odd[generator.integers(len(odd))]()
  return source, path


def folder_of_classes(folder, generator):
  """Writes a folder of training and test sets with classes, some of them empty, oddly named or damaged."""
  for split in ("train", "test"):
    for label in ("0", "1", "1e3", "²", "a b")[: generator.integers(1, 6)]:
      class_folder = folder / split / label
      class_folder.mkdir(parents=True)
      for number in range(generator.integers(0, 4)):
        data = image_bytes(generator)
        (class_folder / f"{number}.png").write_bytes(
          data if generator.integers(8) else BYTE_DAMAGES[number % 3](data, generator)
        )
  return "folder", str(folder)


def _saved(image, form):
  file = io.BytesIO()
  image.save(file, form)
  return file.getvalue()


def _chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, rows, depth=8, colour=0, between=b""):
  """Returns a PNG with the given header fields."""
  header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + between + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


IMAGES = (
  images_damaged,
  images_damaged,
  images_of_another_mode,
  images_of_another_kind,
  images_bomb,
  folder_of_odd_files,
  folder_of_classes,
)

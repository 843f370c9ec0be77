"""What the data fuzzer makes damaged files of: undamaged ones as bytes, and ways to damage bytes."""

import io
import os
import struct

import numpy as np
from PIL import Image

SHAPE = (12, 6, 5)  # of the images, before they are damaged


def arrays(generator):
  """Undamaged arrays of an archive."""
  train, test = (generator.integers(0, 256, (size, *SHAPE[1:]), np.uint8) for size in (SHAPE[0], 4))
  return {"x_train": train, "x_test": test, "y_train": np.arange(len(train)), "y_test": np.arange(len(test))}


def npz_bytes(**members):
  """An archive as `numpy.savez` writes it."""
  file = io.BytesIO()
  np.savez(file, **members)
  return file.getvalue()


def npy_bytes(array):
  """An array as `numpy.save` writes it."""
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def image_bytes(generator, form="PNG", mode="L", size=(7, 6), **options):
  """An encoded image of random pixels."""
  bands = len(Image.new(mode, (1, 1)).getbands())
  pixels = generator.integers(0, 256, (size[1], size[0], bands), np.uint8)
  file = io.BytesIO()
  Image.frombytes(mode, size, pixels.tobytes()).save(file, form, **options)
  return file.getvalue()


def header(descr, shape, fortran=False):
  """The beginning of a file in NumPy's format, whatever it claims."""
  text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
  text += b" " * (-(len(text) + 11) % 64) + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def cut(data, generator):
  """The first part of some bytes."""
  return data[: generator.integers(len(data) + 1)]


def flipped(data, generator):
  """The bytes with a few of them changed."""
  damaged = bytearray(data)
  for place in generator.integers(len(data), size=generator.integers(1, 12)):
    damaged[place] ^= 1 << generator.integers(8)
  return bytes(damaged)


def shuffled(data, generator):
  """The bytes with a piece of them somewhere else."""
  start, end = sorted(generator.integers(len(data), size=2))
  place = generator.integers(len(data) - (end - start) + 1)
  rest = data[:start] + data[end:]
  return rest[:place] + data[start:end] + rest[place:]


WAYS = (cut, flipped, shuffled)


def write(folder, name, data):
  """Writes a file into a folder: its path."""
  (folder / name).write_bytes(data)
  return str(folder / name)


class Explosive:
  """What must never be unpickled: it would leave a file behind."""

  MARK = "/tmp/ae_jax-was-unpickled"

  def __reduce__(self):
    return os.mknod, (self.MARK,)

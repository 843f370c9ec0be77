"""Undamaged files as bytes, and functions that damage bytes, for the fuzzers."""

import io
import os
import struct

import numpy as np
from PIL import Image

SHAPE = (12, 6, 5)  # of the undamaged images


def arrays(generator):
  """Returns undamaged arrays of an archive."""
  train, test = (generator.integers(0, 256, (size, *SHAPE[1:]), np.uint8) for size in (SHAPE[0], 4))
  return {"x_train": train, "x_test": test, "y_train": np.arange(len(train)), "y_test": np.arange(len(test))}


def npz_bytes(**members):
  """Returns the bytes of an archive written by `numpy.savez`."""
  file = io.BytesIO()
  np.savez(file, **members)
  return file.getvalue()


def npy_bytes(array):
  """Returns the bytes of an array written by `numpy.save`."""
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def image_bytes(generator, form="PNG", mode="L", size=(7, 6), **options):
  """Returns the bytes of an image of random pixels."""
  bands = len(Image.new(mode, (1, 1)).getbands())
  pixel_bytes = {"I;16": 2, "F": 4}.get(mode, bands)
  pixels = generator.integers(0, 256, (size[1], size[0], pixel_bytes), np.uint8)
  file = io.BytesIO()
  Image.frombytes(mode, size, pixels.tobytes()).save(file, form, **options)
  return file.getvalue()


def header(descr, shape, fortran=False):
  """Returns a header of NumPy's format with arbitrary, also invalid, values."""
  text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
  text += b" " * (-(len(text) + 11) % 64) + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def cut(data, generator):
  """Returns the bytes truncated at a random position."""
  return data[: generator.integers(len(data) + 1)]


def flipped(data, generator):
  """Returns the bytes with a few flipped bits."""
  damaged = bytearray(data)
  for position in generator.integers(len(data), size=generator.integers(1, 12)):
    damaged[position] ^= 1 << generator.integers(8)
  return bytes(damaged)


def shuffled(data, generator):
  """Returns the bytes with a random piece moved to a random position."""
  start, end = sorted(generator.integers(len(data), size=2))
  position = generator.integers(len(data) - (end - start) + 1)
  rest = data[:start] + data[end:]
  return rest[:position] + data[start:end] + rest[position:]


BYTE_DAMAGES = (cut, flipped, shuffled)


def write(folder, name, data):
  """Writes a file into a folder and returns its path."""
  (folder / name).write_bytes(data)
  return str(folder / name)


class UnpickleDetector:
  """An object that creates the file MARK when it is unpickled, which must never happen."""

  MARK = "/tmp/ae_jax-was-unpickled"

  def __reduce__(self):
    return os.mknod, (self.MARK,)

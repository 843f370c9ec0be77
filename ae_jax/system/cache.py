"""What may be thrown away: decoded arrays and compiled programs, in one folder outside the runs.

The folder is $AE_JAX_CACHE, or `ae_jax` in $XDG_CACHE_HOME, or `~/.cache/ae_jax`. A folder that cannot be written costs
time and nothing else.
"""

import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib

import numpy as np

# what numpy.load may raise at a file that is missing, cut short, altered, or not made by NumPy
UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


def root():
  """The cache folder (it may not exist yet)."""
  parent = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(os.environ.get("AE_JAX_CACHE") or pathlib.Path(parent) / "ae_jax")


def arrays(name, version, make):
  """Returns the dict of arrays that `make()` returns, and keeps it on disk.

  A damaged or missing file is made again. Writing is atomic, and a failed write leaves no partial file behind.

  Args:
    name: Name of the data; part of the file's name.
    version: Text that changes whenever the arrays do.
    make: Function without arguments that returns {name: array}; called only if the file cannot be read.
  """
  digest = hashlib.sha256(version.encode(errors="surrogateescape")).hexdigest()[:16]
  file = root() / "arrays" / f"{name.replace('/', '_')}-{digest}.npz"
  try:
    return read_npz(file)
  except UNREADABLE:
    made = make()
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # also removed when the disk is full
      part = pathlib.Path(folder) / file.name
      np.savez(part, **made)
      os.replace(part, file)
  except OSError:
    pass  # a read-only or full disk: the arrays are there, only not kept
  return made


def read_npz(path):
  """All arrays of an .npz file, by name; nothing is unpickled. Raises one of UNREADABLE."""
  with open(path, "rb") as file:  # opened here: numpy.load leaves it open where the archive is damaged
    archive = np.load(file, allow_pickle=False)
    if isinstance(archive, np.ndarray):
      raise ValueError("it is one bare array, not an archive of named ones (numpy.savez)")
    with archive:
      return dict(archive)


def keep_compiled_programs():
  """Turns JAX's persistent compilation cache on, in our folder unless JAX was told of another; call before compiling.

  `JAX_ENABLE_COMPILATION_CACHE=false` in the environment turns it off.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

"""Cache of decoded arrays and compiled programs, in a folder outside the run folders that may be deleted at any time.

The folder is $AE_JAX_CACHE, `ae_jax` in $XDG_CACHE_HOME, or `~/.cache/ae_jax`. If it is not writable, results are
computed again and nothing else changes.
"""

import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

# Exceptions that numpy.load raises for a file that is missing, truncated, damaged, or not written by NumPy.
UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


def root() -> pathlib.Path:
  """Returns the cache folder, which may not exist yet."""
  parent = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(os.environ.get("AE_JAX_CACHE") or pathlib.Path(parent) / "ae_jax")


def arrays(name: str, version: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Returns cached arrays by name, or those that `make()` returns after storing them in the cache.

  A missing or damaged file is replaced. Writes are atomic, and a failed write leaves no partial file.

  Args:
    name: Name of the data; part of the file name.
    version: Text that changes whenever the arrays change.
    make: Returns {name: array}; called only if the file cannot be read.
  """
  digest = hashlib.sha256(version.encode(errors="surrogateescape")).hexdigest()[:16]
  file = root() / "arrays" / f"{name.replace('/', '_')}-{digest}.npz"
  try:
    return read_npz(file)
  except UNREADABLE:
    result = make()
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # also removed when the disk is full
      part = pathlib.Path(folder) / file.name
      np.savez(part, **result)
      os.replace(part, file)
  except OSError:
    pass  # a read-only or full disk
  return result


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz file by name, without unpickling; raises one of UNREADABLE if that fails."""
  with open(path, "rb") as file:  # numpy.load would leave the file of a damaged archive open
    archive = np.load(file, allow_pickle=False)
    if isinstance(archive, np.ndarray):
      raise ValueError("it is one bare array, not an archive of named ones (numpy.savez)")
    with archive:
      return dict(archive)


def keep_compiled_programs() -> None:
  """Enables JAX's persistent compilation cache, in the cache folder unless JAX is configured to use another.

  Call this before the first compilation. `JAX_ENABLE_COMPILATION_CACHE=false` in the environment disables the cache.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

"""Cache of decoded arrays and compiled programs.

The cache folder is $AE_JAX_CACHE, else `$XDG_CACHE_HOME/ae_jax`, else `~/.cache/ae_jax`. It may be deleted at any time.
Without a writable folder, arrays are decoded and programs are compiled again in each run.
"""

import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from ae_jax import errors
from ae_jax.system import paths

# Exceptions of numpy.load for files that are missing, truncated, damaged, or not written by NumPy.
UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


def root() -> pathlib.Path:
  """Returns the path of the cache folder. The folder may not exist yet."""
  parent = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return paths.local_path("AE_JAX_CACHE", os.environ.get("AE_JAX_CACHE") or pathlib.Path(parent) / "ae_jax")


def arrays(name: str, version: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Returns {name: array} from the cache. If the cache has no such file, calls `make()` and stores its arrays.

  A damaged file is replaced. Writes are atomic, and a failed write leaves no partial file.

  Args:
    name: Name of the data; part of the file name.
    version: Text that changes whenever the arrays change; its hash is part of the file name.
    make: Function that returns {name: array}; called only if the file cannot be read.
  """
  digest = hashlib.sha256(version.encode(errors="surrogateescape")).hexdigest()[:16]
  file = root() / "arrays" / f"{name.replace('/', '_')}-{digest}.npz"
  try:
    return read_npz(file)
  except UNREADABLE:
    result = make()
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # is also removed if the disk is full
      part = pathlib.Path(folder) / file.name
      np.savez(part, **result)
      os.replace(part, file)
  except OSError:
    pass  # read-only or full disk: the arrays are not cached
  return result


def memory_map(
  name: str, version: str, shape: tuple[int, ...], dtype: DTypeLike, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
  """Returns a read-only memory map of an array in the cache, which `fill(array)` writes if there is no such file.

  `name` and `version` are described in `arrays`.

  Raises:
    UserError: The cache folder is not writable, or the disk is full.
  """
  digest = hashlib.sha256(version.encode(errors="surrogateescape")).hexdigest()[:16]
  file = root() / "arrays" / f"{name}-{digest}.npy"
  try:
    stored = np.load(file, mmap_mode="r", allow_pickle=False)
    if stored.shape == shape and stored.dtype == dtype:
      return stored
  except UNREADABLE:
    pass
  with errors.convert_os_errors(f"{file}", "; set AE_JAX_CACHE to a folder with free space"):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
      part = pathlib.Path(folder) / file.name
      opened = np.lib.format.open_memmap(part, "w+", dtype, shape)
      fill(opened)
      opened.flush()
      del opened  # Windows cannot rename a file that is mapped
      os.replace(part, file)
  return np.load(file, mmap_mode="r", allow_pickle=False)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns {name: array} of an .npz file without unpickling; raises one of UNREADABLE if this fails."""
  with open(path, "rb") as file:  # given a path, numpy.load leaves the file of a damaged archive open
    archive = np.load(file, allow_pickle=False)
    if isinstance(archive, np.ndarray):
      raise ValueError("the file holds one bare array, not named arrays; write it with numpy.savez")
    with archive:
      return dict(archive)


def keep_compiled_programs() -> None:
  """Sets the folder of JAX's persistent compilation cache, unless JAX is configured to use another folder.

  Call this function before the first compilation. The environment variable `JAX_ENABLE_COMPILATION_CACHE=false`
  disables the cache.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

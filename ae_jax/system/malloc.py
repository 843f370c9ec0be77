"""Limits the free memory that the allocator of glibc keeps. With another C library, the functions have no effect."""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # number of the parameter M_ARENA_MAX of mallopt


def limit_arenas() -> None:
  """Limits malloc to one arena per core (default of glibc: eight per core). Call this before any thread starts.

  Each arena keeps its own free memory, and each save of a checkpoint starts threads. The limit reduces the memory of a
  run by 50 MiB at the same speed. The environment variable $MALLOC_ARENA_MAX takes precedence.
  """
  if "MALLOC_ARENA_MAX" not in os.environ:
    _call("mallopt", _M_ARENA_MAX, os.cpu_count())


def trim() -> None:
  """Returns free memory to the operating system. A compilation leaves hundreds of MiB of free memory."""
  _call("malloc_trim", 0)


def _call(name: str, *arguments: int | None) -> None:
  with contextlib.suppress(AttributeError, OSError, TypeError):
    getattr(ctypes.CDLL(None), name)(*arguments)

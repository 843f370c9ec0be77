"""What glibc keeps of memory that is free; with another C library nothing is done."""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # of mallopt


def few_arenas():
  """Threads share an arena for each core, where glibc makes up to eight; before there are threads.

  Each arena keeps free memory of its own, and a save comes with threads of its own: 50 MiB less of a run, as fast.
  $MALLOC_ARENA_MAX, where it is set, has it as it says.
  """
  if "MALLOC_ARENA_MAX" not in os.environ:
    _call("mallopt", _M_ARENA_MAX, os.cpu_count())


def give_back():
  """Gives memory that is free back to the system: of a compilation it is hundreds of MiB."""
  _call("malloc_trim", 0)


def _call(name, *arguments):
  with contextlib.suppress(AttributeError, OSError, TypeError):
    getattr(ctypes.CDLL(None), name)(*arguments)

"""glibc's allocator: number of arenas, and free memory returned to the system."""

import ctypes
import os
import pathlib
import platform
import subprocess
import sys

import pytest

from ae_jax.system import malloc

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="requires glibc")
THREADS = """
import ctypes, sys, threading
from ae_jax.system import malloc
if sys.argv[2] == "few":
  malloc.limit_arenas()
libc, barrier = ctypes.CDLL(None), threading.Barrier(20)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
def allocate():
  barrier.wait()  # all threads are alive, so none reuses the arena of another
  libc.malloc(1000)
  barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(path, how, **environment):
  """Returns the number of malloc arenas of a process with twenty threads."""
  cleared = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
  command = [sys.executable, "-c", THREADS, str(path), how]
  subprocess.run(command, check=True, env=cleared | environment, timeout=60)
  return path.read_text().count("<heap nr=")


def test_few_arenas_limits_arenas_to_cores_unless_the_environment_sets_them(tmp_path):
  assert arenas(tmp_path / "a", "default") > min(os.cpu_count(), 10)
  assert arenas(tmp_path / "b", "few") <= os.cpu_count()
  assert arenas(tmp_path / "c", "few", MALLOC_ARENA_MAX="1") == 1


def test_give_back_returns_free_memory_to_the_system(tmp_path):
  libc = ctypes.CDLL(None)
  libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
  resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  pieces = [libc.malloc(60_000) for _ in range(1000)]  # below the size at which glibc uses mmap
  for piece in pieces:
    ctypes.memset(piece, 1, 60_000)
  for piece in pieces[:-1]:  # the last one is at the top of the heap, so the heap cannot shrink by itself
    libc.free(piece)
  before = resident()
  malloc.trim()
  assert resident() < before - 50 * 1000 * 1000
  libc.free(pieces[-1])

"""Free memory goes back to the system, and threads share few arenas of it."""

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

from ae_jax.system import malloc

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="glibc's allocator alone")
THREADS = """
import ctypes, sys, threading
from ae_jax.system import malloc
if sys.argv[2] == "few":
  malloc.few_arenas()
libc, barrier = ctypes.CDLL(None), threading.Barrier(20)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
def allocate():
  barrier.wait()  # all are alive: none inherits an arena
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
  """How many arenas twenty threads of a process have."""
  cleaned = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
  command = [sys.executable, "-c", THREADS, str(path), how]
  subprocess.run(command, check=True, env=cleaned | environment, timeout=60)
  return path.read_text().count("<heap nr=")


def test_threads_share_an_arena_for_each_core_and_a_user_may_have_it_otherwise(tmp_path):
  assert arenas(tmp_path / "a", "as glibc has it") > min(os.cpu_count(), 10)
  assert arenas(tmp_path / "b", "few") <= os.cpu_count()
  assert arenas(tmp_path / "c", "few", MALLOC_ARENA_MAX="1") == 1


def test_what_is_free_goes_back(tmp_path):
  libc = ctypes.CDLL(None)
  libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
  resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  pieces = [libc.malloc(60_000) for _ in range(1000)]  # below what glibc maps by itself
  for piece in pieces:
    ctypes.memset(piece, 1, 60_000)
  for piece in pieces[:-1]:  # the last lies behind all of them: the heap cannot shrink by itself
    libc.free(piece)
  before = resident()
  malloc.give_back()
  assert resident() < before - 50 * 1000 * 1000
  libc.free(pieces[-1])

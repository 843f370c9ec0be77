"""A run without what only Linux or POSIX has. Other fakes are beside the tests of each module."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT, tiny_flags

SCRIPT = """
import asyncio  # its modules for POSIX call sysconf at their import
import os, pathlib, runpy, signal, sys, warnings

for module, names in {
  os: ("fork", "forkpty", "getloadavg", "getpgid", "getuid", "geteuid", "killpg", "nice", "posix_spawn",
       "sched_getaffinity", "setsid", "sysconf"),
  signal: ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_kill",
           "pthread_sigmask", "setitimer"),
}.items():
  for name in names:
    if hasattr(module, name):
      delattr(module, name)
os.process_cpu_count = os.cpu_count  # as on systems without sched_getaffinity
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
  sys.modules[name] = None  # its import fails
warnings.filterwarnings("ignore", "only soft file lock is available")
warnings.filterwarnings("ignore", category=EncodingWarning)  # of other packages
warnings.filterwarnings("error", category=EncodingWarning, module="ae_jax")
from ae_jax.data import placements
placements._CGROUP = pathlib.Path("nowhere")
runpy.run_module("ae_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.quick_compile
def test_a_run_needs_nothing_that_only_posix_has(tmp_path):
  """It also opens no text file without an encoding, and writes no file whose name Windows refuses."""
  command = [
    sys.executable,
    "-X",
    "warn_default_encoding",
    "-c",
    SCRIPT,
    *tiny_flags(),
    f"--workdir={tmp_path / 'run'}",
  ]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
  assert (done.returncode, done.stderr) == (0, "")
  assert "budget 2 GiB" in done.stdout  # a quarter of the memory that is assumed if no system reports it
  names = [file.name for file in tmp_path.rglob("*")]
  assert "report.html" in names
  assert not [name for name in names if re.search(r'[<>:"|?*\\]', name)]

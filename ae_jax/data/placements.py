"""Placement of the training examples: in device memory, or streamed to the device during training."""

import ctypes
import dataclasses
import math
import os
import pathlib

from ae_jax import errors
from ae_jax.system import distributed

GIB = 2**30
UNKNOWN_BYTES = 8 * GIB  # assumed if the machine does not report its memory
_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")  # memory limit of a container; "max" means no limit

# name -> function (needed bytes, host budget, device budget) that returns the fields (lazy, streams) of a `Placement`
PLACEMENTS = {
  "auto": lambda needed, host, device: (needed > host, needed > min(host, device)),
  "memory": lambda needed, host, device: (False, False),
  "stream": lambda needed, host, device: (True, True),
}


@dataclasses.dataclass(frozen=True)
class Placement:
  """Placement of the training examples in files, host memory or device memory, with the reason."""

  lazy: bool  # the examples stay in files, if the source can read individual rows
  streams: bool  # the examples are copied to the device during training, a few steps at a time
  budget: int | float  # host memory budget in bytes
  words: str  # the decision and its reason as a message


def decide(placement: str, budget_gib: int | float, needed: int) -> Placement:
  """Returns the placement of training examples that need `needed` bytes after decoding.

  "auto" streams examples that exceed the memory budget of the host or of the device.

  Args:
    placement: `config.data.placement`, a key of `PLACEMENTS`.
    budget_gib: `config.data.budget_gib`, the budget of the host and also of the device. 0 means a quarter of the host
      memory and a third of the accelerator memory; with several processes, the smallest budget is used.
    needed: Size of the decoded training examples in bytes.

  Raises:
    UserError: The placement is unknown, or the budget is negative.
  """
  rule = errors.choose(PLACEMENTS, placement, "data.placement")
  errors.check(budget_gib >= 0, "data.budget_gib", budget_gib, "0 (automatic) or more")
  host = budget_gib * GIB or distributed.global_min(host_budget())
  device = budget_gib * GIB or distributed.global_min(device_bytes() / 3)
  lazy, streams = rule(needed, host, device)
  reasons = f"{format_gib(needed)}, budget {format_gib(min(host, device))}"
  if placement != "auto":
    reasons += f"; config.data.placement={placement}"
  return Placement(lazy, streams, host, f"training examples {'streamed' if streams else 'in memory'} ({reasons})")


def host_budget() -> float:
  """Returns the default memory budget of this host in bytes."""
  return host_bytes() / 4


def format_gib(size: int | float) -> str:
  """Formats a size in bytes as text in GiB, such as "1.5 GiB"."""
  return f"{size / GIB:.3g} GiB"


def host_bytes() -> int:
  """Returns the memory of this machine in bytes, or the memory limit of its container if that is smaller."""
  physical = _physical_bytes()
  limit = _CGROUP.read_text(encoding="utf-8").strip() if _CGROUP.exists() else "max"
  return min(physical, int(limit)) if limit.isdecimal() else physical


class _MemoryStatus(ctypes.Structure):
  """MEMORYSTATUSEX of the Windows API (sysinfoapi.h)."""

  _fields_ = (
    ("length", ctypes.c_uint32),
    ("load", ctypes.c_uint32),
    *((f"bytes_{number}", ctypes.c_uint64) for number in range(7)),  # bytes_0 is the physical memory
  )


def _physical_bytes() -> int:
  """Returns the physical memory in bytes; `UNKNOWN_BYTES` if the operating system does not report it."""
  try:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, ValueError, OSError):  # Windows has no sysconf, and some systems lack these names
    size = 0
  if size <= 0 and hasattr(ctypes, "windll"):
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
      size = status.bytes_0
  return size if size > 0 else UNKNOWN_BYTES


def device_bytes() -> int | float:
  """Returns the memory of an accelerator in bytes; infinity on CPUs, which use the host memory."""
  import jax

  return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)

"""Placement of the training examples: on the device, or streamed chunk by chunk from memory or from files."""

import ctypes
import dataclasses
import math
import os
import pathlib

from ae_jax import errors
from ae_jax.system import distributed

_GIB = 2**30
UNKNOWN_BYTES = 8 * _GIB  # assumed where the machine does not report its memory
_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")  # memory limit of a container; "max" means no limit

# name -> (bytes needed, budget of the host, budget of the device) -> (lazy, streams)
PLACEMENTS = {
  "auto": lambda needed, host, device: (needed > host, needed > min(host, device)),
  "memory": lambda needed, host, device: (False, False),
  "stream": lambda needed, host, device: (True, True),
}


@dataclasses.dataclass(frozen=True)
class Placement:
  """A placement decision and its reason."""

  lazy: bool  # the examples stay in their files, if their source can read single rows
  streams: bool  # the examples go to the device chunk by chunk
  budget: int | float  # bytes of host memory
  words: str  # the decision and its reason, for the user


def decide(placement: str, budget_gib: int | float, needed: int) -> Placement:
  """Returns the placement of training examples that take `needed` bytes when decoded.

  "auto" streams examples that exceed the budget of the host or of the device.

  Args:
    placement: `config.data.placement`, a key of `PLACEMENTS`.
    budget_gib: `config.data.budget_gib`, for host and device alike. 0 means a quarter of the host's memory and a third
      of an accelerator's. With several processes the smallest budget counts.
    needed: Size in bytes.

  Raises:
    UserError: For an unknown placement or a negative budget.
  """
  rule = errors.choose(PLACEMENTS, placement, "data.placement")
  errors.check(budget_gib >= 0, "data.budget_gib", budget_gib, "0 (automatic) or more")
  host = budget_gib * _GIB or distributed.global_min(host_bytes() / 4)
  device = budget_gib * _GIB or distributed.global_min(device_bytes() / 3)
  lazy, streams = rule(needed, host, device)
  reasons = f"{format_gib(needed)}, budget {format_gib(min(host, device))}"
  if placement != "auto":
    reasons += f"; config.data.placement={placement}"
  return Placement(lazy, streams, host, f"training examples {'streamed' if streams else 'in memory'} ({reasons})")


def format_gib(size: int | float) -> str:
  """Returns a size in bytes as text in GiB."""
  return f"{size / _GIB:.3g} GiB"


def host_bytes() -> int:
  """Returns the memory of this machine, or of the container that this process runs in."""
  physical = _physical_bytes()
  limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
  return min(physical, int(limit)) if limit.isdecimal() else physical


class _MemoryStatus(ctypes.Structure):
  """MEMORYSTATUSEX of the Windows API (sysinfoapi.h)."""

  _fields_ = (
    ("length", ctypes.c_uint32),
    ("load", ctypes.c_uint32),
    *((f"bytes_{number}", ctypes.c_uint64) for number in range(7)),  # the first is the physical memory
  )


def _physical_bytes() -> int:
  """Returns the physical memory that POSIX (Linux, macOS) or Windows reports, else `UNKNOWN_BYTES`."""
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
  """Returns the memory of an accelerator; infinity on CPU, where the host's memory is the limit."""
  import jax

  return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)

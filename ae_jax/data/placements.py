"""Where the training examples lie: on the device, or behind a stream of chunks, from memory or from their files."""

import ctypes
import dataclasses
import math
import os
import pathlib

from ae_jax import errors
from ae_jax.system import distributed

_GIB = 2**30
UNKNOWN_BYTES = 8 * _GIB  # taken for the memory of a machine that does not tell it
_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")  # the limit of a container; "max" is none

# name -> (bytes needed, budget of the host, budget of the device) -> (lazy, streams)
PLACEMENTS = {
  "auto": lambda needed, host, device: (needed > host, needed > min(host, device)),
  "memory": lambda needed, host, device: (False, False),
  "stream": lambda needed, host, device: (True, True),
}


@dataclasses.dataclass(frozen=True)
class Placement:
  """What was decided, and in words why."""

  lazy: bool  # the examples stay in their files, where their source can read single ones
  streams: bool  # they go to the device chunk by chunk
  budget: float  # bytes of this machine's memory
  words: str


def decide(placement, budget_gib, needed):
  """The Placement of training examples that need so many bytes when decoded, from `config.data`'s two keys.

  A budget of 0 GiB is a quarter of this machine's memory for the host and a third of an accelerator's for the device;
  another is taken for both. Of several processes the smallest budget counts. "auto" streams what exceeds either. Raises
  UserError for an unknown placement or a negative budget.
  """
  rule = errors.choose(PLACEMENTS, placement, "data.placement")
  errors.check(budget_gib >= 0, "data.budget_gib", budget_gib, "0 (automatic) or more")
  host = budget_gib * _GIB or distributed.least(host_bytes() / 4)
  device = budget_gib * _GIB or distributed.least(device_bytes() / 3)
  lazy, streams = rule(needed, host, device)
  reasons = f"{gib(needed)}, budget {gib(min(host, device))}"
  if placement != "auto":
    reasons += f"; config.data.placement={placement}"
  return Placement(lazy, streams, host, f"training examples {'streamed' if streams else 'in memory'} ({reasons})")


def gib(size):
  """Bytes in words."""
  return f"{size / _GIB:.3g} GiB"


def host_bytes():
  """The memory of this machine, or of the container that this process is in."""
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


def _physical_bytes():
  """The physical memory as POSIX (Linux, macOS) or Windows tells it, else `UNKNOWN_BYTES`."""
  try:
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, ValueError, OSError):  # Windows has no sysconf, and some systems not these names
    found = 0
  if found <= 0 and hasattr(ctypes, "windll"):
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
      found = status.bytes_0
  return found if found > 0 else UNKNOWN_BYTES


def device_bytes():
  """The memory of an accelerator; infinite on CPU, whose memory is the host's."""
  import jax

  return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)

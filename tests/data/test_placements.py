import ctypes
import os
import pathlib
import types

import jax
import pytest

from ae_jax import errors
from ae_jax.data import placements

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch):
  """A host with 40 GiB and a device with 12 GiB: budgets of 10 and 4 GiB."""
  monkeypatch.setattr(placements, "host_bytes", lambda: 40 * GIB)
  monkeypatch.setattr(placements, "device_bytes", lambda: 12 * GIB)


@pytest.mark.parametrize(
  ("placement", "budget", "needed", "lazy", "streams"),
  [
    ("auto", 0, 4, False, False),
    ("auto", 0, 4.1, False, True),  # too large for the device: streamed from the host's memory
    ("auto", 0, 10, False, True),
    ("auto", 0, 10.1, True, True),
    ("auto", 2, 2, False, False),
    ("auto", 2, 2.1, True, True),
    ("auto", 50, 45, False, False),
    ("memory", 0, 99, False, False),
    ("memory", 1, 99, False, False),
    ("stream", 0, 0.1, True, True),
    ("stream", 50, 0.1, True, True),
  ],
)
def test_auto_streams_data_above_the_budget_and_other_placements_are_fixed(placement, budget, needed, lazy, streams):
  decided = placements.decide(placement, budget, int(needed * GIB))
  assert (decided.lazy, decided.streams) == (lazy, streams)
  assert ("streamed" in decided.words) == streams
  assert ("placement" in decided.words) == (placement != "auto")
  assert f"{needed:g} GiB" in decided.words


def test_invalid_placement_and_budget_are_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.placement='steam' is unknown; did you mean 'stream'"):
    placements.decide("steam", 0.0, 1)
  for budget in (-1.0, float("nan")):
    with pytest.raises(errors.UserError, match=r"config\.data\.budget_gib="):
      placements.decide("auto", budget, 1)


def test_host_memory_is_limited_by_the_container(tmp_path, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(placements, "_CGROUP", tmp_path / "memory.max")
  machine = placements.host_bytes()
  assert machine > GIB / 2
  for text, expected in [("max\n", machine), (f"{GIB // 4}\n", GIB // 4), (f"{machine * 8}\n", machine)]:
    (tmp_path / "memory.max").write_text(text)
    assert placements.host_bytes() == expected


def windows(total):
  """Returns a fake kernel32 that reports `total` bytes, or fails for None."""

  def fill(reference):
    status = reference._obj
    assert status.length == 64  # Windows refuses other sizes
    status.bytes_0, status.bytes_1 = total or 7, 5
    return total is not None

  return types.SimpleNamespace(kernel32=types.SimpleNamespace(GlobalMemoryStatusEx=fill))


@pytest.mark.parametrize("sysconf", [None, -1, ValueError, OSError])
def test_host_memory_without_sysconf_comes_from_windows_or_a_default(monkeypatch, sysconf):
  monkeypatch.undo()
  monkeypatch.setattr(placements, "_CGROUP", pathlib.Path("nowhere"))

  def fake_sysconf(name):
    if sysconf == -1:
      return -1 if name == "SC_PHYS_PAGES" else 4096
    raise sysconf

  monkeypatch.setattr(os, "sysconf", fake_sysconf)
  if sysconf is None:
    monkeypatch.delattr(os, "sysconf")
  monkeypatch.delattr(ctypes, "windll", raising=False)
  assert placements.host_bytes() == placements.UNKNOWN_BYTES
  for total, expected in [(3 * GIB, 3 * GIB), (None, placements.UNKNOWN_BYTES)]:
    monkeypatch.setattr(ctypes, "windll", windows(total), raising=False)
    assert placements.host_bytes() == expected
    assert not placements.decide("auto", 0.0, 1).streams


@pytest.mark.parametrize(("stats", "expected"), [(None, float("inf")), ({}, float("inf")), ({"bytes_limit": 7}, 7)])
def test_device_memory_is_reported_or_infinite(stats, expected, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda: stats)])
  assert placements.device_bytes() == expected

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
  """40 GiB for the host and 12 GiB on the device: budgets of 10 and 4."""
  monkeypatch.setattr(placements, "host_bytes", lambda: 40 * GIB)
  monkeypatch.setattr(placements, "device_bytes", lambda: 12 * GIB)


@pytest.mark.parametrize(
  ("placement", "budget", "needed", "lazy", "streams"),
  [
    ("auto", 0, 4, False, False),
    ("auto", 0, 4.1, False, True),  # too large for the device: from the host's memory
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
def test_what_exceeds_the_budget_streams_unless_it_is_told_otherwise(placement, budget, needed, lazy, streams):
  decided = placements.decide(placement, budget, int(needed * GIB))
  assert (decided.lazy, decided.streams) == (lazy, streams)
  assert ("streamed" in decided.words) == streams
  assert ("placement" in decided.words) == (placement != "auto")
  assert f"{needed:g} GiB" in decided.words


def test_a_placement_or_budget_that_is_none_is_refused():
  with pytest.raises(errors.UserError, match=r"config\.data\.placement='steam' is unknown; did you mean 'stream'"):
    placements.decide("steam", 0.0, 1)
  for budget in (-1.0, float("nan")):
    with pytest.raises(errors.UserError, match=r"config\.data\.budget_gib="):
      placements.decide("auto", budget, 1)


def test_the_memory_is_that_of_the_container_or_of_the_machine(tmp_path, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(placements, "_CGROUP", tmp_path / "memory.max")
  machine = placements.host_bytes()
  assert machine > GIB / 2
  for text, wanted in [("max\n", machine), (f"{GIB // 4}\n", GIB // 4), (f"{machine * 8}\n", machine)]:
    (tmp_path / "memory.max").write_text(text)
    assert placements.host_bytes() == wanted


def windows(total):
  """kernel32 of a machine with so many bytes; None where the call fails."""

  def fill(reference):
    status = reference._obj
    assert status.length == 64  # or Windows refuses it
    status.bytes_0, status.bytes_1 = total or 7, 5
    return total is not None

  return types.SimpleNamespace(kernel32=types.SimpleNamespace(GlobalMemoryStatusEx=fill))


@pytest.mark.parametrize("sysconf", [None, -1, ValueError, OSError])
def test_a_machine_without_sysconf_tells_its_memory_in_another_way_or_a_default_is_taken(monkeypatch, sysconf):
  monkeypatch.undo()
  monkeypatch.setattr(placements, "_CGROUP", pathlib.Path("nowhere"))

  def told(name):
    if sysconf == -1:
      return -1 if name == "SC_PHYS_PAGES" else 4096
    raise sysconf

  monkeypatch.setattr(os, "sysconf", told)
  if sysconf is None:
    monkeypatch.delattr(os, "sysconf")
  monkeypatch.delattr(ctypes, "windll", raising=False)
  assert placements.host_bytes() == placements.UNKNOWN_BYTES
  for total, wanted in [(3 * GIB, 3 * GIB), (None, placements.UNKNOWN_BYTES)]:
    monkeypatch.setattr(ctypes, "windll", windows(total), raising=False)
    assert placements.host_bytes() == wanted
    assert not placements.decide("auto", 0.0, 1).streams


@pytest.mark.parametrize(("stats", "wanted"), [(None, float("inf")), ({}, float("inf")), ({"bytes_limit": 7}, 7)])
def test_the_device_says_what_it_has_or_is_the_host(stats, wanted, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda: stats)])
  assert placements.device_bytes() == wanted

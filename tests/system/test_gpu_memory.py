"""The flags of GPU memory set the variables that JAX reads, and never replace those of the user."""

import os
import types

import jax
import pytest
from conftest import run_command

from ae_jax import errors
from ae_jax.system import gpu_memory

SHARE, OLD, PREALLOCATE = gpu_memory.VARIABLES


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  """Variables that are not set, and a JAX that has not started."""
  for name in gpu_memory.VARIABLES:
    monkeypatch.setenv(name, "")  # is removed afterwards, also if the test sets it
    monkeypatch.delenv(name)
  bridge = types.SimpleNamespace(backends_are_initialized=lambda: False)
  monkeypatch.setitem(gpu_memory.sys.modules, "jax._src.xla_bridge", bridge)
  return bridge


def variables():
  return {name: os.environ[name] for name in gpu_memory.VARIABLES if name in os.environ}


@pytest.mark.parametrize(
  ("share", "preallocate", "expected"),
  [
    (None, None, {}),
    (0.5, None, {SHARE: "0.5"}),
    (1.0, True, {SHARE: "1.0", PREALLOCATE: "true"}),
    (None, False, {PREALLOCATE: "false"}),
  ],
)
def test_flags_become_variables(share, preallocate, expected):
  gpu_memory.configure(share, preallocate)
  assert variables() == expected
  gpu_memory.configure(share, preallocate)  # the same values again
  assert variables() == expected


def test_jax_reads_these_variables(monkeypatch):
  from jaxlib import xla_client

  gpu_memory.configure(0.25, False)
  options = xla_client.generate_pjrt_gpu_plugin_options()
  assert (options["memory_fraction"], options["preallocate"]) == (0.25, False)
  monkeypatch.delenv(SHARE)
  monkeypatch.setenv(OLD, "0.250")  # JAX refuses both names together
  gpu_memory.configure(0.25, None)
  assert xla_client.generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.25


@pytest.mark.parametrize(
  ("share", "preallocate", "given", "message"),
  [
    (0.0, None, {}, r"^--gpu_memory=0.0: must be a fraction"),
    (1.5, None, {}, r"^--gpu_memory=1.5: must be a fraction"),
    (float("nan"), None, {}, r"^--gpu_memory=nan: must be a fraction"),
    (0.5, None, {SHARE: "0.9"}, rf"^--gpu_memory=0.5: the environment variable {SHARE} is '0.9'; remove"),
    (0.5, None, {OLD: "half"}, rf"^--gpu_memory=0.5: the environment variable {OLD} is 'half'; remove"),
    (None, True, {PREALLOCATE: "0"}, rf"^--preallocate=True: the environment variable {PREALLOCATE} is '0'; remove"),
    (None, False, {PREALLOCATE: "true"}, rf"^--preallocate=False: the environment variable {PREALLOCATE} is 'true'"),
  ],
)
def test_invalid_and_contradicting_values_are_refused(monkeypatch, share, preallocate, given, message):
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(errors.UserError, match=message):
    gpu_memory.configure(share, preallocate)
  assert variables() == given


def test_a_jax_that_has_started_is_noticed(monkeypatch, environment):
  jax.devices()
  monkeypatch.undo()  # the bridge of JAX itself
  for name in gpu_memory.VARIABLES:
    monkeypatch.delenv(name, raising=False)
  gpu_memory.configure(None, None)
  with pytest.raises(errors.UserError, match=r"^--gpu_memory=0.5: has no effect, because the config file starts JAX"):
    gpu_memory.configure(0.5, None)
  assert variables() == {}


def test_each_command_has_the_flags():
  for command, rest in (("main", ["--config=dense:digits"]), ("evaluate", ["--workdir=none"]), ("compare", ["none"])):
    status, output, complaints = run_command(command, *rest, "--gpu_memory=2", "--nopreallocate")
    assert (status, output) == (1, "")
    assert complaints == "ae_jax: --gpu_memory=2.0: must be a fraction of GPU memory in (0, 1]\n"

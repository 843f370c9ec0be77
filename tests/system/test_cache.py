"""Folder, keys and files of the cache, and its behavior on a full disk."""

import os
import pathlib
import weakref

import jax
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.system import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "arrays"


@pytest.mark.parametrize(
  ("ae_jax_cache", "xdg_cache_home", "expected"),
  [("/a", "/b", "/a"), ("", "/b", "/b/ae_jax"), ("", "", "/home/.cache/ae_jax"), (None, None, "/home/.cache/ae_jax")],
)
def test_cache_folder_precedence(monkeypatch, ae_jax_cache, xdg_cache_home, expected):
  monkeypatch.setenv("HOME", "/home")
  for name, value in (("AE_JAX_CACHE", ae_jax_cache), ("XDG_CACHE_HOME", xdg_cache_home)):
    monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
  assert cache.root() == pathlib.Path(expected)


def test_a_user_without_a_home_folder_can_name_the_cache(monkeypatch):
  for name in ("HOME", "XDG_CACHE_HOME", "AE_JAX_CACHE"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as in a container whose user id has no name
  with pytest.raises(errors.UserError, match=r"^AE_JAX_CACHE=.*home folder of this user is unknown; write the full"):
    cache.root()
  monkeypatch.setenv("AE_JAX_CACHE", "/a")
  assert cache.root() == pathlib.Path("/a")


def test_the_file_of_a_memory_map_is_renamed_after_it_is_closed(folder, monkeypatch):
  """Windows renames no file that is mapped."""
  written, replace = [], os.replace

  def fill(array):
    array[:] = 7
    written.append(weakref.ref(array))

  def close_first(part, file):
    assert written[0]() is None
    replace(part, file)

  monkeypatch.setattr(os, "replace", close_first)
  assert cache.memory_map("a", "1", (3,), np.int32, fill).tolist() == [7, 7, 7]
  assert len(written) == 1


def test_arrays_are_cached_by_name_and_version(folder):
  keys = [(name, version) for name in ("a", "b", "a/b") for version in ("1", "2")]
  for number, key in enumerate(keys):
    cache.arrays(*key, lambda number=number: {"x": np.array(number)})
  for number, key in enumerate(keys):
    assert cache.arrays(*key, lambda: pytest.fail("not cached"))["x"] == number
  assert len(list(folder.iterdir())) == len(keys)


def test_full_disk_leaves_no_partial_file(folder, monkeypatch):
  def full(file, **_):
    file.write(b"half") if hasattr(file, "write") else pathlib.Path(file).write_bytes(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  assert cache.arrays("a", "1", lambda: {"x": np.ones(2)})["x"].sum() == 2
  assert not list(folder.iterdir())


def test_read_npz_does_not_unpickle(folder, tmp_path):
  class Exploit:
    def __reduce__(self):
      return pathlib.Path.touch, (tmp_path / "exploited",)

  np.savez(tmp_path / "x.npz", x=np.array([Exploit()], object))
  with pytest.raises(cache.UNREADABLE):
    cache.read_npz(tmp_path / "x.npz")
  assert not (tmp_path / "exploited").exists()


def test_npy_file_is_rejected(tmp_path):
  np.save(tmp_path / "x.npy", np.ones(3))
  with pytest.raises(ValueError, match="one bare array"):
    cache.read_npz(tmp_path / "x.npy")


@pytest.fixture
def compilation_cache():
  """Restores the settings of JAX's compilation cache."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  previous = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in previous.items():
    jax.config.update(name, value)


@pytest.mark.parametrize("configured", [None, "/elsewhere"])
def test_compilation_cache_is_in_the_cache_folder_unless_configured(monkeypatch, compilation_cache, configured):
  monkeypatch.setenv("AE_JAX_CACHE", "/cache")
  jax.config.update("jax_compilation_cache_dir", configured)
  cache.keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == (configured or "/cache/xla")

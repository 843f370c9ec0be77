"""Folder, keys and files of the cache; what happens when the disk is full."""

import pathlib

import jax
import numpy as np
import pytest

from ae_jax.system import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "arrays"


@pytest.mark.parametrize(
  ("ours", "xdg", "wanted"),
  [("/a", "/b", "/a"), ("", "/b", "/b/ae_jax"), ("", "", "/home/.cache/ae_jax"), (None, None, "/home/.cache/ae_jax")],
)
def test_the_folder_is_ours_then_that_of_xdg_then_the_one_at_home(monkeypatch, ours, xdg, wanted):
  monkeypatch.setattr(pathlib.Path, "home", lambda: pathlib.Path("/home"))
  for name, value in (("AE_JAX_CACHE", ours), ("XDG_CACHE_HOME", xdg)):
    monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
  assert cache.root() == pathlib.Path(wanted)


def test_arrays_are_kept_by_name_and_by_version(folder):
  keys = [(name, version) for name in ("a", "b", "a/b") for version in ("1", "2")]
  for number, key in enumerate(keys):
    cache.arrays(*key, lambda number=number: {"x": np.array(number)})
  for number, key in enumerate(keys):
    assert cache.arrays(*key, lambda: pytest.fail("made again"))["x"] == number
  assert len(list(folder.iterdir())) == len(keys)


def test_a_full_disk_keeps_no_half_of_a_file(folder, monkeypatch):
  def full(file, **_):
    file.write(b"half") if hasattr(file, "write") else pathlib.Path(file).write_bytes(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  assert cache.arrays("a", "1", lambda: {"x": np.ones(2)})["x"].sum() == 2
  assert not list(folder.iterdir())


def test_nothing_is_unpickled(folder, tmp_path):
  class Harm:
    def __reduce__(self):
      return pathlib.Path.touch, (tmp_path / "harm",)

  np.savez(tmp_path / "x.npz", x=np.array([Harm()], object))
  with pytest.raises(cache.UNREADABLE):
    cache.read_npz(tmp_path / "x.npz")
  assert not (tmp_path / "harm").exists()


def test_one_bare_array_is_refused(tmp_path):
  np.save(tmp_path / "x.npy", np.ones(3))
  with pytest.raises(ValueError, match="one bare array"):
    cache.read_npz(tmp_path / "x.npy")


@pytest.fixture
def compilation_cache():
  """Restores the settings of JAX's compilation cache."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize("given", [None, "/elsewhere"])
def test_compiled_programs_are_kept_in_our_folder_unless_jax_was_told_of_another(monkeypatch, compilation_cache, given):
  monkeypatch.setenv("AE_JAX_CACHE", "/ours")
  jax.config.update("jax_compilation_cache_dir", given)
  cache.keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == (given or "/ours/xla")

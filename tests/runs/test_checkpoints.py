"""Checkpoints: round trips, which ones are kept, damaged files, and failed saves."""

import contextlib
import dataclasses
import gc
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ae_jax import errors
from ae_jax.runs import checkpoints
from ae_jax.system import distributed
from ae_jax.training.state import TrainState

# Orbax leaves coroutines behind when a load fails
pytestmark = [pytest.mark.quick_compile, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
EVERYWHERE = distributed.replicated(distributed.mesh())


@pytest.fixture(autouse=True)
def collected():
  """Collects the garbage of each test before the next one."""
  yield
  gc.collect()


def state_at(step):
  params = {"layer": {"kernel": jnp.full((3, 2), step, jnp.float32)}}
  return jax.device_put(TrainState(jnp.int32(step), params, optax.adam(0.1).init(params)), EVERYWHERE)


def save_all(folder, errors, first=1):
  for step, error in enumerate(errors, first):
    with checkpoints.open_folder(folder, to_save=True) as opened:
      checkpoints.save(opened, state_at(step), error, {"step": step})


def test_checkpoint_restores_bitwise(tmp_path):
  save_all(tmp_path, [3.0])
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    restored, notes = checkpoints.restore(opened, state_at(0))
    target = {"params": jax.eval_shape(lambda: state_at(0)).params}
    parts = checkpoints.restore_parts(opened, 1, target)
  jax.tree.map(np.testing.assert_array_equal, restored, state_at(1))
  jax.tree.map(np.testing.assert_array_equal, parts, {"params": state_at(1).params})
  assert notes == {"step": 1}


def test_arrays_that_checkpoints_of_earlier_versions_lack_get_the_values_of_these_versions(tmp_path):
  old = dataclasses.replace(state_at(1), model_state={"mean": jax.device_put(jnp.zeros(3), EVERYWHERE)})
  with checkpoints.open_folder(tmp_path, to_save=True) as opened:
    checkpoints.save(opened, old, 3.0, {})
  added = jax.device_put(jnp.full(1, 0.5), EVERYWHERE)
  target = dataclasses.replace(old, model_state={**old.model_state, "correction_scale": added})
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    restored, _ = checkpoints.restore(opened, target)
    parts = checkpoints.restore_parts(opened, 1, {"model_state": jax.eval_shape(lambda: target).model_state})
  for state in (restored.model_state, parts["model_state"]):
    assert {name: values.tolist() for name, values in state.items()} == {"mean": [0, 0, 0], "correction_scale": [1]}


def test_newest_step_ignores_a_save_that_was_killed(tmp_path):
  assert checkpoints.newest_step(tmp_path) is None
  save_all(tmp_path, [3.0, 2.0])
  shutil.copytree(tmp_path / "2", tmp_path / "3.orbax-checkpoint-tmp")
  assert checkpoints.newest_step(tmp_path) == 2


def test_notes_are_copied_when_the_save_begins(tmp_path):
  notes = {"pending": []}
  with checkpoints.open_folder(tmp_path, to_save=True) as opened:
    checkpoints.save(opened, state_at(1), 1.0, notes)
    notes["pending"].append({"loss": 1.0})  # training continues during the save
    checkpoints.wait(opened)
    assert checkpoints.restore(opened, state_at(0))[1] == {"pending": []}


def test_the_last_two_and_the_best_are_kept(tmp_path):
  save_all(tmp_path, [3.0, 1.0, float("nan"), 4.0, 5.0])
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    assert checkpoints.last_and_best(opened) == {"last": 5, "best": 2}
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]


@pytest.mark.parametrize(("squared_errors", "best"), [([1.0, 1.0], 1), ([3.0, 1.0, 1.0], 2), ([1.0, 2.0, 1.0], 1)])
def test_best_checkpoint_is_the_first_of_equals(tmp_path, squared_errors, best):
  save_all(tmp_path, squared_errors)
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    assert checkpoints.last_and_best(opened) == {"last": len(squared_errors), "best": best}


def test_number_of_threads_does_not_grow_with_saves(tmp_path):
  counts = []
  with checkpoints.open_folder(tmp_path, to_save=True) as opened:
    for step in range(1, 6):
      checkpoints.save(opened, state_at(step), 1.0, {})
      checkpoints.wait(opened)
      counts.append(threading.active_count())
    end = time.monotonic() + 5.0
    while threading.active_count() > counts[1] and time.monotonic() < end:
      time.sleep(0.01)  # the threads of a closed event loop of Orbax end with a delay
    assert threading.active_count() <= counts[1]


def test_empty_folder_has_no_checkpoints(tmp_path):
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    assert checkpoints.last_and_best(opened) == {}


def test_partial_save_is_ignored_and_deleted_by_the_next_save(tmp_path):
  save_all(tmp_path, [3.0, 2.0])
  partial = tmp_path / "3.orbax-checkpoint-tmp"
  (tmp_path / "2").rename(partial)
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    assert checkpoints.last_and_best(opened) == {"last": 1, "best": 1}
  assert partial.exists()
  save_all(tmp_path, [1.0], first=2)
  assert not partial.exists()


@pytest.mark.parametrize("deleted", ["metrics", "params", "_CHECKPOINT_METADATA"])
def test_partial_deletion_is_ignored_and_completed_by_the_next_save(tmp_path, deleted):
  save_all(tmp_path, [3.0])
  shutil.copytree(tmp_path / "1", tmp_path.parent / "rest")
  save_all(tmp_path, [2.0, 1.0], first=2)
  rest = (tmp_path.parent / "rest").rename(tmp_path / "1")
  for name in {"metrics", deleted}:
    shutil.rmtree(rest / name) if (rest / name).is_dir() else (rest / name).unlink()
  with checkpoints.open_folder(tmp_path, to_save=False) as opened:
    assert checkpoints.last_and_best(opened) == {"last": 3, "best": 3}
  save_all(tmp_path, [0.5], first=4)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


DAMAGES = {
  "cut": lambda data: data[: len(data) // 2],
  "emptied": lambda data: b"",
  "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :],
}


def files(folder):
  return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A folder with checkpoints of steps 1 and 2."""
  folder = tmp_path_factory.mktemp("saved") / "checkpoints"
  save_all(folder, [3.0, 2.0])
  return folder


@pytest.mark.parametrize("shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in (1, 2))])
def test_damaged_checkpoint_is_never_restored(saved, tmp_path, shift):
  """If the damaged file matters, the previous checkpoint is restored, and the damaged one is reported and moved.

  Each file is damaged in one of three ways, and over all values of `shift` in each.
  """
  damaged = 0
  for number, name in enumerate(files(saved / "2")):
    folder, moved, reports = tmp_path / str(number) / "checkpoints", tmp_path / str(number) / "damaged", []
    shutil.copytree(saved, folder)
    damage = list(DAMAGES.values())[(number + shift) % len(DAMAGES)]
    (folder / "2" / name).write_bytes(damage((folder / "2" / name).read_bytes()))
    with checkpoints.open_folder(folder, True, reports.append) as opened:
      state, notes = checkpoints.restore(opened, state_at(0), reports.append)
    assert notes == {"step": int(state.step)}
    jax.tree.map(np.testing.assert_array_equal, state, state_at(int(state.step)))
    if int(state.step) == 1:
      damaged += 1
      assert len(reports) == 1, name
      assert reports[0].startswith("the checkpoint of step 2 is damaged")
      assert [path.name for path in moved.iterdir()] == ["2.0"]
  assert damaged >= 4


def test_restore_returns_none_if_all_checkpoints_are_damaged(saved, tmp_path):
  folder = tmp_path / "checkpoints"
  shutil.copytree(saved, folder)
  for file in folder.rglob("*"):
    if file.is_file() and "ocdbt" in str(file):
      file.write_bytes(b"")
  reports = []
  with checkpoints.open_folder(folder, to_save=True) as opened:
    assert checkpoints.restore(opened, state_at(0), reports.append) is None
  assert len(reports) == 2


def test_parameters_of_a_damaged_checkpoint_are_not_loaded(saved, tmp_path):
  for number, name in enumerate(files(saved / "2" / "params")):
    folder = tmp_path / str(number)
    shutil.copytree(saved, folder)
    path = folder / "2" / "params" / name
    path.write_bytes(DAMAGES["flipped"](path.read_bytes()))
    target = {"params": jax.eval_shape(lambda: state_at(0)).params}
    with checkpoints.open_folder(folder, to_save=False) as opened, contextlib.suppress(errors.UserError):
      parts = checkpoints.restore_parts(opened, 2, target)
      jax.tree.map(np.testing.assert_array_equal, parts, {"params": state_at(2).params})


def remaining_threads(known):
  """Returns new threads that are not daemons and still run after a few seconds.

  Orbax closes the event loop of a save without waiting for the loop's threads, which end milliseconds later.
  """
  threads = [thread for thread in threading.enumerate() if thread not in known and not thread.daemon]
  end = time.monotonic() + 5.0
  for thread in threads:
    thread.join(max(0.0, end - time.monotonic()))
  return [thread for thread in threads if thread.is_alive()]


def save_and_wait(opened):
  checkpoints.save(opened, state_at(3), 1.0, {})
  checkpoints.wait(opened)


def test_failed_save_is_reported_and_keeps_earlier_checkpoints(saved, tmp_path, monkeypatch):
  folder = tmp_path / "checkpoints"
  shutil.copytree(saved, folder)
  before = {name: (folder / name).read_bytes() for name in files(folder)}

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  known = set(threading.enumerate())
  with checkpoints.open_folder(folder, to_save=True) as opened, monkeypatch.context() as patch:
    patch.setattr("pathlib.Path.mkdir", full)
    patch.setattr("os.makedirs", full)
    with pytest.raises(errors.UserError, match=r"the checkpoint cannot be written.*earlier checkpoints are unchanged"):
      save_and_wait(opened)
  assert {name: data for name, data in before.items() if (folder / name).read_bytes() != data} == {}
  assert remaining_threads(known) == []

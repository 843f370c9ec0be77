import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ae_jax import checkpoints
from ae_jax.steps import TrainState

DEVICE = jax.devices()[0]


def state_at(step):
  params = {"layer": {"kernel": jnp.full((3, 2), step, jnp.float32)}}
  return jax.device_put(TrainState(jnp.int32(step), params, optax.adam(0.1).init(params)), DEVICE)


def save_all(folder, errors, first=1):
  for step, error in enumerate(errors, first):
    with checkpoints.open_folder(folder, to_save=True) as checkpointer:
      checkpoints.save(checkpointer, state_at(step), error)


def test_what_is_restored_is_what_was_saved(tmp_path):
  save_all(tmp_path, [3.0])
  with checkpoints.open_folder(tmp_path, to_save=False) as checkpointer:
    restored = checkpoints.restore(checkpointer, 1, like=state_at(0))
    params = checkpoints.restore_params(checkpointer, 1, jax.eval_shape(lambda: state_at(0)).params)
  jax.tree.map(np.testing.assert_array_equal, restored, state_at(1))
  jax.tree.map(np.testing.assert_array_equal, params, state_at(1).params)


def test_the_last_and_the_best_are_kept(tmp_path):
  save_all(tmp_path, [3.0, 1.0, float("nan"), 4.0])
  with checkpoints.open_folder(tmp_path, to_save=False) as checkpointer:
    assert checkpoints.steps(checkpointer) == {"last": 4, "best": 2}
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


def test_an_empty_folder_has_none(tmp_path):
  with checkpoints.open_folder(tmp_path, to_save=False) as checkpointer:
    assert checkpoints.steps(checkpointer) == {}


def test_half_a_save_is_not_taken_for_one_and_swept_away_only_by_the_next_to_save(tmp_path):
  save_all(tmp_path, [3.0, 2.0])
  half = tmp_path / "3.orbax-checkpoint-tmp"
  (tmp_path / "2").rename(half)
  with checkpoints.open_folder(tmp_path, to_save=False) as checkpointer:
    assert checkpoints.steps(checkpointer) == {}
  assert half.exists()
  save_all(tmp_path, [1.0])
  assert not half.exists()


@pytest.mark.parametrize("gone", ["metrics", "params", "_CHECKPOINT_METADATA"])
def test_half_a_deletion_is_not_taken_for_a_checkpoint_and_finished_by_the_next_to_save(tmp_path, gone):
  save_all(tmp_path, [3.0])
  shutil.copytree(tmp_path / "1", tmp_path.parent / "rest")
  save_all(tmp_path, [2.0], first=2)
  rest = (tmp_path.parent / "rest").rename(tmp_path / "1")
  for name in {"metrics", gone}:
    shutil.rmtree(rest / name) if (rest / name).is_dir() else (rest / name).unlink()
  with checkpoints.open_folder(tmp_path, to_save=False) as checkpointer:
    assert checkpoints.steps(checkpointer) == {"last": 2, "best": 2}
  save_all(tmp_path, [1.0], first=3)
  assert [path.name for path in tmp_path.iterdir()] == ["3"]

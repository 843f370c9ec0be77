"""Batch size, memory check and accumulation of an experiment."""

import numpy as np
import pytest
from conftest import config_of

from ae_jax import config as configs
from ae_jax.data import decoding
from ae_jax.models import memory
from ae_jax.sweep import grid
from ae_jax.training import setup

pytestmark = pytest.mark.runs_optax


def batch_schedules(config, batch_size):
  """The batch schedules of a run on two devices and of a sweep member, for a batch size."""
  config.batch_size = batch_size
  run = setup.build_experiment(config, 2)
  assert run.config.batch_size == batch_size  # config.json keeps the value of the user
  (member,) = grid.members(config, ["seed"], [(0,)])
  return run.batch_schedule, member.experiment.batch_schedule


def test_batch_size_is_limited_to_the_training_set(tiny):
  size = len(setup.build_experiment(tiny, 1).dataset.train)
  whole = batch_schedules(tiny, size)
  assert batch_schedules(tiny, 5 * size) == batch_schedules(tiny, 2**31 - 1) == whole
  assert [(schedule.steps, schedule.padded_batch_size) for schedule in whole] == [(1, size), (1, size)]
  assert batch_schedules(tiny, size - 1) != whole


def test_memory_check_limits_the_batch_to_the_training_set(tiny, monkeypatch):
  rows = []
  monkeypatch.setattr(memory, "check_step", lambda model, objective, optimizer, count, shards: rows.append(count))
  tiny.batch_size = 2**31 - 1
  experiment = setup.build_experiment(tiny, 2)
  setup.check_memory(experiment, 2)
  assert rows == [len(experiment.dataset.train) // 2]


def test_anomalies_without_the_evaluator_that_measures_them_are_named(tmp_path):
  x = np.random.default_rng(0).random((40, 6), np.float32)
  np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:8], y_train=np.zeros(40, int), y_test=np.arange(8) % 2)
  config = config_of("dense", "npz")
  config.data.path, config.data.one_class, config.model.latent = str(tmp_path / "x.npz"), 0, 2
  of_anomaly = lambda: [remark for remark in setup.build_experiment(config, 1).remarks if "'anomaly'" in remark]
  assert len(of_anomaly()) == 1
  config.evaluators = (*config.evaluators, "anomaly")
  assert not of_anomaly()


@pytest.mark.parametrize(
  ("train", "test", "found", "flag"),
  [
    (
      ["a good"] * 30,
      ["a good", "bent", "bent"],
      "2 test examples have classes @ bent",
      "'--config.data.one_class=a good'",
    ),
    ([3] * 30, [3, 3, 5], "1 test example has a class @ 5", "--config.data.one_class=3"),
    ([3, 4] * 15, [3, 5, 6], "2 test examples have classes @ 5, 6", "--config.data.one_class=CLASS"),
    ([3, 4] * 15, [3, 4, 4], "", ""),
    ([0.5, 1.0] * 15, [0.5, 0.7, 0.5], "", ""),
  ],
)
def test_classes_of_the_test_set_only_are_named_with_the_flag_that_makes_them_anomalies(
  tmp_path, train, test, found, flag
):
  config, values = config_of("dense", "npz"), np.random.default_rng(0).random((33, 4, 4, 1), np.float32)
  config.data.path, config.model.latent = str(tmp_path / "x.npz"), 2
  np.savez(config.data.path, x_train=values[:30], y_train=train, x_test=values[30:], y_test=test)
  hints = lambda: [remark for remark in setup.build_experiment(config, 1).remarks if "that no training" in remark]
  why = "to measure how well they are found as anomalies of one class"
  note = f"config.data.one_class=None: {found.replace('@', 'that no training example has:')}; {why}, add {flag}"
  assert hints() == ([note] if found else [])
  config.data.one_class = str(train[0])
  assert not found or not hints()


def test_the_flag_for_defects_is_named_for_folders_of_images(tmp_path):
  for number in range(12):
    folder = tmp_path / ("train/good" if number < 6 else "test/good" if number < 9 else "test/broken")
    decoding.write_png(folder / f"{number}.png", np.full((8, 8, 1), number / 12), 0.0, 1.0)
  config = config_of("dense", "folder")
  config.data.path, config.model.latent = str(tmp_path), 2
  (hint,) = (remark for remark in setup.build_experiment(config, 1).remarks if "one_class" in remark)
  assert "3 test examples have classes that no training example has: broken;" in hint
  assert hint.endswith("add --config.data.one_class=good")


def test_classes_that_a_drawn_training_set_lacks_are_not_named(tmp_path):
  labels = np.arange(30)  # each class has one example
  np.savez(tmp_path / "x.npz", x_train=np.random.default_rng(0).random((30, 6)), y_train=labels)
  config = config_of("dense", "npz")
  config.data.path, config.model.latent = str(tmp_path / "x.npz"), 2
  experiment = setup.build_experiment(config, 1)
  assert len(experiment.dataset.classes_of_test_only)
  assert not [remark for remark in experiment.remarks if "one_class" in remark]


@pytest.mark.parametrize(("share", "values", "count"), [(0.05, 1, 2), (0.5, 1, 0), (0.05, 3, 2)])
def test_windows_that_look_like_anomalies_are_named_without_one_class(tmp_path, share, values, count):
  """Only if most steps have the same label."""
  labels = np.zeros(1000, int)
  labels[900 : 900 + int(200 * share)] = values  # the last fifth is the test recording
  np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((1000, 2)), y=labels)
  config = config_of("dense", "npz")
  config.data.update({"path": str(tmp_path / "x.npz"), "window": 8, "x": "x", "y": "y"})
  config.model.latent = 2
  experiment = setup.build_experiment(config, 1)
  found = [remark for remark in experiment.remarks if "config.data.one_class=0" in remark]
  assert len(found) == (1 if count else 0)
  assert experiment.dataset.unset_anomalies == count
  config.data.one_class = 0
  assert setup.build_experiment(config, 1).dataset.unset_anomalies == 0


def test_accumulate_above_the_number_of_examples_is_refused(tiny):
  tiny.batch_size = tiny.accumulate = 5000
  with pytest.raises(setup.errors.UserError, match=r"^config.accumulate=5000: must be at most 1438, the number of"):
    setup.build_experiment(tiny, 1)


def test_the_config_of_an_experiment_has_the_stages_and_path_that_follow_from_the_data(tmp_path):
  np.savez(tmp_path / "a.npz", x_train=np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8))
  config = config_of("cnn", "npz")
  config.data.path = str(tmp_path / "a.npz")
  resolved = setup.build_experiment(config, 1).config
  assert config.model.channels == ()
  assert configs.differences(configs.as_json(config), configs.as_json(resolved)) == [
    "model.channels ([], now [16, 32])",
    "model.linear_path ('auto', now 'pca')",
  ]
  config.model.channels, config.model.linear_path = (4, 8), "pca"
  assert setup.build_experiment(config, 1).config is config

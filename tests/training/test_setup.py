"""A config and the data set that it names become one schedule."""

import pytest

from ae_jax.models import memory
from ae_jax.sweep import grid
from ae_jax.training import setup

pytestmark = pytest.mark.runs_optax


def plans(config, batch_size):
  """The schedule of a run of this batch size on two devices, and that of a member of a sweep."""
  config.batch_size = batch_size
  run = setup.of(config, 2)
  assert run.config.batch_size == batch_size  # config.json has what was asked for
  (member,) = grid.members(config, ["seed"], [(0,)])
  return run.batch_schedule, member.experiment.batch_schedule


def test_a_batch_is_at_most_the_training_set(tiny):
  size = len(setup.of(tiny, 1).dataset.train)
  whole = plans(tiny, size)
  assert plans(tiny, 5 * size) == plans(tiny, 2**31 - 1) == whole
  assert [(schedule.steps, schedule.padded_batch_size) for schedule in whole] == [(1, size), (1, size)]
  assert plans(tiny, size - 1) != whole


def test_the_memory_of_a_batch_is_that_of_the_training_set_at_most(tiny, monkeypatch):
  rows = []
  monkeypatch.setattr(memory, "check", lambda model, objective, optimizer, count, shards: rows.append(count))
  tiny.batch_size = 2**31 - 1
  experiment = setup.of(tiny, 2)
  setup.check_memory(experiment, 2)
  assert rows == [len(experiment.dataset.train) // 2]


def test_a_batch_has_no_more_parts_than_examples(tiny):
  tiny.batch_size = tiny.accumulate = 5000
  with pytest.raises(setup.errors.UserError, match=r"^config.accumulate=5000: must be at most the 1438 training"):
    setup.of(tiny, 1)

"""Keys and data feed of a run: where randomness starts and where training continues."""

import types

import jax
import made_contexts
import numpy as np
import pytest

from ae_jax.data import batch_schedule
from ae_jax.training import compiled_stage

PLAN = batch_schedule.BatchSchedule(examples=23, batch_size=3, devices=2, seed=5)


def described_as(**dataset):
  """The parts of an `experiment.Experiment` that feed a run."""
  return types.SimpleNamespace(
    dataset=types.SimpleNamespace(**dataset), model=made_contexts.fake_model(), batch_schedule=PLAN
  )


def bits(key):
  return tuple(jax.random.key_data(key).tolist())


def test_initialisation_and_noise_have_keys_of_their_own_that_follow_the_seed():
  keys = {bits(key) for seed in (0, 1, 2) for key in compiled_stage.keys(seed)}
  assert len(keys) == 6
  assert [bits(key) for key in compiled_stage.keys(7)] == [bits(key) for key in compiled_stage.keys(7)]


@pytest.mark.parametrize("streams", [False, True])
def test_a_feed_that_continues_at_a_chunk_is_the_rest_of_the_whole_feed(monkeypatch, streams):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 3)
  experiment = described_as(streams=streams, train=np.arange(23, dtype=np.int32)[:, None])
  numbers = lambda rows: rows["x"] if streams else rows
  last = 3 * PLAN.chunks_per_epoch
  assert PLAN.chunks_per_epoch == 3
  feed = lambda first, last: list(compiled_stage.feed(experiment, slice(None), first, last))
  whole = feed(0, last)
  assert len(whole) == last
  for epoch in range(3):
    chunks = whole[3 * epoch : 3 * epoch + 3]
    seen = np.concatenate([numbers(rows).reshape(weights.shape)[weights > 0] for rows, weights in chunks])
    assert sorted(seen) == list(range(23))
  for first in range(last):
    rest = feed(first, last)
    assert len(rest) == last - first
    for (rows, weights), (other_rows, other_weights) in zip(rest, whole[first:], strict=True):
      np.testing.assert_array_equal(numbers(rows), numbers(other_rows))
      np.testing.assert_array_equal(weights, other_weights)


def test_processes_are_fed_their_own_columns():
  experiment = described_as(streams=False)
  columns = [slice(0, 2), slice(2, 4)]
  parts = [list(compiled_stage.feed(experiment, own, 0, PLAN.chunks_per_epoch)) for own in columns]
  for (left, left_weights), (right, right_weights), (rows, weights) in zip(*parts, PLAN.chunks(0), strict=True):
    np.testing.assert_array_equal(np.concatenate([left, right], 1), rows)
    np.testing.assert_array_equal(np.concatenate([left_weights, right_weights], 1), weights)

"""Random keys and data feed of a run."""

import types

import jax
import made_contexts
import numpy as np
import pytest

from ae_jax.data import batch_schedule
from ae_jax.training import device_arrays

BATCH_SCHEDULE = batch_schedule.BatchSchedule(examples=23, batch_size=3, devices=2, seed=5)


def fake_experiment(**dataset):
  """The parts of a `setup.Experiment` that `feed` reads."""
  return types.SimpleNamespace(
    dataset=types.SimpleNamespace(columns={}, **dataset),
    model=made_contexts.fake_model(),
    batch_schedule=BATCH_SCHEDULE,
  )


def bits(key):
  return tuple(jax.random.key_data(key).tolist())


def test_keys_of_initialisation_and_noise_differ_and_depend_on_the_seed():
  keys = {bits(key) for seed in (0, 1, 2) for key in device_arrays.keys(seed)}
  assert len(keys) == 6
  assert [bits(key) for key in device_arrays.keys(7)] == [bits(key) for key in device_arrays.keys(7)]


@pytest.mark.parametrize("streams", [False, True])
def test_resumed_feed_equals_the_rest_of_the_whole_feed(monkeypatch, streams):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 3)
  experiment = fake_experiment(streams=streams, train=np.arange(23, dtype=np.int32)[:, None])
  numbers = lambda rows: rows["x"] if streams else rows
  last = 3 * BATCH_SCHEDULE.chunks_per_epoch
  assert BATCH_SCHEDULE.chunks_per_epoch == 3
  feed = lambda first, last: list(device_arrays.feed(experiment, slice(None), first, last))
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


def test_each_process_receives_its_positions_of_the_batches():
  experiment = fake_experiment(streams=False)
  positions = [slice(0, 2), slice(2, 4)]
  parts = [list(device_arrays.feed(experiment, own, 0, BATCH_SCHEDULE.chunks_per_epoch)) for own in positions]
  for (left, left_weights), (right, right_weights), (rows, weights) in zip(
    *parts, BATCH_SCHEDULE.chunks(0), strict=True
  ):
    np.testing.assert_array_equal(np.concatenate([left, right], 1), rows)
    np.testing.assert_array_equal(np.concatenate([left_weights, right_weights], 1), weights)

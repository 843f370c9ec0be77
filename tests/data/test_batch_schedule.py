import numpy as np
import pytest
from hypothesis import given, settings, strategies

from ae_jax.data import batch_schedule


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  examples=strategies.integers(1, 3000),
  batch_size=strategies.integers(1, 300),
  devices=strategies.sampled_from([1, 2, 8]),
  row_bytes=strategies.sampled_from([1, 2**21, 2**26, 2**30]),
)
def test_each_epoch_contains_each_example_once_in_batches_of_nearly_equal_size(
  examples, batch_size, devices, row_bytes
):
  schedule = batch_schedule.BatchSchedule(examples, min(batch_size, examples), devices, seed=3, row_bytes=row_bytes)
  indices, weights = schedule.batches(1)
  assert indices.shape == weights.shape == (schedule.steps, schedule.padded_batch_size)
  assert sorted(indices[weights == 1]) == list(range(examples))
  sizes = weights.sum(1)
  assert sizes.max() - sizes.min() <= 1
  assert sizes.min() >= 1
  assert sizes.max() <= schedule.batch_size <= schedule.padded_batch_size < schedule.batch_size + devices
  assert schedule.padded_batch_size % devices == 0
  assert schedule.steps == schedule.chunks_per_epoch * schedule.chunk
  assert schedule.chunk <= batch_schedule.LONGEST_CHUNK
  assert schedule.chunk == 1 or schedule.chunk * schedule.batch_size * row_bytes <= batch_schedule.CHUNK_BYTES


def test_steps_and_chunks_of_typical_sizes():
  mnist = batch_schedule.BatchSchedule(60_000, 128, 1, seed=0)
  assert (mnist.steps, mnist.chunk) == (
    472,
    59,
  )  # 469 batches would suffice, but 469 is not a multiple of a suitable chunk
  assert batch_schedule.BatchSchedule(4_000, 128, 1, seed=0).steps == 32


def test_order_depends_on_seed_and_epoch_only():
  schedule = batch_schedule.BatchSchedule(500, 32, 1, seed=0)
  again = batch_schedule.BatchSchedule(500, 32, 1, seed=0)
  np.testing.assert_array_equal(schedule.batches(4)[0], again.batches(4)[0])
  assert (schedule.batches(4)[0] != schedule.batches(5)[0]).any()
  assert (schedule.batches(4)[0] != batch_schedule.BatchSchedule(500, 32, 1, seed=1).batches(4)[0]).any()
  wide = batch_schedule.BatchSchedule(500, 32, 8, seed=0)
  np.testing.assert_array_equal(schedule.batches(4)[0], wide.batches(4)[0])


def test_orders_differ_for_all_pairs_of_seed_and_epoch():
  """A seed of seed + epoch would fail: the orders of one run would be those of another, shifted by epochs."""
  orders = [batch_schedule.BatchSchedule(50, 7, 1, seed).batches(epoch)[0] for seed in range(6) for epoch in range(6)]
  assert len({order.tobytes() for order in orders}) == 36


def test_mean_position_of_each_example_is_uniform_over_epochs():
  """The mean must agree with that of a uniform distribution within 4 standard errors."""
  schedule = batch_schedule.BatchSchedule(100, 10, 1, seed=0)
  positions = np.array([np.argsort(schedule.batches(epoch)[0].ravel()) for epoch in range(200)])
  assert np.abs(positions.mean(0) - 49.5).max() < 4 * np.sqrt((100**2 - 1) / 12 / 200)


@pytest.mark.parametrize(("examples", "batch_size", "devices"), [(10, 4, 1), (10, 64, 1), (7, 3, 8), (1, 1, 1)])
def test_evaluation_visits_all_examples_once_in_order(examples, batch_size, devices):
  indices, weights = batch_schedule.evaluation_batches(examples, batch_size, devices)
  assert indices[weights == 1].tolist() == list(range(examples))
  assert indices.shape[1] % devices == 0
  assert indices.shape[1] < min(batch_size, examples) + devices  # padding costs computation

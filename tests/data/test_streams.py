import contextlib
import threading
import time

import numpy as np
import pytest

from ae_jax import errors
from ae_jax.data import batch_schedule, lazy_arrays, streams

BYTES = np.random.default_rng(0).integers(0, 256, (203, 3, 2, 3), np.uint8)
FLOATS = np.random.default_rng(1).normal(size=(150, 7, 1)).astype(np.float32)


def recorded(examples):
  """Returns a LazyArray of the examples, and the list of the row indices that are read."""
  log = []

  def read(indices):
    log.extend(indices.tolist())
    return examples[indices]

  return lazy_arrays.LazyArray(examples.shape, examples.dtype, read), log


def scheduled(schedule, chunk):
  """Returns the indices and weights of a chunk of the run."""
  epoch, position = divmod(chunk, schedule.steps // schedule.chunk)
  return schedule.chunks(epoch)[position]


def grain_threads():
  return [thread for thread in threading.enumerate() if "grain" in thread.name]


def wait_for_threads_to_end():
  deadline = time.monotonic() + 10
  while grain_threads() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not grain_threads()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
  ("examples", "batch_size", "devices", "seed", "first", "positions"),
  [
    (BYTES, 2, 1, 0, 0, slice(None)),
    (BYTES, 2, 1, 1, 3, slice(1)),
    (BYTES, 3, 8, 2, 1, slice(4, 8)),
    (BYTES, 64, 8, 0, 2, np.array([5, 0, 63])),
    (FLOATS, 150, 1, 3, 5, slice(None)),
    (FLOATS, 1, 4, 0, 1, slice(None)),
  ],
)
def test_streamed_chunks_equal_gathered_rows(examples, batch_size, devices, seed, first, positions, lazy):
  schedule = batch_schedule.BatchSchedule(len(examples), batch_size, devices, seed)
  flat = examples.reshape(len(examples), -1)
  streamed = streams.chunks({"x": recorded(examples)[0] if lazy else examples}, schedule, first, first + 4, positions)
  for chunk, (read, weights) in enumerate(streamed, first):
    (rows,) = read.values()
    expected_rows, expected_weights = scheduled(schedule, chunk)
    assert rows.dtype == examples.dtype
    np.testing.assert_array_equal(rows, flat[expected_rows[:, positions]])
    np.testing.assert_array_equal(weights, expected_weights[:, positions])
    assert weights.dtype == np.float32
  assert chunk == first + 3


@pytest.mark.parametrize("start", [1, 2, 3, 6, 7])
def test_resumed_stream_equals_the_rest_of_a_full_stream(start):
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=4)
  whole = list(streams.chunks({"x": BYTES}, schedule, 0, 7))
  for early, late in zip(whole[start:], streams.chunks({"x": BYTES}, schedule, start, 7), strict=True):
    np.testing.assert_array_equal(early[0]["x"], late[0]["x"])
    np.testing.assert_array_equal(early[1], late[1])


def test_processes_read_disjoint_rows_that_cover_the_epoch_once():
  schedule = batch_schedule.BatchSchedule(len(BYTES), 8, 4, seed=0)
  all_rows = []
  for process in range(4):
    positions = slice(2 * process, 2 * process + 2)
    lazy, log = recorded(BYTES)
    list(streams.chunks({"x": lazy}, schedule, 0, 1, positions))
    indices, weights = scheduled(schedule, 0)
    own_rows = indices[:, positions][weights[:, positions] == 1]
    padding = (weights[:, positions] == 0).any(1).sum()
    assert sorted(log) == sorted([*own_rows, *[0] * (len(log) - len(own_rows))])
    assert len(log) - len(own_rows) <= padding  # padding reads row 0 once per batch
    all_rows.extend(own_rows)
  assert sorted(all_rows) == list(range(len(BYTES)))


@pytest.mark.parametrize("limit", [1, 500, 2**28])
def test_prefetching_is_limited(limit, monkeypatch):
  monkeypatch.setattr(streams, "PREFETCHED_BYTES", limit)
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  lazy, log = recorded(BYTES)
  with contextlib.closing(streams.chunks({"x": lazy}, schedule, 0, 1000)) as streamed:
    next(streamed)
    time.sleep(0.2)
    ahead = max(1, min(limit // (2 * 18), 2 * schedule.chunk))
    assert 2 * schedule.chunk - 1 <= len(log) <= 2 * (schedule.chunk + ahead)


def test_order_is_computed_once_per_epoch(monkeypatch):
  computed, batches = [], batch_schedule.BatchSchedule.batches
  monkeypatch.setattr(
    batch_schedule.BatchSchedule, "batches", lambda schedule, epoch: computed.append(epoch) or batches(schedule, epoch)
  )
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  assert schedule.steps // schedule.chunk == 2
  list(streams.chunks({"x": BYTES}, schedule, 1, 7))
  assert computed == [0, 1, 2, 3]


def test_threads_end_with_an_exhausted_or_closed_stream():
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  list(streams.chunks({"x": BYTES}, schedule, 0, 2))
  wait_for_threads_to_end()
  with contextlib.closing(streams.chunks({"x": BYTES}, schedule, 0, 100)) as streamed:
    next(streamed)
    assert grain_threads()
  wait_for_threads_to_end()


@pytest.mark.parametrize("first", [0, 1])
def test_reading_errors_pass_unchanged(first):
  def read(numbers):
    if 100 in numbers:
      raise errors.UserError("photos/100.png: not a readable image")
    return BYTES[numbers]

  schedule = batch_schedule.BatchSchedule(len(BYTES), 8, 1, seed=0)
  with pytest.raises(errors.UserError) as refusal:
    list(streams.chunks({"x": lazy_arrays.LazyArray(BYTES.shape, BYTES.dtype, read)}, schedule, first, first + 1))
  assert str(refusal.value) == "photos/100.png: not a readable image"  # Grain adds a note only
  wait_for_threads_to_end()

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
  """The same as lazy rows, and the list of the numbers that are read of them."""
  asked = []

  def read(numbers):
    asked.extend(numbers.tolist())
    return examples[numbers]

  return lazy_arrays.LazyArray(examples.shape, examples.dtype, read), asked


def pointed_at(schedule, chunk):
  """Indices and weights of a chunk of the run."""
  epoch, place = divmod(chunk, schedule.steps // schedule.chunk)
  return schedule.chunks(epoch)[place]


def still_reading():
  return [thread for thread in threading.enumerate() if "grain" in thread.name]


def wait_for_silence():
  deadline = time.monotonic() + 10
  while still_reading() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not still_reading()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
  ("examples", "batch_size", "devices", "seed", "first", "columns"),
  [
    (BYTES, 2, 1, 0, 0, slice(None)),
    (BYTES, 2, 1, 1, 3, slice(1)),
    (BYTES, 3, 8, 2, 1, slice(4, 8)),
    (BYTES, 64, 8, 0, 2, np.array([5, 0, 63])),
    (FLOATS, 150, 1, 3, 5, slice(None)),
    (FLOATS, 1, 4, 0, 1, slice(None)),
  ],
)
def test_what_streams_is_what_memory_would_have_gathered(examples, batch_size, devices, seed, first, columns, lazy):
  schedule = batch_schedule.BatchSchedule(len(examples), batch_size, devices, seed)
  flat = examples.reshape(len(examples), -1)
  streamed = streams.chunks({"x": recorded(examples)[0] if lazy else examples}, schedule, first, first + 4, columns)
  for chunk, (read, weights) in enumerate(streamed, first):
    (found,) = read.values()
    wanted_rows, wanted_weights = pointed_at(schedule, chunk)
    assert found.dtype == examples.dtype
    np.testing.assert_array_equal(found, flat[wanted_rows[:, columns]])
    np.testing.assert_array_equal(weights, wanted_weights[:, columns])
    assert weights.dtype == np.float32
  assert chunk == first + 3


@pytest.mark.parametrize("start", [1, 2, 3, 6, 7])
def test_a_stream_that_begins_late_is_the_rest_of_one_that_began_early(start):
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=4)
  whole = list(streams.chunks({"x": BYTES}, schedule, 0, 7))
  for early, late in zip(whole[start:], streams.chunks({"x": BYTES}, schedule, start, 7), strict=True):
    np.testing.assert_array_equal(early[0]["x"], late[0]["x"])
    np.testing.assert_array_equal(early[1], late[1])


def test_each_process_reads_its_own_rows_and_all_together_the_epoch_once():
  schedule = batch_schedule.BatchSchedule(len(BYTES), 8, 4, seed=0)
  together = []
  for process in range(4):
    columns = slice(2 * process, 2 * process + 2)
    lazy, asked = recorded(BYTES)
    list(streams.chunks({"x": lazy}, schedule, 0, 1, columns))
    indices, weights = pointed_at(schedule, 0)
    mine = indices[:, columns][weights[:, columns] == 1]
    padding = (weights[:, columns] == 0).any(1).sum()
    assert sorted(asked) == sorted([*mine, *[0] * (len(asked) - len(mine))])
    assert len(asked) - len(mine) <= padding  # row 0, once a batch
    together.extend(mine)
  assert sorted(together) == list(range(len(BYTES)))


@pytest.mark.parametrize("limit", [1, 500, 2**28])
def test_so_much_is_read_ahead_and_no_more(limit, monkeypatch):
  monkeypatch.setattr(streams, "PREFETCHED_BYTES", limit)
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  lazy, asked = recorded(BYTES)
  with contextlib.closing(streams.chunks({"x": lazy}, schedule, 0, 1000)) as streamed:
    next(streamed)
    time.sleep(0.2)
    ahead = max(1, min(limit // (2 * 18), 2 * schedule.chunk))
    assert 2 * schedule.chunk - 1 <= len(asked) <= 2 * (schedule.chunk + ahead)


def test_an_order_is_computed_once_an_epoch(monkeypatch):
  computed, batches = [], batch_schedule.BatchSchedule.batches
  monkeypatch.setattr(
    batch_schedule.BatchSchedule, "batches", lambda schedule, epoch: computed.append(epoch) or batches(schedule, epoch)
  )
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  assert schedule.steps // schedule.chunk == 2
  list(streams.chunks({"x": BYTES}, schedule, 1, 7))
  assert computed == [0, 1, 2, 3]


def test_threads_end_with_the_stream_however_it_ends():
  schedule = batch_schedule.BatchSchedule(len(BYTES), 2, 1, seed=0)
  list(streams.chunks({"x": BYTES}, schedule, 0, 2))
  wait_for_silence()
  with contextlib.closing(streams.chunks({"x": BYTES}, schedule, 0, 100)) as streamed:
    next(streamed)
    assert still_reading()
  wait_for_silence()


@pytest.mark.parametrize("first", [0, 1])
def test_what_reading_raises_comes_out_as_it_is(first):
  def read(numbers):
    if 100 in numbers:
      raise errors.UserError("photos/100.png: not a readable image")
    return BYTES[numbers]

  schedule = batch_schedule.BatchSchedule(len(BYTES), 8, 1, seed=0)
  with pytest.raises(errors.UserError) as refusal:
    list(streams.chunks({"x": lazy_arrays.LazyArray(BYTES.shape, BYTES.dtype, read)}, schedule, first, first + 1))
  assert str(refusal.value) == "photos/100.png: not a readable image"  # beside which Grain leaves a note
  wait_for_silence()

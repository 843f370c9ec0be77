import contextlib
import threading
import time

import numpy as np
import pytest

from ae_jax import errors
from ae_jax.data import epochs, rows, streams

BYTES = np.random.default_rng(0).integers(0, 256, (203, 3, 2, 3), np.uint8)
FLOATS = np.random.default_rng(1).normal(size=(150, 7, 1)).astype(np.float32)


def recorded(examples):
  """The same as lazy rows, and the list of the numbers that are read of them."""
  asked = []

  def read(numbers):
    asked.extend(numbers.tolist())
    return examples[numbers]

  return rows.Rows(examples.shape, examples.dtype, read), asked


def pointed_at(plan, chunk):
  """Indices and weights of a chunk of the run."""
  epoch, place = divmod(chunk, plan.steps // plan.chunk)
  return plan.chunks(epoch)[place]


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
  plan = epochs.Epochs(len(examples), batch_size, devices, seed)
  flat = examples.reshape(len(examples), -1)
  streamed = streams.chunks({"x": recorded(examples)[0] if lazy else examples}, plan, first, first + 4, columns)
  for chunk, (read, weights) in enumerate(streamed, first):
    (found,) = read.values()
    wanted_rows, wanted_weights = pointed_at(plan, chunk)
    assert found.dtype == examples.dtype
    np.testing.assert_array_equal(found, flat[wanted_rows[:, columns]])
    np.testing.assert_array_equal(weights, wanted_weights[:, columns])
    assert weights.dtype == np.float32
  assert chunk == first + 3


@pytest.mark.parametrize("start", [1, 2, 3, 6, 7])
def test_a_stream_that_begins_late_is_the_rest_of_one_that_began_early(start):
  plan = epochs.Epochs(len(BYTES), 2, 1, seed=4)
  whole = list(streams.chunks({"x": BYTES}, plan, 0, 7))
  for early, late in zip(whole[start:], streams.chunks({"x": BYTES}, plan, start, 7), strict=True):
    np.testing.assert_array_equal(early[0]["x"], late[0]["x"])
    np.testing.assert_array_equal(early[1], late[1])


def test_each_process_reads_its_own_rows_and_all_together_the_epoch_once():
  plan = epochs.Epochs(len(BYTES), 8, 4, seed=0)
  together = []
  for process in range(4):
    columns = slice(2 * process, 2 * process + 2)
    lazy, asked = recorded(BYTES)
    list(streams.chunks({"x": lazy}, plan, 0, 1, columns))
    indices, weights = pointed_at(plan, 0)
    mine = indices[:, columns][weights[:, columns] == 1]
    padding = (weights[:, columns] == 0).any(1).sum()
    assert sorted(asked) == sorted([*mine, *[0] * (len(asked) - len(mine))])
    assert len(asked) - len(mine) <= padding  # row 0, once a batch
    together.extend(mine)
  assert sorted(together) == list(range(len(BYTES)))


@pytest.mark.parametrize("limit", [1, 500, 2**28])
def test_so_much_is_read_ahead_and_no_more(limit, monkeypatch):
  monkeypatch.setattr(streams, "PREFETCHED_BYTES", limit)
  plan = epochs.Epochs(len(BYTES), 2, 1, seed=0)
  lazy, asked = recorded(BYTES)
  with contextlib.closing(streams.chunks({"x": lazy}, plan, 0, 1000)) as streamed:
    next(streamed)
    time.sleep(0.2)
    ahead = max(1, min(limit // (2 * 18), 2 * plan.chunk))
    assert 2 * plan.chunk - 1 <= len(asked) <= 2 * (plan.chunk + ahead)


def test_an_order_is_computed_once_an_epoch(monkeypatch):
  computed, batches = [], epochs.Epochs.batches
  monkeypatch.setattr(epochs.Epochs, "batches", lambda plan, epoch: computed.append(epoch) or batches(plan, epoch))
  plan = epochs.Epochs(len(BYTES), 2, 1, seed=0)
  assert plan.steps // plan.chunk == 2
  list(streams.chunks({"x": BYTES}, plan, 1, 7))
  assert computed == [0, 1, 2, 3]


def test_threads_end_with_the_stream_however_it_ends():
  plan = epochs.Epochs(len(BYTES), 2, 1, seed=0)
  list(streams.chunks({"x": BYTES}, plan, 0, 2))
  wait_for_silence()
  with contextlib.closing(streams.chunks({"x": BYTES}, plan, 0, 100)) as streamed:
    next(streamed)
    assert still_reading()
  wait_for_silence()


@pytest.mark.parametrize("first", [0, 1])
def test_what_reading_raises_comes_out_as_it_is(first):
  def read(numbers):
    if 100 in numbers:
      raise errors.UserError("photos/100.png: not a readable image")
    return BYTES[numbers]

  plan = epochs.Epochs(len(BYTES), 8, 1, seed=0)
  with pytest.raises(errors.UserError) as refusal:
    list(streams.chunks({"x": rows.Rows(BYTES.shape, BYTES.dtype, read)}, plan, first, first + 1))
  assert str(refusal.value) == "photos/100.png: not a readable image"  # beside which Grain leaves a note
  wait_for_silence()

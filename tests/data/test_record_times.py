"""Tests of the times of the steps of recordings: texts, usual steps, and pieces between longer steps."""

import numpy as np
import pandas as pd
import pytest

from ae_jax.data import record_times


@pytest.mark.parametrize("days", [0.0, 20_000.5])
def test_times_as_text(days):
  axis = record_times.TimeAxis("t", True)
  assert pd.Timestamp(axis.text(days)) == pd.Timestamp(0) + pd.Timedelta(days=days)
  assert axis.length(1 / 86_400) == "1 s"
  assert axis.length(2.5) == "2.5 days"
  assert axis.length(1.0 + 1e-3 / 86_400 - 1.0) == "1 ms"
  assert axis.text(0.001 / 86_400) == "1970-01-01 00:00:00.001"
  assert record_times.TimeAxis("t", False).text(12.5) == "t=12.5"


def test_pieces_end_before_steps_that_are_longer_and_at_the_ends_of_recordings():
  times = np.array([0, 1, 2, 4, 5, 7, 0, 1, 1, 3.0])
  assert record_times.pieces(times, (6, 4), 1.5) == [(3, 2, 1), (3, 1)]
  assert record_times.pieces(times, (6, 4), 2.0) == [(6,), (4,)]
  assert record_times.pieces(times, (6, 4), 0.0) == record_times.pieces(None, (6, 4), 1.5) == [(6,), (4,)]
  assert record_times.usual_step(times, (6, 4)) == 1.0
  assert record_times.usual_step(np.zeros(3), (3,)) == 0.0


def test_dates_that_are_a_multiple_of_the_usual_step_apart_are_not_longer():
  days = 20_000 + np.array([0, 1, 2, 4, 5, 9, 10]) / 86_400
  longest = 2 * record_times.usual_step(days, (7,))
  assert record_times.pieces(days, (7,), longest) == [(5, 2)]


def test_times_are_regular_if_most_steps_are_nearly_equal():
  times = np.arange(40.0).reshape(4, 10) + np.random.default_rng(0).uniform(-0.04, 0.04, (4, 10))
  times[2, 5:] += 7
  assert record_times.are_regular(times)
  assert not record_times.are_regular(np.cumsum(np.random.default_rng(0).uniform(0, 2, (4, 10)), 1))
  assert not record_times.are_regular(np.zeros((4, 10)))

"""Do damaged files of data, archives and images, load as a right data set, or end in one clear line?

Each case (see `damages` and `damaged_images`) goes through `data.load` whole and as a stream. Nothing in it may be
unpickled or run, nor may memory be taken that the files merely claim.
"""

import os
import pathlib
import resource
import tempfile
import warnings
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from ae_jax import data
from ae_jax.data import lazy_arrays, ranges
from experiments.endurance import damaged_images, damages, ingredients, watch

SECONDS = 30.0  # of a case
MEMORY = 2**30  # bytes that a case may take
BUDGET = 0.25  # GiB, that the data are told there are
PLACEMENTS = ("auto", "stream")


def run(count, seed):
  """Judges `count` damaged files or folders: plain results, violations among them."""
  tally, mark = watch.Tally(), pathlib.Path(ingredients.Explosive.MARK)
  mark.unlink(missing_ok=True)
  kinds = st.sampled_from([*damages.ARRAYS, *damaged_images.IMAGES])

  def judge(case):
    damage, number, placement, value_range = case
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"AE_JAX_CACHE": f"{folder}/cache"}):
      place, generator = pathlib.Path(folder) / "data", np.random.default_rng(number)
      outcome, line = judged(damage, place, generator, placement, value_range)
    outcome = "unpickled" if mark.exists() else outcome
    mark.unlink(missing_ok=True)
    tally.add(outcome, line, [damage.__name__, number, placement, value_range])

  numbers, places = st.integers(0, 2**32 - 1), st.sampled_from(PLACEMENTS)
  with warnings.catch_warnings(action="ignore"):
    watch.explore(st.tuples(kinds, numbers, places, st.sampled_from([*ranges.INTERVALS])), count, seed, judge)
  return tally.results()


def judged(damage, folder, generator, placement, value_range):
  """(outcome, line) of what a damage leaves in a new folder."""
  folder.mkdir()
  name, path = damage(folder, generator)
  before = _peak()
  outcome, line = watch.judge(lambda: loaded(name, path, value_range, placement), SECONDS)
  taken = _peak() - before
  return ("too much memory", f"{taken / 2**20:.0f} MiB: {line}") if taken > MEMORY else (outcome, line)


def loaded(name, path, value_range, placement):
  """Loads and reads all of it: "loaded"; AssertionError unless it is a data set as `data.Dataset` describes it."""
  dataset = data.load(name, path, value_range, placement=placement, budget_gib=BUDGET)
  train, test = (lazy_arrays.read_all(half) for half in (dataset.train, dataset.test))
  assert len(train) >= 2 <= 1 + len(test)
  for half, labels in ((train, dataset.train_labels), (test, dataset.test_labels)):
    assert half.dtype in (np.uint8, np.float32)
    assert half.ndim == (3 if name == "ucr" else 4)
    assert half.shape[1:] == dataset.shape
    assert half.shape[-1] in (1, 3)
    assert ranges.range_error(half, value_range) is None
    assert labels is None or labels.shape == half.shape[:1]
  assert len(dataset.fingerprint()) == 64
  return "loaded"


def _peak():
  """The most memory that this process has had so far, in bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

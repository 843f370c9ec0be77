"""Tests that damaged data files load as a valid data set or are refused with one clear line.

Each case (see `damages`, `damaged_images` and `damaged_tables`) is loaded by `data.load`, in memory or as a stream.
Nothing in the files may be unpickled or executed, and sizes that the files state must not cause allocations.
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
from experiments.endurance import damaged_images, damaged_tables, damages, ingredients, watch

SECONDS = 30.0  # time limit of a case
MEMORY = 2**30  # bytes that a case may allocate
BUDGET = 0.25  # GiB, memory budget passed to `data.load`
PLACEMENTS = ("auto", "stream")
# options of every second case of a source
CONVERTED = {
  "folder": {"size": (5, 4), "channels": 3, "on_bad": "skip"},
  "csv": {"missing": "mean", "scale": "standard"},
  "parquet": {"missing": "mask"},
}
AXES = {"ucr": 3, "csv": 2, "parquet": 2}  # number of axes of the examples; 4 for other sources


def run(count, seed):
  """Tests `count` damaged files or folders; returns results with "violations"."""
  tally, mark = watch.Tally(), pathlib.Path(ingredients.UnpickleDetector.MARK)
  mark.unlink(missing_ok=True)
  kinds = st.sampled_from([*damages.ARRAYS, *damaged_images.IMAGES, *damaged_tables.TABLES])

  def judge(case):
    damage, number, placement, value_range = case
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"AE_JAX_CACHE": f"{folder}/cache"}):
      data_folder, generator = pathlib.Path(folder) / "data", np.random.default_rng(number)
      outcome, line = judged(damage, data_folder, generator, placement, value_range)
    outcome = "unpickled" if mark.exists() else outcome
    mark.unlink(missing_ok=True)
    tally.add(outcome, line, [damage.__name__, number, placement, value_range])

  numbers, placements = st.integers(0, 2**32 - 1), st.sampled_from(PLACEMENTS)
  with warnings.catch_warnings(action="ignore"):
    watch.explore(st.tuples(kinds, numbers, placements, st.sampled_from([*ranges.INTERVALS])), count, seed, judge)
  return tally.results()


def judged(damage, folder, generator, placement, value_range):
  """Loads the files that a function of a module of damages writes, and returns (outcome, line)."""
  folder.mkdir()
  name, path = damage(folder, generator)
  value_range = "real" if name in damaged_tables.SOURCES else value_range
  converted = bool(generator.integers(2))
  before = _peak_bytes()
  outcome, line = watch.judge(lambda: load(name, path, value_range, placement, converted), SECONDS)
  allocated = _peak_bytes() - before
  return ("too much memory", f"{allocated / 2**20:.0f} MiB: {line}") if allocated > MEMORY else (outcome, line)


def load(name, path, value_range, placement, converted=False):
  """Loads and reads a data set and returns "loaded".

  Data are read as stored or, if `converted` is true, with the options `CONVERTED`.

  Raises:
    AssertionError: If the data set is not as `data.Dataset` describes.
  """
  options = CONVERTED.get(name, {}) if converted else {}
  dataset = data.load(name, path, value_range, placement=placement, budget_gib=BUDGET, **options)
  train, test = (lazy_arrays.read_all(split) for split in (dataset.train, dataset.test))
  assert len(train) >= 2 <= 1 + len(test)
  for split, labels in ((train, dataset.train_labels), (test, dataset.test_labels)):
    assert split.dtype in (np.uint8, np.float32)
    assert split.ndim == AXES.get(name, 4)
    assert split.shape[1:] == dataset.shape
    assert ranges.range_error(split, value_range) is None
    assert labels is None or labels.shape == split.shape[:1]
  assert len(dataset.fingerprint()) == 64
  return "loaded"


def _peak_bytes():
  """Returns the peak memory of this process in bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

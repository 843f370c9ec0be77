"""Tests that a modified run folder from an untrusted source either works or is refused with one clear line.

Each case is a copy of a trained run with one to three changes, to keys of config.json or to the bytes of files. It is
loaded by `ae_jax.load`, and the methods of the loaded run are called.
"""

import contextlib
import io
import json
import pathlib
import shutil
import tempfile
import warnings
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from ml_collections import ConfigDict

import ae_jax
from ae_jax import errors
from ae_jax.models import memory
from ae_jax.training import train
from experiments.endurance import cases, config_fuzzer, ingredients, values, watch

TRAINED = ("dense", "vae", "cnn")


def run(count, seed):
  """Tests `count` damaged runs; returns results with "violations"."""
  tally, mark = watch.Tally(), pathlib.Path(ingredients.UnpickleDetector.MARK)
  with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
    folder = pathlib.Path(folder)
    cases.write_data(folder)
    for name in TRAINED:
      with contextlib.redirect_stdout(io.StringIO()):
        train.train_and_evaluate(ConfigDict(cases.shipped(name, folder)), folder / name)

    def judge(case):
      name, changes = case
      damaged = folder / "damaged"
      shutil.copytree(folder / name, damaged)
      descriptions = [change(damaged) for change in changes]
      outcome, line = watch.judge(lambda: use_run(damaged), config_fuzzer.SECONDS)
      tally.add("unpickled" if mark.exists() else outcome, line, {"run": name, "changes": descriptions})
      mark.unlink(missing_ok=True)
      shutil.rmtree(damaged)

    with mock.patch.object(memory, "available_bytes", return_value=config_fuzzer.MEMORY):
      watch.explore(_damaged_runs(folder), count, seed, judge)
  return tally.results()


def use_run(workdir):
  """Loads a run, calls its methods on examples, and returns "numbers"."""
  run = ae_jax.load(workdir)
  x = np.zeros((2, *run.model.shape), np.float32)
  for array in (run.encode(x), run.reconstruct(x), run.decode(run.encode(x)), run.score(x)):
    assert array.dtype == np.float32
    assert len(array) == 2
  return "numbers"


@st.composite
def _damaged_runs(draw, folder):
  """Draws (name of the run, functions that change a folder and return a description of the change)."""
  name = draw(st.sampled_from(TRAINED))
  changes = st.one_of(_key_changes(folder / name), _byte_changes(folder / name))
  return name, draw(st.lists(changes, min_size=1, max_size=3))


@st.composite
def _key_changes(draw, run):
  """Draws a function that changes or deletes a key of config.json."""
  description = json.loads((run / "config.json").read_text(encoding="utf-8"))
  path = draw(st.sampled_from(sorted(cases.paths(description), key=str)))
  value = draw(values.value(path[-1], cases.read(description, path)))
  deleted = draw(st.integers(0, 4)) == 0

  def change(folder):
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # if an earlier change has damaged the file
      stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
      stored = cases.without(stored, path) if deleted else cases.write(stored, path, value)
      (folder / "config.json").write_text(
        json.dumps(stored), encoding="utf-8"
      )  # values that JSON cannot store are skipped
    return f"config.json: {cases.dotted(path)} {'deleted' if deleted else f'= {errors.format_value(value)}'}"

  return change


@st.composite
def _byte_changes(draw, run):
  """Draws a function that damages or deletes a file."""
  file = draw(st.sampled_from(sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())))
  damage, number = draw(st.sampled_from([*ingredients.BYTE_DAMAGES, None])), draw(st.integers(0, 2**32 - 1))

  def change(folder):
    with contextlib.suppress(FileNotFoundError, ValueError):  # the file is deleted or empty
      if damage is None:
        (folder / file).unlink()
      else:
        (folder / file).write_bytes(damage((folder / file).read_bytes(), np.random.default_rng(number)))
    return f"{file} {damage.__name__ if damage else 'deleted'}, {number}"

  return change

"""Does the folder of a stranger's run, whatever is in it, give an error of one line or numbers?

A run is trained once; a case is a copy of it with one to three changes, to a key of config.json or to the bytes of any
of its files, and goes through `ae_jax.load` and the functions that this gives.
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
  """Judges `count` damaged runs: plain results, violations among them."""
  tally, mark = watch.Tally(), pathlib.Path(ingredients.Explosive.MARK)
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
      words = [change(damaged) for change in changes]
      outcome, line = watch.judge(lambda: used(damaged), config_fuzzer.SECONDS)
      tally.add("unpickled" if mark.exists() else outcome, line, {"run": name, "changes": words})
      mark.unlink(missing_ok=True)
      shutil.rmtree(damaged)

    with mock.patch.object(memory, "available", return_value=config_fuzzer.MEMORY):
      watch.explore(_damaged_runs(folder), count, seed, judge)
  return tally.results()


def used(workdir):
  """Loads the run and puts examples through it: "numbers"."""
  run = ae_jax.load(workdir)
  x = np.zeros((2, *run.model.shape), np.float32)
  for array in (run.encode(x), run.reconstruct(x), run.decode(run.encode(x)), run.score(x)):
    assert array.dtype == np.float32
    assert len(array) == 2
  return "numbers"


@st.composite
def _damaged_runs(draw, folder):
  """(name of the run, functions that each change a copy of its folder and say how)."""
  name = draw(st.sampled_from(TRAINED))
  return name, draw(st.lists(st.one_of(_keys(folder / name), _bytes_of(folder / name)), min_size=1, max_size=3))


@st.composite
def _keys(draw, run):
  """A change of a key of config.json, or of one that goes."""
  description = json.loads((run / "config.json").read_text())
  path = draw(st.sampled_from(sorted(cases.paths(description), key=str)))
  value = draw(values.value(path[-1], cases.read(description, path)))
  gone = draw(st.integers(0, 4)) == 0

  def change(folder):
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # of what an earlier change has damaged
      stored = json.loads((folder / "config.json").read_text())
      stored = cases.without(stored, path) if gone else cases.write(stored, path, value)
      (folder / "config.json").write_text(json.dumps(stored))  # of what JSON does not know, nothing comes
    return f"config.json: {cases.dotted(path)} {'deleted' if gone else f'= {errors.format_value(value)}'}"

  return change


@st.composite
def _bytes_of(draw, run):
  """A change of the bytes of a file, or of one that goes."""
  file = draw(st.sampled_from(sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())))
  way, number = draw(st.sampled_from([*ingredients.WAYS, None])), draw(st.integers(0, 2**32 - 1))

  def change(folder):
    with contextlib.suppress(FileNotFoundError, ValueError):  # gone, or empty
      if way is None:
        (folder / file).unlink()
      else:
        (folder / file).write_bytes(way((folder / file).read_bytes(), np.random.default_rng(number)))
    return f"{file} {way.__name__ if way else 'deleted'}, {number}"

  return change

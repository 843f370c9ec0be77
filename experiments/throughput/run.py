"""Compares the training speed of ae_jax with PyTorch, Keras, pythae and Flax's VAE example on the same machine.

  pip install -e '.[benchmark]' && python -m experiments.throughput.run

Measures the predicted and counted cost of a step, its speed, the time to the first step, the memory of an epoch and the
time to a test error. Merges the results into results.json and draws figure.png in this folder. `--results=FILE` stores
the results of another processor apart. `--table` prints the tables of existing results.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the contestants share the device with this process

import jax
import numpy as np

from ae_jax import data
from ae_jax.errors import UserError
from experiments.throughput import figures, measure, peers, problem, tables

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"
PARTS = ("costs", "speed", "start", "race")


def main():
  """Runs the measurements that the flags select and merges them into the results."""
  flags = parse()
  results = (
    json.loads(flags.results.read_text(encoding="utf-8"))
    if flags.results.exists()
    else {"runs": {}, **{part: [] for part in PARTS}}
  )
  if flags.table:
    print(tables.markdown(results))
    return
  contestants = installed(flags.contestants)
  dataset = load()
  if dataset.name != "mnist":
    print("TFDS_DATA_DIR is not set: measuring costs and speed only, on 4,000 images of mnist_5k", flush=True)
    flags.parts = [part for part in flags.parts if part in ("costs", "speed")]
  machine = measure.machine()
  results["runs"][machine["date"]] = machine
  with tempfile.TemporaryDirectory() as folder:
    for part, record in measurements(flags, contestants, dataset, pathlib.Path(folder)):
      print(tables.summary_line(part, record), flush=True)
      merge(results[part], {**record, "run": machine["date"]})
      dates = {record["run"] for name in PARTS for record in results[name]}
      results["runs"] = {date: run for date, run in results["runs"].items() if date in dates}
      flags.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
  if results["speed"] and flags.results.resolve() == RESULTS:
    figures.draw(results, HERE / "figure.png")
  print(tables.markdown(results))


def measurements(flags, contestants, dataset, folder):
  """Yields (part, record) of each measurement; `folder` is for temporary files."""
  train, test, cache = folder / "train.npy", folder / "test.npy", folder / "cache"
  for model in flags.models:
    images = problem.images(model, dataset.train)
    np.save(train, images)
    present = [contestant for contestant in contestants if model in peers.ENTRIES[contestant].models]
    if "costs" in flags.parts:
      yield "costs", measure.costs(model)
    if "speed" in flags.parts:
      batches, turns = problem.batches(model, flags.batches), (flags.rounds, flags.seconds)
      for record in measure.speed(model, batches, present, *turns, train, len(images), cache):
        yield "speed", record
    if "start" in flags.parts:
      for contestant in present:
        yield "start", measure.startup(model, contestant, train, len(images))
  if "race" in flags.parts:
    np.save(train, dataset.train)
    np.save(test, dataset.test)
    for contestant in measure.RACERS:
      if contestant in contestants:
        yield "race", measure.race(contestant, train, test)


def merge(records, new):
  """Appends a record and removes the earlier record of the same measurement."""
  identity = ("model", "contestant", "batch_size")
  records[:] = [old for old in records if any(old.get(key) != new.get(key) for key in identity)] + [new]


def load():
  """Returns MNIST, or mnist_5k if TFDS_DATA_DIR is not set."""
  return data.load("mnist" if os.environ.get("TFDS_DATA_DIR") else "mnist_5k", "", "unit")


def installed(names):
  """Returns the contestants of these names with ae_jax first.

  Raises:
    UserError: If a required package is not installed.
  """
  missing = sorted({package for contestant in names for package in peers.ENTRIES[contestant].missing()})
  if missing:
    raise UserError(f"not installed: {', '.join(missing)}; install the peers by pip install -e '.[benchmark]'")
  return ["ae_jax", *(contestant for contestant in names if contestant != "ae_jax")]


def parse():
  """Returns the parsed flags."""
  on_gpu = jax.default_backend() == "gpu"
  batches = [64, 256, 1024] + ([4096] if on_gpu else [])
  contestants = [name for name, entry in peers.ENTRIES.items() if on_gpu or not entry.only_gpu]
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--table", action="store_true", help="print the tables of the results without measuring")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="file of the results of one processor")
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
  parser.add_argument("--models", nargs="+", choices=problem.MODELS, default=problem.MODELS)
  parser.add_argument("--contestants", nargs="+", choices=peers.ENTRIES, default=contestants, metavar="NAME")
  parser.add_argument("--batches", nargs="+", type=int, default=batches)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--seconds", type=float, default=0.7, help="approximate length of a turn")
  return parser.parse_args()


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(f"experiments.throughput: {error}")

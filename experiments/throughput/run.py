"""How fast does ae_jax train, beside PyTorch, Keras, pythae and Flax's example on the same machine?

  pip install -e '.[benchmark]' && python -m experiments.throughput.run

Measures what a step costs beside what was predicted, its speed, the time to the first step, the memory of an epoch and
the time to a quality; writes results.json and figure.png beside this file. `--table` prints the tables of what was
measured.
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
  """Measures what the flags say and merges it into the results."""
  flags = parse()
  results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}, **{part: [] for part in PARTS}}
  if flags.table:
    print(tables.markdown(results))
    return
  contestants = installed(flags.contestants)
  dataset = load()
  if dataset.name != "mnist":
    print("TFDS_DATA_DIR is not set: 4,000 images of mnist_5k, costs and speed alone", flush=True)
    flags.parts = ["costs", "speed"]
  machine = measure.machine()
  results["runs"][machine["date"]] = machine
  with tempfile.TemporaryDirectory() as folder:
    train, test = (pathlib.Path(folder) / f"{half}.npy" for half in ("train", "test"))
    np.save(train, dataset.train)
    np.save(test, dataset.test)
    for part, record in measured(flags, contestants, train, test, len(dataset.train)):
      print(tables.line(part, record), flush=True)
      merge(results[part], {**record, "run": machine["date"]})
      kept = {record["run"] for name in PARTS for record in results[name]}
      results["runs"] = {date: run for date, run in results["runs"].items() if date in kept}
      RESULTS.write_text(json.dumps(results, indent=1) + "\n")
  if results["speed"]:
    figures.draw(results, HERE / "figure.png")
  print(tables.markdown(results))


def measured(flags, contestants, train, test, examples):
  """Yields (part, record)."""
  for model in flags.models:
    present = [who for who in contestants if model in peers.ENTRIES[who].models]
    if "costs" in flags.parts:
      yield "costs", measure.costs(model)
    if "speed" in flags.parts:
      for record in measure.speed(model, flags.batches, present, flags.rounds, flags.seconds, train, examples):
        yield "speed", record
    if "start" in flags.parts:
      for who in present:
        yield "start", measure.start(model, who, train, examples)
  if "race" in flags.parts:
    for who in measure.RACERS:
      if who in contestants:
        yield "race", measure.race(who, train, test)


def merge(records, new):
  """Puts a record in the place of the one that measured the same, or at the end."""
  same = ("model", "contestant", "batch_size")
  records[:] = [old for old in records if any(old.get(key) != new.get(key) for key in same)] + [new]


def load():
  """MNIST, or the 5,000 images of it that need no preparation."""
  return data.load("mnist" if os.environ.get("TFDS_DATA_DIR") else "mnist_5k", "", "unit")


def installed(names):
  """The contestants of these names, ae_jax first; UserError where a package is missing."""
  missing = sorted({package for who in names for package in peers.ENTRIES[who].missing()})
  if missing:
    raise UserError(
      f"not installed: {', '.join(missing)}; the extra `benchmark` has the peers: pip install -e '.[benchmark]'"
    )
  return ["ae_jax", *(who for who in names if who != "ae_jax")]


def parse():
  """The flags."""
  batches = [64, 256, 1024] + ([4096] if jax.default_backend() == "gpu" else [])
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--table", action="store_true", help="print the tables of results.json and measure nothing")
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
  parser.add_argument("--models", nargs="+", choices=problem.MODELS, default=problem.MODELS)
  parser.add_argument("--contestants", nargs="+", choices=peers.ENTRIES, default=list(peers.ENTRIES), metavar="NAME")
  parser.add_argument("--batches", nargs="+", type=int, default=batches)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--seconds", type=float, default=0.7, help="of a turn, about")
  return parser.parse_args()


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(f"experiments.throughput: {error}")

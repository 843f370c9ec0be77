"""Checks whether the scores of a recording peak at its faults: `python -m experiments.records.run [FAMILY ...]`.

Trains models on windows of a recording of 20,000 steps and 3 channels (sines and noise), scores a second recording with
five faults of 40 steps, and prints for each model how many of the five largest peaks of `run.score_record` lie on a
fault.
"""

import importlib
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import ae_jax
from ae_jax.training import train

STEPS = np.arange(20_000)
FAULTS = {"dropout": 2500, "gain": 6200, "offset": 9900, "noise": 13_600, "frequency": 17_300}  # first steps
LENGTH = 40  # steps of a fault
WINDOW = 100
FAMILIES = ("dense", "cnn", "attention", "sequence")


def record(seed):
  """Returns a recording [20000, 3] without faults."""
  noise = np.random.default_rng(seed).normal(size=(len(STEPS), 3))
  return np.stack([np.sin(STEPS / 8), np.sin(STEPS / 13 + 1), np.sin(STEPS / 8) * np.cos(STEPS / 50)], 1) + 0.1 * noise


def faulty(seed):
  """Returns a recording with the faults in `FAULTS`."""
  x = record(seed)
  parts = {name: slice(first, first + LENGTH) for name, first in FAULTS.items()}
  x[parts["dropout"], 0] = 0.0
  x[parts["gain"], 1] *= 2.0
  x[parts["offset"]] += 1.0
  x[parts["noise"], 2] = np.random.default_rng(seed + 1).normal(size=LENGTH)
  x[parts["frequency"], 0] = np.sin(np.arange(LENGTH) / 3)
  return x


def peaks(scores, count):
  """Returns the steps of the largest scores; peaks are at least a window apart."""
  left, found = np.nan_to_num(scores), []
  for _ in range(count):
    found.append(int(left.argmax()))
    left[max(0, found[-1] - WINDOW) : found[-1] + WINDOW] = 0
  return sorted(found)


def measure(name, path, workdir):
  """Trains a model; returns its results as a dict."""
  config = importlib.import_module(f"configs.{name}").get_config("npy")
  config.data.update(path=str(path), range="real", scale="standard", window=WINDOW, stride=WINDOW // 2)
  config.objective.likelihood = "gaussian"
  config.model.latent, config.batch_size, config.epochs, config.evaluators = 16, 32, 40, ()
  config.eval_every_epochs = config.checkpoint_every_epochs = config.epochs
  if name == "attention":
    config.model.patch = 10
  started = time.perf_counter()
  metrics = train.train_and_evaluate(config, workdir)
  found = peaks(ae_jax.load(workdir).score_record(faulty(1)), len(FAULTS))
  hits = sum(any(first <= step < first + LENGTH for step in found) for first in FAULTS.values())
  kept = {key: metrics[key] for key in ("test/squared_error", "test/pca_squared_error", "images_per_second")}
  return {"model": name, "hits": hits, "peaks": found, "seconds": time.perf_counter() - started, **kept}


def main(names):
  """Prints one line of JSON for each model."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "record.npy")
    np.save(path, record(0))
    for name in names or FAMILIES:
      print(json.dumps(measure(name, path, pathlib.Path(folder, name))), flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])

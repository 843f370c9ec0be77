"""Compares the time of a sweep with a loop of runs, and its predicted memory with the measured memory.

  pip install -e '.[test]' && python -m experiments.sweep.run

The sweep trains six latent sizes x three seeds. Runs the parts named by `--parts` and merges their results into
results.json in this folder:

  time      18 runs as one sweep, as 18 commands with and without evaluators, and as a loop in one process (20 to 40
            minutes on 2 cores)
  products  the matrix products of the sweep alone (half a minute)
  memory    predicted and measured peak memory (a minute)
  full      the README's sweeps on all of MNIST and their figures (an hour; needs MNIST prepared for TensorFlow Datasets
            in $TFDS_DATA_DIR). With --folder, it continues the sweeps in that folder.
"""

import argparse
import csv
import datetime
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from ae_jax.training import train
from experiments.sweep import peaks, products

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"
LATENTS, SEEDS = (2, 4, 8, 16, 32, 64), (0, 1, 2)
GRID = (f"--latents={','.join(map(str, LATENTS))}", f"--seeds={len(SEEDS)}")


def wall_times(folder):
  """Returns the seconds for 18 dense autoencoders on mnist_5k, each way with a cold and a warm compilation cache."""
  seconds = {}
  ways = {
    "one sweep": _sweep,
    "18 processes": functools.partial(_processes, keys=("--config.evaluators=()",)),
    "18 processes as they come": _processes,
    "18 runs in a process": _loop,
  }
  for name, way in ways.items():
    cache = folder / f"cache of {name}"
    for state in ("cold", "warm"):
      start = time.perf_counter()
      way(folder / f"{name} {state}", {**os.environ, "AE_JAX_CACHE": str(cache)})
      seconds[f"{name}, {state} cache"] = round(time.perf_counter() - start, 1)
      print(f"{name}, {state} cache: {seconds[f'{name}, {state} cache']} s", flush=True)
  return seconds


def _sweep(folder, environment):
  _call("ae_jax.sweep", "--config=configs/dense.py", *GRID, f"--workdir={folder}", environment=environment)


def _processes(folder, environment, keys=()):
  """Runs the training command for each member with the additional flags `keys`."""
  for latent in LATENTS:
    for seed in SEEDS:
      flags = (f"--config.model.latent={latent}", f"--config.seed={seed}", f"--workdir={folder}/{latent},{seed}")
      _call("ae_jax.main", "--config=configs/dense.py", *flags, *keys, environment=environment)


def _loop(folder, environment):
  _call("experiments.sweep.run", "--loop", str(folder), environment=environment)


def loop(folder):
  """Trains the 18 members one after the other in this process."""
  from ae_jax import config as configs
  from configs import dense

  for latent in LATENTS:
    for seed in SEEDS:
      config = dense.get_config()
      config.model.latent, config.seed = latent, seed
      config.evaluators = ()  # a sweep does not run evaluators for its members
      configs.check(config.lock())
      train.train_and_evaluate(config, pathlib.Path(folder) / f"{latent},{seed}")


def full(folder):
  """Runs the README's sweeps on all of MNIST and copies their figures to this folder.

  Returns:
    {config: {"seconds", "answer", "members", ...}}.
  """
  results = {}
  for name in ("dense", "cnn"):
    _call("ae_jax.sweep", f"--config=configs/{name}.py:mnist", *GRID, f"--workdir={folder / name}")
    shutil.copy(folder / name / "sweep.png", HERE / f"{name}.png")
    with (folder / name / "sweep.csv").open(encoding="utf-8", newline="") as file:
      members = list(csv.DictReader(file))
    seconds = round(sum(float(member["seconds"]) for member in members))
    results[name] = {
      "seconds": seconds,
      **json.loads((folder / name / "sweep.json").read_text(encoding="utf-8")),
      "members": members,
    }
    print(name, seconds, results[name]["answer"], flush=True)
  return results


def _call(module, *flags, environment=None):
  command = [sys.executable, "-m", module, *flags]
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def matrix_products(folder):
  """Returns the time of the matrix products of all members' steps."""
  del folder
  result = products.lower_bound(len(LATENTS) * len(SEEDS))
  print(result, flush=True)
  return result


PARTS = {"time": wall_times, "products": matrix_products, "memory": peaks.compare, "full": full}


def main():
  """Runs the parts and stores their results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--folder", type=pathlib.Path, help="folder of the sweeps; default: a temporary folder")
  parser.add_argument("--loop", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.loop:
    loop(flags.loop)
    return
  results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
  for part in flags.parts:
    with tempfile.TemporaryDirectory() as folder:
      result = PARTS[part](flags.folder or pathlib.Path(folder))
    results[part] = {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", **result}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()

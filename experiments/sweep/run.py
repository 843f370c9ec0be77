"""What does a sweep cost beside a loop of runs, and is its memory as foretold?

  pip install -e '.[test]' && python -m experiments.sweep.run

Six latent sizes x three seeds. Runs the parts that `--parts` names, prints what they found and merges it into
results.json beside this file: `time` (20 to 40 minutes on 2 cores: as one command, as 18 commands without the analyses
that they make by themselves and with them, and as 18 runs in a process), `products` (half a minute: the part of it that
no program can do without), `memory` (a minute), and `full` (an hour, with MNIST prepared for TensorFlow Datasets in
$TFDS_DATA_DIR: the sweeps of the README on all of MNIST, whose pictures it leaves beside this file; with --folder it
goes on with those that lie there).
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
  """Seconds of 18 dense autoencoders on mnist_5k, each way with an empty cache of compiled programs and a full one."""
  found = {}
  ways = {
    "one sweep": _sweep,
    "18 processes": functools.partial(_processes, keys=("--config.evaluators=()",)),
    "18 processes as they come": _processes,
    "18 runs in a process": _loop,
  }
  for name, way in ways.items():
    cache = folder / f"cache of {name}"
    for state in ("cold", "warm"):
      begun = time.perf_counter()
      way(folder / f"{name} {state}", {**os.environ, "AE_JAX_CACHE": str(cache)})
      found[f"{name}, {state} cache"] = round(time.perf_counter() - begun, 1)
      print(f"{name}, {state} cache: {found[f'{name}, {state} cache']} s", flush=True)
  return found


def _sweep(folder, environment):
  _call("ae_jax.sweep", "--config=configs/dense.py", *GRID, f"--workdir={folder}", environment=environment)


def _processes(folder, environment, keys=()):
  """The command of a run again and again; `keys` without analyses, as a sweep makes none of its members."""
  for latent in LATENTS:
    for seed in SEEDS:
      own = (f"--config.model.latent={latent}", f"--config.seed={seed}", f"--workdir={folder}/{latent},{seed}")
      _call("ae_jax.main", "--config=configs/dense.py", *own, *keys, environment=environment)


def _loop(folder, environment):
  _call("experiments.sweep.run", "--loop", str(folder), environment=environment)


def loop(folder):
  """The 18 runs one after the other in this process."""
  from ae_jax import config as configs
  from configs import dense

  for latent in LATENTS:
    for seed in SEEDS:
      config = dense.get_config()
      config.model.latent, config.seed = latent, seed
      config.evaluators = ()  # as in a sweep, of whose members no analyses are made
      configs.check(config.lock())
      train.train_and_evaluate(config, pathlib.Path(folder) / f"{latent},{seed}")


def full(folder):
  """The README's sweeps on all of MNIST: {config: {"seconds", "answer", "members"}}; their pictures come here."""
  found = {}
  for name in ("dense", "cnn"):
    _call("ae_jax.sweep", f"--config=configs/{name}.py:mnist", *GRID, f"--workdir={folder / name}")
    shutil.copy(folder / name / "sweep.png", HERE / f"{name}.png")
    with (folder / name / "sweep.csv").open() as file:
      members = list(csv.DictReader(file))
    seconds = round(sum(float(member["seconds"]) for member in members))
    found[name] = {"seconds": seconds, **json.loads((folder / name / "sweep.json").read_text()), "members": members}
    print(name, seconds, found[name]["answer"], flush=True)
  return found


def _call(module, *flags, environment=None):
  command = [sys.executable, "-m", module, *flags]
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def floor(folder):
  """What the matrix products of all members' steps take by themselves."""
  del folder
  found = products.floor(len(LATENTS) * len(SEEDS))
  print(found, flush=True)
  return found


PARTS = {"time": wall_times, "products": floor, "memory": peaks.compare, "full": full}


def main():
  """Runs the parts, and stores what they found."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--folder", type=pathlib.Path, help="where the sweeps lie; default: one that is thrown away")
  parser.add_argument("--loop", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.loop:
    loop(flags.loop)
    return
  results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
  for part in flags.parts:
    with tempfile.TemporaryDirectory() as folder:
      found = PARTS[part](flags.folder or pathlib.Path(folder))
    results[part] = {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", **found}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
  main()

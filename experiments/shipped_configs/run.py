"""What do the shipped configs reach, beside PCA with as many numbers?

  TFDS_DATA_DIR=... python -m experiments.shipped_configs.run

Trains every file in configs/ on mnist_5k and on the full MNIST with three seeds, as a user would, each in a process of
its own; a run that is already in runs/shipped_configs is not repeated. Prints the README's table, and writes
results.json and figure.png (the reconstructions of the convolutional autoencoder, full MNIST, seed 0) beside this file.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import ae_jax

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
RUNS = ROOT / "runs" / "shipped_configs"
DATA = ("mnist_5k", "mnist")
SEEDS = (0, 1, 2)
PICTURED = ("cnn", "mnist", 0)


def train(name, data, seed):
  """One run by the command: its folder, and its seconds from start to end (None if it was there already)."""
  workdir = RUNS / f"{name}-{data}-{seed}"
  if (workdir / "pictures" / "curves.png").exists():
    return workdir, None
  command = [sys.executable, "-m", "ae_jax.main", f"--config=configs/{name}.py:{data}", f"--config.seed={seed}"]
  started = time.perf_counter()
  subprocess.run([*command, f"--workdir={workdir}"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
  return workdir, time.perf_counter() - started


def spread(values):
  """The mean of some numbers, and their least and greatest, as a cell of the table."""
  return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
  """Runs what is missing, prints the table, and writes the results."""
  results = []
  for data in DATA:
    for name in sorted(path.stem for path in (ROOT / "configs").glob("*.py")):
      members = []
      for seed in SEEDS:
        workdir, seconds = train(name, data, seed)
        members.append({"seed": seed, "seconds": seconds, **ae_jax.load(workdir).metrics})
      results.append({"config": name, "data": data, "members": members})
      columns = {key: [member[f"test/{key}"] for member in members] for key in ("squared_error", "nats")}
      pca, floor = members[0]["test/pca_squared_error"], members[0]["test/nats_floor"]
      timed = [member["seconds"] for member in members if member["seconds"]]
      took = f"{statistics.median(timed):.0f} s" if timed else ""
      cells = [f"`configs/{name}.py:{data}`", f"{members[0]['epoch']:.0f}", spread(columns["squared_error"])]
      print("|", " | ".join([*cells, f"{pca:.2f}", spread(columns["nats"]), f"{floor:.2f}", took]), "|", flush=True)
  (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
  name, data, seed = PICTURED
  shutil.copy(RUNS / f"{name}-{data}-{seed}" / "pictures" / "reconstructions.png", HERE / "figure.png")


if __name__ == "__main__":
  main()

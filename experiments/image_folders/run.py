"""Measures how fast a folder of JPEG files of mixed size is opened, beside a thread pool over Pillow.

  python -m experiments.image_folders.run
  python -m experiments.image_folders.run --count=1000 --rounds=5

Writes the files to a temporary folder, prints a line for each round, and writes results.json to this folder. The rounds
alternate between the contestants, because other programs may use the machine, and the seconds of the processors are
measured beside the elapsed seconds. Every contestant returns uint8 images of
64x64 pixels. Pillow reads full images as most programs do (`pillow`), or at a reduced scale as ae_jax does
(`pillow, reduced`).
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
SIDE = 64


def write_files(folder, count):
  """Writes JPEG files of 200 to 800 pixels per side, cut from photographs of scikit-learn."""
  from sklearn.datasets import load_sample_images

  photographs = [np.tile(image, (2, 2, 1)) for image in load_sample_images().images]
  generator = np.random.default_rng(0)
  for number in range(count):
    height, width = generator.integers(200, 801, 2)
    photograph = photographs[number % 2]
    top, left = (generator.integers(0, limit) for limit in (854 - height, 1280 - width))
    Image.fromarray(photograph[top : top + height, left : left + width]).save(folder / f"{number:05}.jpg", quality=90)


def with_pillow(folder, reduced):
  """Returns the images, decoded by a thread pool."""

  def decode(file):
    with Image.open(file) as image:
      if reduced:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
      return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return np.stack(list(pool.map(decode, sorted(folder.iterdir()))))


def with_ae_jax(folder):
  """Returns the images of `ae_jax.data.load`, which checks the files and stores the decoded images in the cache."""
  from ae_jax import data

  dataset = data.load("folder", str(folder), "unit", size=(SIDE, SIDE))
  return np.concatenate([dataset.train, dataset.test])


def measure(folder, rounds):
  """Returns {contestant: [elapsed seconds and processor seconds of each round]}."""
  cache = pathlib.Path(os.environ["AE_JAX_CACHE"])
  contestants = {
    "ae_jax": lambda: (shutil.rmtree(cache, ignore_errors=True), with_ae_jax(folder)),
    "ae_jax, cached": lambda: with_ae_jax(folder),
    "pillow": lambda: with_pillow(folder, reduced=False),
    "pillow, reduced": lambda: with_pillow(folder, reduced=True),
  }
  seconds = {name: [] for name in contestants}
  for number in range(rounds):
    for name, contestant in contestants.items():
      start = time.perf_counter(), time.process_time()
      contestant()
      end = time.perf_counter(), time.process_time()
      seconds[name].append([round(after - before, 3) for before, after in zip(start, end, strict=True)])
      print(f"round {number}: {name} {seconds[name][-1][0]} s, {seconds[name][-1][1]} s of processors", flush=True)
  return seconds


def ratio_of(theirs, ours, position):
  """Returns the ratios of the rounds, for one of the two measurements."""
  return [each[position] / own[position] for each, own in zip(theirs, ours, strict=True)]


def main(arguments):
  """Writes the files, measures, and prints the ratios."""
  options = {"count": 10_000, "rounds": 3}
  options |= {key.removeprefix("--"): int(value) for key, _, value in (each.partition("=") for each in arguments)}
  with tempfile.TemporaryDirectory() as parent:
    folder = pathlib.Path(parent, "photographs")
    folder.mkdir()
    os.environ["AE_JAX_CACHE"] = str(pathlib.Path(parent, "cache"))
    write_files(folder, options["count"])
    with_ae_jax(folder)  # imports the library, and the files are then in the page cache for all contestants
    seconds = measure(folder, options["rounds"])
  ratios = {
    f"{name}, {unit}": round(statistics.median(ratio_of(values, seconds["ae_jax"], position)), 3)
    for name, values in seconds.items()
    for position, unit in enumerate(("elapsed", "processors"))
    if name.startswith("pillow")
  }
  print(f"speed of ae_jax relative to each: {ratios}")
  (HERE / "results.json").write_text(
    json.dumps(options | {"seconds": seconds, "ratios": ratios}, indent=1) + "\n", encoding="utf-8"
  )


if __name__ == "__main__":
  main(sys.argv[1:])

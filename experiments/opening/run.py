"""Measures how fast files are opened: a folder of images beside Pillow, and a CSV file beside pandas.

  python -m experiments.opening.run
  python -m experiments.opening.run images --count=400 --rounds=5

Writes the files to a temporary folder, prints a line for each round, and writes results.json to this folder. The rounds
alternate between the contestants, because other programs may use the machine, and the seconds of the processors are
measured beside the elapsed seconds.
"""

import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from experiments.opening import images, table

HERE = pathlib.Path(__file__).parent
TASKS = {"images": images, "table": table}


def measure(task, files, rounds):
  """Returns {contestant: [elapsed seconds and processor seconds of each round]}."""
  cache = pathlib.Path(os.environ["AE_JAX_CACHE"])
  contestants = {
    "ae_jax": lambda files: (shutil.rmtree(cache, ignore_errors=True), task.with_ae_jax(files)),
    "ae_jax, cached": task.with_ae_jax,
    **task.PEERS,
  }
  seconds = {name: [] for name in contestants}
  for number in range(rounds):
    for name, contestant in contestants.items():
      start = time.perf_counter(), time.process_time()
      contestant(files)
      end = time.perf_counter(), time.process_time()
      seconds[name].append([round(after - before, 3) for before, after in zip(start, end, strict=True)])
      print(f"round {number}: {name} {seconds[name][-1][0]} s, {seconds[name][-1][1]} s of processors", flush=True)
  return seconds


def ratio_of(theirs, ours, position):
  """Returns the median ratio of the rounds, for one of the two measurements."""
  return round(statistics.median(each[position] / own[position] for each, own in zip(theirs, ours, strict=True)), 3)


def result_of(name, count, rounds):
  """Writes the files of a task, measures, and returns the seconds and the speed of ae_jax relative to each peer."""
  task = TASKS[name]
  count = count or task.COUNT
  with tempfile.TemporaryDirectory() as parent:
    os.environ["AE_JAX_CACHE"] = str(pathlib.Path(parent, "cache"))
    files = task.write(pathlib.Path(parent), count)
    task.with_ae_jax(files)  # imports the library, and the files are then in the page cache for all contestants
    seconds = measure(task, files, rounds)
  ratios = {
    f"{peer}, {unit}": ratio_of(seconds[peer], seconds["ae_jax"], position)
    for peer in task.PEERS
    for position, unit in enumerate(("elapsed", "processors"))
  }
  print(f"{name}: speed of ae_jax relative to each: {ratios}", flush=True)
  return {"count": count, "rounds": rounds, "seconds": seconds, "ratios": ratios}


def main(arguments):
  """Measures the tasks that are named, or all of them, and stores their results."""
  options = {"count": 0, "rounds": 3}
  flags = [argument for argument in arguments if argument.startswith("--")]
  options |= {key.removeprefix("--"): int(value) for key, _, value in (flag.partition("=") for flag in flags)}
  file = HERE / "results.json"
  results = json.loads(file.read_text(encoding="utf-8"))
  for name in [argument for argument in arguments if argument not in flags] or TASKS:
    results[TASKS[name].RESULT] = result_of(name, **options)
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main(sys.argv[1:])

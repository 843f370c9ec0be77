"""A contestant's process: one model, asked on stdin and answering on stdout, a line of JSON each.

  {"do": "build", "batch_size": 256, "steps": 16}   -> {"parameters": 62481}, after the first call of so many steps
  {"do": "turn", "batch_size": 256, "seconds": 0.7} -> {"images": 4096, "seconds": 0.71}
  {"do": "epoch", "batch_size": 256}                -> {"images": 57344, "seconds": 4.1, "peak_bytes": 512000000}
  {"do": "race", "folder": ...}                     -> {"epochs": [{"error", "seconds", "training_seconds"}]}

Between the turns it is blocked in reading a line. Started as `worker <contestant> <model> <images.npy> <time.time()>`.
"""

import itertools
import json
import os
import pathlib
import sys
import time

import numpy as np

from experiments.throughput import peers, problem


class Worker:
  """The contestants of one library and one model, by batch size, and what they can be asked."""

  def __init__(self, who, model, images, started):
    self.entry, self.model, self.started = peers.ENTRIES[who], model, float(started)
    self.images = np.load(images)
    self.built = {}

  def build(self, batch_size, steps):
    """Builds the contestant of a batch size and trains its first call."""
    contestant = self.entry.build(self.model, batch_size, self.images, steps, False)
    calls = problem.calls(len(self.images), batch_size, steps)
    contestant.train(calls[0])
    self.built[batch_size] = contestant, itertools.cycle(calls), len(calls)
    return {"parameters": contestant.parameters}

  def turn(self, batch_size, seconds):
    """Trains for about so many seconds."""
    contestant, calls, _ = self.built[batch_size]
    done, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
      rows = next(calls)
      contestant.train(rows)
      done += rows.size
    return {"images": done, "seconds": taken}

  def epoch(self, batch_size):
    """Trains an epoch's full calls; the most memory that the process has had."""
    contestant, calls, count = self.built[batch_size]
    done, begun = 0, time.perf_counter()
    for rows in itertools.islice(calls, count):
      contestant.train(rows)
      done += rows.size
    return {"images": done, "seconds": time.perf_counter() - begun, "peak_bytes": _peak_bytes()}

  def race(self, test):
    """Trains the recipe; the test error after each epoch, and the seconds that it took without the evaluations."""
    test = np.load(test)
    contestant = self.entry.build(self.model, problem.RECIPE_BATCH, self.images, 0, True)
    records, evaluating, training = [], 0.0, 0.0
    for number in range(problem.RECIPE_EPOCHS):
      begun = time.perf_counter()
      for arguments in contestant.epoch(number):
        contestant.train(*arguments)
      training += time.perf_counter() - begun
      seconds = time.time() - self.started - evaluating
      begun = time.perf_counter()
      error = contestant.squared_error(test)
      evaluating += time.perf_counter() - begun
      records.append({"error": error, "seconds": seconds, "training_seconds": training})
    return {"epochs": records}


def _peak_bytes():
  """The most memory that this program has had; getrusage would count what its parent had when it started it."""
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main(*arguments):
  """Answers until stdin ends."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # what libraries print goes where their warnings go
  worker = Worker(*arguments)
  for line in sys.stdin:
    request = json.loads(line)
    answer = getattr(worker, request.pop("do"))(**request)
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])

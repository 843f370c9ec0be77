"""The process of a contestant: trains one model on requests. Requests (stdin) and answers (stdout) are lines of JSON.

  {"do": "build", "batch_size": 256, "steps": 16}   -> {"parameters": 62481}, after a first call of 16 steps
  {"do": "turn", "batch_size": 256, "seconds": 0.7} -> {"images": 4096, "seconds": 0.71}
  {"do": "epoch", "batch_size": 256}                -> {"images": 57344, "seconds": 4.1, "peak_bytes": 512000000}
  {"do": "race", "test": "test.npy"}                -> {"epochs": [{"error", "seconds", "training_seconds"}]}

Between requests the process waits for a line and uses no CPU. Arguments: contestant, model, images.npy, start time.
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
  """The contestants of one library and model by batch size. Each public method answers one kind of request."""

  def __init__(self, name, model, images, started):
    self.entry, self.model, self.started = peers.ENTRIES[name], model, float(started)
    self.images = np.load(images)
    self.built = {}

  def build(self, batch_size, steps):
    """Builds the contestant for a batch size and trains its first call."""
    contestant = self.entry.build(self.model, batch_size, self.images, steps, False)
    calls = problem.calls(len(self.images), batch_size, steps)
    contestant.train(calls[0])
    self.built[batch_size] = contestant, itertools.cycle(calls), len(calls)
    return {"parameters": contestant.parameters}

  def turn(self, batch_size, seconds):
    """Trains for about `seconds`."""
    contestant, calls, _ = self.built[batch_size]
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
      rows = next(calls)
      contestant.train(rows)
      images += rows.size
    return {"images": images, "seconds": elapsed}

  def epoch(self, batch_size):
    """Trains the full calls of an epoch and returns the peak memory of the process."""
    contestant, calls, count = self.built[batch_size]
    images, start = 0, time.perf_counter()
    for rows in itertools.islice(calls, count):
      contestant.train(rows)
      images += rows.size
    return {"images": images, "seconds": time.perf_counter() - start, "peak_bytes": _peak_bytes()}

  def race(self, test):
    """Trains the recipe and returns the test error and the seconds after each epoch, without evaluation time."""
    test = np.load(test)
    contestant = self.entry.build(self.model, problem.RECIPE_BATCH, self.images, 0, True)
    records, evaluating, training = [], 0.0, 0.0
    for number in range(problem.RECIPE_EPOCHS):
      start = time.perf_counter()
      for arguments in contestant.epoch(number):
        contestant.train(*arguments)
      training += time.perf_counter() - start
      seconds = time.time() - self.started - evaluating
      start = time.perf_counter()
      error = contestant.squared_error(test)
      evaluating += time.perf_counter() - start
      records.append({"error": error, "seconds": seconds, "training_seconds": training})
    return {"epochs": records}


def _peak_bytes():
  """Returns the peak memory of this process. getrusage would include the memory of the parent at the fork."""
  lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
  return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main(*arguments):
  """Answers requests until stdin is closed."""
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)  # libraries that print to stdout write to stderr instead
  worker = Worker(*arguments)
  for line in sys.stdin:
    request = json.loads(line)
    answer = getattr(worker, request.pop("do"))(**request)
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])

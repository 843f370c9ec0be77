"""Measures the cost of checkpoints: the time that a run waits for them, and the CPU time of the saving threads."""

import dataclasses
import os
import pathlib
import tempfile
import time
from unittest import mock

from ae_jax.runs import checkpoints
from ae_jax.training import train
from configs import cnn

LIMIT = 0.02  # fraction of a run's time
ISOLATED_SAVES = 20  # saves without training beside them


def cost(rounds=4):
  """Trains configs/cnn.py `rounds` times, times its saves, and returns results with "violations".

  The first round is recorded but not judged, because it compiles the checksums.
  """
  shares = []
  for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
      waited, saves = [], []
      start = time.monotonic()
      with _timed_calls("save", waited, saves), _timed_calls("wait", waited, []):
        train.train_and_evaluate(cnn.get_config("mnist_5k"), pathlib.Path(folder) / "run")
      seconds = time.monotonic() - start
      background = len(saves) * _cpu_seconds_per_save(saves[-1], pathlib.Path(folder) / "alone") / os.cpu_count()
      shares.append({"waited": sum(waited) / seconds, "worked_beside": background / seconds})
  violations = [str(share) for share in shares[1:] if sum(share.values()) > LIMIT]
  outcomes = {"shares_of_the_run": shares, "saves": len(saves), "seconds_of_the_run": round(seconds, 1)}
  return {"cases": rounds, "outcomes": outcomes, "violations": violations}


def _timed_calls(name, seconds, calls):
  """Patches a function of `checkpoints` to record the duration and the arguments of each call."""
  function = getattr(checkpoints, name)

  def timed(*arguments):
    calls.append(arguments)
    start = time.monotonic()
    function(*arguments)
    seconds.append(time.monotonic() - start)

  return mock.patch.object(checkpoints, name, timed)


def _cpu_seconds_per_save(arguments, folder):
  """Returns the CPU seconds of all threads for a save with these arguments in another folder."""
  _, state, *others = arguments
  with checkpoints.open_folder(folder, to_save=True) as checkpoint_folder:
    start = time.process_time()
    for step in range(ISOLATED_SAVES):
      checkpoints.save(checkpoint_folder, dataclasses.replace(state, step=state.step + step), *others)
      checkpoints.wait(checkpoint_folder)
    return (time.process_time() - start) / ISOLATED_SAVES

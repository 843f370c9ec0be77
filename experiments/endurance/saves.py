"""What checkpoints cost a run: the time that it waits for them, and the processors' time that they take beside it."""

import dataclasses
import os
import pathlib
import tempfile
import time
from unittest import mock

from ae_jax.runs import checkpoints
from ae_jax.training import train
from configs import cnn

MOST = 0.02  # of a run
SINGLE_DEVICE = 20  # saves with nothing beside them


def cost(rounds=4):
  """Results of training by configs/cnn.py as it is shipped, `rounds` times, with a clock at all that saves.

  The first round compiles the checksums, which the others find compiled; it is kept but not judged.
  """
  shares = []
  for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
      waited, saves = [], []
      begun = time.monotonic()
      with _clock("save", waited, saves), _clock("wait", waited, []):
        train.train_and_evaluate(cnn.get_config("mnist_5k"), pathlib.Path(folder) / "run")
      seconds = time.monotonic() - begun
      beside = len(saves) * _work(saves[-1], pathlib.Path(folder) / "alone") / os.cpu_count()
      shares.append({"waited": sum(waited) / seconds, "worked_beside": beside / seconds})
  violations = [str(share) for share in shares[1:] if sum(share.values()) > MOST]
  outcomes = {"shares_of_the_run": shares, "saves": len(saves), "seconds_of_the_run": round(seconds, 1)}
  return {"cases": rounds, "outcomes": outcomes, "violations": violations}


def _clock(name, seconds, calls):
  """A patch of one of the functions of `checkpoints`: notes how long each call takes, and its arguments."""
  function = getattr(checkpoints, name)

  def timed(*arguments):
    calls.append(arguments)
    begun = time.monotonic()
    function(*arguments)
    seconds.append(time.monotonic() - begun)

  return mock.patch.object(checkpoints, name, timed)


def _work(arguments, folder):
  """Seconds that all threads of this process compute for a save with these arguments, but in another folder."""
  _, state, *others = arguments
  with checkpoints.open_folder(folder, to_save=True) as opened:
    begun = time.process_time()
    for step in range(SINGLE_DEVICE):
      checkpoints.save(opened, dataclasses.replace(state, step=state.step + step), *others)
      checkpoints.wait(opened)
    return (time.process_time() - begun) / SINGLE_DEVICE

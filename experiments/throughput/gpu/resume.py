"""Compares a run that was killed and resumed with an uninterrupted run."""

import contextlib
import pathlib
import signal
import sys
import tempfile

import jax
import numpy as np

import ae_jax
from ae_jax.errors import UserError
from ae_jax.runs import checkpoints
from experiments.endurance import crashes


def measure(model, data, epochs, flags, environment):
  """Returns whether a run with these flags, killed by SIGKILL after a third and resumed, equals another."""
  with tempfile.TemporaryDirectory() as name:
    straight, killed = pathlib.Path(name) / "straight", pathlib.Path(name) / "killed"
    start = lambda workdir: started(command(model, data, epochs, workdir, flags), environment)
    with start(straight) as process:
      crashes.finish(process)
    last = checkpoints.newest_step(straight / "checkpoints")
    with start(killed) as process:
      crashes.wait_for(lambda: process.poll() is not None or _newest(killed) >= last / 3)
      process.kill()
      process.communicate()
    if process.returncode != -signal.SIGKILL:
      raise UserError(f"resumed_epochs={epochs}: the run ended before it was killed; use more epochs")
    step = _newest(killed)
    with start(killed) as process:
      crashes.finish(process)
    equal, difference = crashes.equal(straight, killed), largest_difference(straight, killed)
  return {
    **{"model": model, "data": data, "epochs": epochs, "flags": flags, "steps": last, "continued_at": step},
    **{"bitwise": equal, "largest_difference": difference},
  }


def command(model, data, epochs, workdir, flags):
  """Returns the command of a run that saves its state after each epoch."""
  keys = {"epochs": epochs, "checkpoint_every_epochs": 1, "evaluators": ()}
  pairs = [f"--config.{key}={value}" for key, value in keys.items()]
  config = f"--config=configs/{model}.py:{data}"
  return [sys.executable, "-m", "ae_jax.main", config, f"--workdir={workdir}", *pairs, *flags]


@contextlib.contextmanager
def started(arguments, environment):
  """Starts a process, which does not outlive the block."""
  with crashes.launch(arguments, **environment) as process:
    try:
      yield process
    finally:
      process.kill()


def largest_difference(*workdirs):
  """Returns the largest absolute difference of the variables of two runs."""
  trees = [jax.tree.map(np.asarray, ae_jax.load(workdir).variables) for workdir in workdirs]
  differences = jax.tree.map(lambda a, b: float(np.abs(a.astype(float) - b.astype(float)).max()), *trees)
  return max(jax.tree.leaves(differences))


def _newest(workdir):
  return checkpoints.newest_step(workdir / "checkpoints") or 0

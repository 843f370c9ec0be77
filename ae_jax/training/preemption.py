"""What ends a run before its time: a signal, the loss of another process, a number that is not finite.

None of them loses anything that was saved.
"""

import contextlib
import faulthandler
import os
import re
import shlex
import subprocess
import sys
import threading

import jax
import numpy as np

from ae_jax import errors
from ae_jax.ops import randomness
from ae_jax.system import distributed, signals
from ae_jax.system.signals import Interrupted
from ae_jax.training import steps

TRAINING = "stopping after the current step (or compilation), and saving"
ANALYZING = "the run is trained and saved; stopping after the current evaluator or picture"


@contextlib.contextmanager
def caught(promise=TRAINING):
  """Yields a function that returns the name of the signal that has asked this process to stop, "" for none.

  The signal is acknowledged with the `promise`; see `signals.promising`. Outside the main thread signals are left
  alone.
  """
  if threading.current_thread() is not threading.main_thread():
    yield lambda: ""
    return
  with signals.promising(promise) as received:
    yield received


def asked(received):
  """The signal that any of the processes has received, "" for none: all of them then stop after the same step."""
  name = received()
  return name if distributed.agreed(not name) else name or "a signal to another process"


def stop(received, epochs):
  """Raises Interrupted for a run that has saved itself after so many epochs."""
  raise Interrupted(f"{asked(received)}: stopped after epoch {epochs:.3g}, saved; the same command continues")


def stop_analyses(received, workdir):
  """Raises Interrupted if a signal asks the analyses of a trained run to stop."""
  if name := received():
    command = f"python -m ae_jax.evaluate --workdir={shlex.quote(str(workdir))}"
    raise Interrupted(f"{name}: stopped; the run is trained and saved, and {command} makes its page")


# Of a run of several processes that has lost one.
LOST = "another process of the run has ended; start all of them again, and they continue"
_LOST = re.compile("gloo|coordination ?service|heartbeat|connection closed by peer|socket closed", re.IGNORECASE)
_FAREWELL = 10.0  # seconds in which processes that fail alike all say why


def others_are_lost(error):
  """Whether an exception, or one that it came from, is what a collective raises when another process is gone."""
  while error is not None:
    if not isinstance(error, errors.UserError) and _LOST.search(str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False


def watchdog():
  """Starts a process that says `LOST` should this one be aborted, which is how JAX ends it when another is gone.

  No Python code runs in an abort; faulthandler, which is C, writes its report to the other process.
  """
  reading, writing = os.pipe()
  script = f"import sys; sys.exit({f'ae_jax: {LOST}'!r} if b'Aborted' in sys.stdin.buffer.read() else 0)"
  command = [sys.executable, "-IS", "-c", script]
  subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
  os.close(reading)
  faulthandler.enable(writing, all_threads=False)


def leave_soon(status):
  """Ends this process in some seconds, should it still wait then for the others' farewells, as JAX's processes do."""
  timer = threading.Timer(_FAREWELL, os._exit, [status])
  timer.daemon = True
  timer.start()


def stop_at(state, batch, key, file, *, model, objective, where, augment=None):
  """Writes what it takes to repeat a step whose loss or gradient is not finite into an .npz file, and raises UserError.

  `state` is that before the step, its arrays whole and on this device; the batch is as `steps.read_batch` gives it. The
  file holds the batch as `augment` (`augmentation.Augment` or None) has changed it for this step.
  """
  numbers = np.arange(len(batch["weight"]), dtype=np.int32)
  keys = randomness.example_keys(jax.random.fold_in(key, state.step), numbers)
  batch = steps.augmented(batch, keys, augment)
  compute = jax.jit(steps.value_and_gradient, static_argnames=("model", "objective", "microbatches"))
  (loss, _), gradient = compute(state.variables, batch, keys, model=model, objective=objective, microbatches=1)
  bad = {kind: _not_finite(tree) for kind, tree in (("parameter", state.params), ("gradient of", gradient))}
  kept = {"step": state.step, "key": jax.random.key_data(key), "loss": loss, **batch}
  trees = {"params": state.params, "opt_state": state.opt_state, "model_state": state.model_state}
  for name, tree in {**trees, "gradient": gradient}.items():
    kept |= {f"{name}/{path}": leaf for path, leaf in _by_path(tree)}
  part = file.with_name(file.name + ".part")
  with errors.writing(file, f"; {where}: the loss is {float(loss)}"):
    with open(part, "wb") as stream:
      np.savez(stream, **{name: np.asarray(value) for name, value in kept.items()})
    os.replace(part, file)
  named = next((f", the {kind} {names[0]} is not finite" for kind, names in bad.items() if names), "")
  raise errors.UserError(
    f"{where}: the loss is {float(loss)}{named}; nothing was saved over, and {file} holds batch and state; "
    "lower the learning rate, set config.optimizer.clip_norm, or leave such steps out with config.on_nan='skip'"
  )


def _not_finite(tree):
  return [path for path, leaf in _by_path(tree) if not np.isfinite(leaf).all()]


def _by_path(tree):
  """(path, leaf) of a tree, the path as a text with slashes."""
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return [("/".join(_name(key) for key in path), leaf) for path, leaf in flat]


def _name(key):
  return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))

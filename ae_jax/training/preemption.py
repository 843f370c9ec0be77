"""Early ends of a run: a signal, the loss of another process, a non-finite loss or gradient.

None of them affects checkpoints that are already saved.
"""

import contextlib
import faulthandler
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jaxtyping import Array, Key

from ae_jax import errors, models, objectives
from ae_jax.ops import randomness
from ae_jax.system import distributed, signals
from ae_jax.system.signals import Interrupted
from ae_jax.training import steps
from ae_jax.training.state import TrainState
from ae_jax.types import Batch

TRAINING = "stopping after the current step (or compilation), and saving"
ANALYZING = "the run is trained and saved; stopping after the current evaluator or picture"


@contextlib.contextmanager
def catch_signals(promise: str = TRAINING) -> Iterator[Callable[[], str]]:
  """Yields a function that returns the name of the first signal that asks this process to stop, or "".

  Outside the main thread signals are not handled, and the function always returns "".

  Args:
    promise: What the signal leads to, for the line that acknowledges it; see `signals.catching`.
  """
  if threading.current_thread() is not threading.main_thread():
    yield lambda: ""
    return
  with signals.catching(promise) as received:
    yield received


def requested_stop(received: Callable[[], str]) -> str:
  """Returns the signal that any of the processes has received, or ""; all of them then stop after the same step."""
  name = received()
  return name if distributed.all_processes(not name) else name or "a signal to another process"


def stop(received: Callable[[], str], epochs: float) -> NoReturn:
  """Raises Interrupted for a run whose checkpoint after `epochs` is saved."""
  raise Interrupted(
    f"{requested_stop(received)}: stopped after epoch {epochs:.3g}, saved; run the same command to continue"
  )


def stop_analyses(received: Callable[[], str], workdir: pathlib.Path) -> None:
  """Raises Interrupted if a signal asks the analyses of a trained run to stop."""
  if name := received():
    command = f"python -m ae_jax.evaluate --workdir={shlex.quote(str(workdir))}"
    raise Interrupted(f"{name}: stopped; the run is trained and saved; to write its report, run {command}")


# The message of a run of several processes that has lost one.
LOST = "another process of the run has ended; start all of them again to continue"
_LOST = re.compile("gloo|coordination ?service|heartbeat|connection closed by peer|socket closed", re.IGNORECASE)
_EXIT_DELAY = 10.0  # seconds in which processes that fail together all print their errors


def others_are_lost(error: BaseException | None) -> bool:
  """Returns whether an exception, or one in its chain, is that of a collective whose other process is gone."""
  while error is not None:
    if not isinstance(error, errors.UserError) and _LOST.search(str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False


def watchdog() -> None:
  """Starts a process that prints `LOST` if this process aborts: JAX aborts a process when another one is gone.

  No Python code runs in an abort; faulthandler, which is C, writes its report to the watchdog.
  """
  reading, writing = os.pipe()
  script = f"import sys; sys.exit({f'ae_jax: {LOST}'!r} if b'Aborted' in sys.stdin.buffer.read() else 0)"
  command = [sys.executable, "-IS", "-c", script]
  subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
  os.close(reading)
  faulthandler.enable(writing, all_threads=False)


def exit_after_delay(status: int) -> None:
  """Ends this process after some seconds even if it is still waiting for the others, as JAX does at exit."""
  timer = threading.Timer(_EXIT_DELAY, os._exit, [status])
  timer.daemon = True
  timer.start()


def fail_not_finite(
  state: TrainState,
  batch: Batch,
  key: Key[Array, ""],
  file: pathlib.Path,
  *,
  model: models.Model,
  objective: objectives.Objective,
  where: str,
  augment: steps.Augmentation | None = None,
) -> NoReturn:
  """Saves a step with a non-finite loss or gradient as an .npz file and raises UserError.

  Args:
    state: The state before the step, complete on this device.
    batch: The batch of the step, as `steps.read_batch` returns it; the file holds it augmented.
    key: The noise key of the run.
    file: Path of the .npz file.
    model: The model.
    objective: The objective with the values of the step.
    where: Step and epoch in words.
    augment: Augmentation of the examples; None for none.
  """
  positions = np.arange(len(batch["weight"]), dtype=np.int32)
  keys = randomness.example_keys(jax.random.fold_in(key, state.step), positions)
  batch = steps.augmented(batch, keys, augment)
  # bound, not static: scheduled numbers of the objective are arrays, which have no hash
  compute = jax.jit(functools.partial(steps.value_and_gradient, model=model, objective=objective, microbatches=1))
  (loss, _), gradient = compute(state.variables, batch, keys)
  arrays = {"step": state.step, "key": jax.random.key_data(key), "loss": loss, **batch}
  trees = {"params": state.params, "opt_state": state.opt_state, "model_state": state.model_state}
  for name, tree in {**trees, "gradient": gradient}.items():
    arrays |= {f"{name}/{path}": leaf for path, leaf in _by_path(tree)}
  part = file.with_name(file.name + ".part")
  with errors.convert_os_errors(file, f"; {where}: the loss is {float(loss)}"):
    with open(part, "wb") as stream:
      np.savez(stream, **{name: np.asarray(value) for name, value in arrays.items()})
    os.replace(part, file)
  not_finite = {kind: _not_finite(tree) for kind, tree in (("parameter", state.params), ("gradient of", gradient))}
  culprit = next((f", the {kind} {paths[0]} is not finite" for kind, paths in not_finite.items() if paths), "")
  raise errors.UserError(
    f"{where}: the loss is {float(loss)}{culprit}. The checkpoints are intact, and {file} holds batch and state. "
    "Lower the learning rate, set config.optimizer.clip_norm, or skip such steps with config.on_nan='skip'"
  )


def _not_finite(tree: Any) -> list[str]:
  return [path for path, leaf in _by_path(tree) if not np.isfinite(leaf).all()]


def _by_path(tree: Any) -> list[tuple[str, Any]]:
  """Returns the (path, leaf) pairs of a tree, with slashes in the paths."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [("/".join(_key_name(key) for key in path), leaf) for path, leaf in leaves]


def _key_name(key):
  return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))

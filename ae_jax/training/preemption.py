"""Events that end a run early: a signal, the end of another process, or a non-finite loss or gradient.

Saved checkpoints remain intact in all cases.
"""

import contextlib
import faulthandler
import functools
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jaxtyping import Array, Key

from ae_jax import errors, models, objectives
from ae_jax.ops import randomness
from ae_jax.system import atomic, distributed, paths, signals
from ae_jax.system.signals import Interrupted
from ae_jax.training import steps
from ae_jax.training.state import TrainState
from ae_jax.types import Batch

TRAINING = "stopping after the current steps or compilation, then saving the state"
ANALYZING = "training is complete and saved; stopping after the current evaluator or figure"


@contextlib.contextmanager
def catch_signals(promise: str = TRAINING) -> Iterator[Callable[[], str]]:
  """Yields a function that returns the name of the first received stop signal, or "" if there is none.

  Outside the main thread, signals are not handled and the function always returns "".

  Args:
    promise: Text that says what happens after a signal; printed when the signal arrives. See `signals.catching`.
  """
  if threading.current_thread() is not threading.main_thread():
    yield lambda: ""
    return
  with signals.catching(promise) as received:
    yield received


def requested_stop(received: Callable[[], str]) -> str:
  """Returns a description of the signal if any process has received one, otherwise "".

  The result is empty in all processes or in none, so all processes stop after the same step.
  """
  name = received()
  return name if distributed.all_processes(not name) else name or "a signal to another process"


def stop(received: Callable[[], str], epochs: float) -> NoReturn:
  """Raises Interrupted; call this function after the checkpoint is saved. `epochs` is the number of trained epochs."""
  raise Interrupted(
    f"{requested_stop(received)}: stopped after epoch {epochs:.3g} and saved the state; run the same command to "
    "continue"
  )


def stop_analyses(received: Callable[[], str], workdir: pathlib.Path) -> None:
  """Raises Interrupted if a signal has arrived during the analyses of a trained run."""
  if name := received():
    command = paths.command_line(["python", "-m", "ae_jax.evaluate", f"--workdir={workdir}"])
    raise Interrupted(f"{name}: stopped; the run is trained and saved; to write its report, run {command}")


# Message if another process of a multi-process run has ended.
LOST = "another process of the run has ended; start all processes again to continue"
_LOST = re.compile("gloo|coordination ?service|heartbeat|connection closed by peer|socket closed", re.IGNORECASE)
_EXIT_DELAY = 10.0  # seconds; processes that fail together need time to print their errors


def others_are_lost(error: BaseException | None) -> bool:
  """Returns whether an exception, or one in its chain, was raised because another process of the run has ended."""
  while error is not None:
    if not isinstance(error, errors.UserError) and _LOST.search(str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False


def watchdog() -> None:
  """Starts a process that prints `LOST` if this process aborts.

  JAX aborts a process when another process of the run has ended. Python code cannot run during an abort. Therefore
  faulthandler, which is written in C, sends its report to the new process.
  """
  reading, writing = os.pipe()
  script = f"import sys; sys.exit({f'ae_jax: {LOST}'!r} if b'Aborted' in sys.stdin.buffer.read() else 0)"
  command = [sys.executable, "-IS", "-c", script]
  subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
  os.close(reading)
  faulthandler.enable(writing, all_threads=False)


def exit_after_delay(status: int) -> None:
  """Ends this process after `_EXIT_DELAY` seconds, even if JAX still waits for other processes at exit."""
  timer = threading.Timer(_EXIT_DELAY, os._exit, [status])
  timer.daemon = True
  timer.start()


LOWER_THE_RATE = "Lower the learning rate, set config.optimizer.clip_norm, or skip such steps with config.on_nan='skip'"
CHECK_THE_DATA = (
  "No smaller learning rate helped: check the values of this batch, or skip such steps with config.on_nan='skip'"
)


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
  advice: str = LOWER_THE_RATE,
) -> NoReturn:
  """Saves a step with a non-finite loss or gradient as an .npz file and raises UserError.

  Args:
    state: The state before the step; all of its arrays are complete on this device.
    batch: The batch of the step, as `steps.read_batch` returns it. The file contains the augmented batch.
    key: The noise key of the run.
    file: Path of the .npz file.
    model: The model.
    objective: The objective, with its schedules evaluated at the step.
    where: Step and epoch, as a prefix of the error message.
    augment: Augmentation of the examples, or None.
    advice: Last sentence of the message.
  """
  positions = np.arange(len(batch["weight"]), dtype=np.int32)
  keys = randomness.example_keys(jax.random.fold_in(key, state.step), positions)
  batch = steps.augmented(batch, keys, augment)
  # `partial` binds the objective: it cannot be a static argument of `jit`, because its scheduled values are arrays,
  # which have no hash
  compute = jax.jit(functools.partial(steps.value_and_gradient, model=model, objective=objective, microbatches=1))
  (loss, _), gradient = compute(state.variables, batch, keys)
  arrays = {"step": state.step, "key": jax.random.key_data(key), "loss": loss, **batch}
  trees = {"params": state.params, "opt_state": state.opt_state, "model_state": state.model_state, "gradient": gradient}
  with errors.convert_os_errors(file, f"; {where}: the loss is {float(loss)}"):
    _save_npz(file, arrays, trees)
  raise errors.UserError(
    f"{where}: the loss is {float(loss)}{_culprit(state.params, gradient)}. The checkpoints are intact, and {file} "
    f"contains the batch and the state. {advice}"
  )


def _save_npz(file: pathlib.Path, arrays: Mapping[str, Any], trees: Mapping[str, Any]) -> None:
  """Saves arrays and trees as an .npz file, which appears only when it is complete.

  The leaf at PATH in the tree TREE has the name TREE/PATH in the file.
  """
  leaves = {f"{name}/{path}": leaf for name, tree in trees.items() for path, leaf in _by_path(tree)}
  with atomic.replace(file) as part, part.open("wb") as stream:
    np.savez(stream, **{name: np.asarray(value) for name, value in {**arrays, **leaves}.items()})


def _culprit(params: Any, gradient: Any) -> str:
  """Returns the part of an error message that names the first non-finite parameter or gradient, or ""."""
  not_finite = {kind: _not_finite(tree) for kind, tree in (("parameter", params), ("gradient of", gradient))}
  return next((f", the {kind} {paths[0]} is not finite" for kind, paths in not_finite.items() if paths), "")


def _not_finite(tree: Any) -> list[str]:
  return [path for path, leaf in _by_path(tree) if not np.isfinite(leaf).all()]


def _by_path(tree: Any) -> list[tuple[str, Any]]:
  """Returns the (path, leaf) pairs of a tree; the parts of a path are joined with slashes."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [("/".join(_key_name(key) for key in path), leaf) for path, leaf in leaves]


def _key_name(key):
  return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))

"""Saves and restores the training state with Orbax. The last two checkpoints and the best one are kept."""

import copy
import dataclasses
import gc
import json
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ae_jax import errors
from ae_jax.runs import checksums
from ae_jax.system import distributed, malloc
from ae_jax.types import Params

_BEST_BY = "squared_error"
_ALWAYS_SAVED = ("params", "opt_state")  # fields of the state that are saved even if they are empty
# Arrays of the field `model_state` that checkpoints of earlier versions lack -> value that reproduces these versions.
_ADDED_ARRAYS = {"correction_scale": 1.0}
_KEEP_LAST = 2  # if the last checkpoint is damaged, the one before it can be restored
_Report = Callable[[str], object]


class CheckpointFolder:
  """An open folder of checkpoints; as a context manager, it waits for a pending save on exit."""

  def __init__(self, orbax: ocp.training.Checkpointer) -> None:
    self.orbax, self.pending = orbax, None

  def settle(self) -> None:
    """Waits for the pending save; raises the exception of a failed save.

    Orbax runs each save in a thread, which ends only after the result of the save is requested.
    """
    pending, self.pending = self.pending, None
    try:
      if pending is not None:
        pending.result()
    finally:
      self.orbax.wait()  # also raises the exception of a failed save, but only once
      malloc.trim()  # without it, glibc kept 40 MiB of freed memory, and more every hour

  def __enter__(self) -> "CheckpointFolder":
    return self

  def __exit__(self, *_: object) -> None:
    try:
      self.settle()
    finally:
      self.orbax.close()


class _Best:
  """Preservation policy that keeps the first checkpoint with the smallest error; Orbax's `BestN` keeps the last."""

  def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
    """Returns for each checkpoint whether it is the best one."""
    del context
    evaluated = [checkpoint for checkpoint in checkpoints if checkpoint.metrics]
    return [bool(evaluated) and checkpoint.step == _best(evaluated).step for checkpoint in checkpoints]


def _best(checkpoints: Sequence[Any]) -> Any:
  """Returns the first checkpoint with the smallest error."""
  return min(checkpoints, key=lambda checkpoint: (checkpoint.metrics[_BEST_BY], checkpoint.step))


def open_folder(folder: pathlib.Path, to_save: bool, report: _Report = print) -> CheckpointFolder:
  """Opens a folder of checkpoints.

  Args:
    folder: The folder.
    to_save: If True, deletes partial checkpoints of a killed process, and moves damaged ones to the folder `damaged`
      next to `folder`. If False, changes nothing.
    report: Called with a message about each damaged checkpoint that is moved.

  Raises:
    UserError: A checkpoint is damaged and `to_save` is False.
  """
  for metrics in sorted(folder.glob("[0-9]*/metrics/metrics")):
    step, fault = metrics.parents[1].name, _metrics_fault(metrics)
    if fault and not to_save:
      raise errors.UserError(f"{metrics}: is damaged ({fault}); run the training command again, which moves it away")
    if not distributed.all_processes(not fault):
      _set_aside(folder, step, fault, report)
  policies = ocp.training.preservation_policies
  context = ocp.Context()
  # With asynchronous creation, Orbax's threads block the process for five minutes if a folder cannot be created.
  context.async_options.create_directories_asynchronously = False
  return CheckpointFolder(
    ocp.training.Checkpointer(
      folder.absolute(),
      save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
      preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(_KEEP_LAST), _Best()]),
      cleanup_tmp_directories=to_save,
      context=context,
    )
  )


def save(opened: CheckpointFolder, state: Any, squared_error: float | int, notes: Mapping[str, Any]) -> None:
  """Starts saving a checkpoint; training may continue immediately.

  Args:
    opened: The folder.
    state: The `TrainState`.
    squared_error: Squared error on the validation set, or on the test set if there is none. The checkpoint with the
      smallest error is the best one; NaN and infinity are replaced by the largest float.
    notes: Data of JSON types to save with the state. They are copied, so the caller may change them immediately.

  Raises:
    WriteError: This checkpoint or the previous one cannot be written.
  """
  error = squared_error if math.isfinite(squared_error) else sys.float_info.max
  sums = {name: checksums.compute(part) for name, part in _parts(state).items()}
  metadata = {"notes": copy.deepcopy(notes), "checksums": sums}
  try:
    opened.settle()
    opened.pending = opened.orbax.save_checkpointables_async(
      int(state.step), _parts(state), metrics={_BEST_BY: error}, custom_metadata=metadata
    )
  except Exception as failure:
    raise _not_written(opened, failure) from failure


def wait(opened: CheckpointFolder) -> None:
  """Waits for the pending save; raises WriteError if the checkpoint cannot be written."""
  try:
    opened.settle()
  except Exception as failure:
    raise _not_written(opened, failure) from failure


def has_step(opened: CheckpointFolder, step: int) -> bool:
  """Returns whether the folder contains a checkpoint of this step."""
  return any(checkpoint.step == step for checkpoint in _complete(opened))


def newest_step(folder: pathlib.Path) -> int | None:
  """Returns the step of the newest checkpoint, without opening the folder; None if there is no checkpoint."""
  names = (file.parents[1].name for file in folder.glob("[0-9]*/metrics/metrics"))
  # a save that was killed leaves "23.orbax-checkpoint-tmp"
  return max((int(name) for name in names if name.isdecimal()), default=None)


def last_and_best(opened: CheckpointFolder) -> dict[str, int]:
  """Returns the steps {"last": step, "best": step} of the last and best checkpoint; {} if there is none."""
  checkpoints = _complete(opened)
  if not checkpoints:
    return {}
  return {"last": max(checkpoint.step for checkpoint in checkpoints), "best": _best(checkpoints).step}


def restore(opened: CheckpointFolder, target: Any, report: _Report = print) -> tuple[Any, dict[str, Any]] | None:
  """Restores the newest undamaged checkpoint; moves damaged checkpoints away like `open_folder`.

  Args:
    opened: The folder.
    target: `TrainState` of concrete or abstract arrays, with the shapes, dtypes and shardings of the result.
    report: Called with a message about each damaged checkpoint that is moved.

  Returns:
    The state and the notes that were saved with it, or None if no checkpoint can be restored.
  """
  abstract = jax.tree.map(_abstract, _parts(target))
  for step in sorted((checkpoint.step for checkpoint in _complete(opened)), reverse=True):
    parts, metadata, fault = _load(opened, step, abstract)
    if distributed.all_processes(not fault):
      state = dataclasses.replace(target, step=distributed.put(jax.numpy.int32(step), target.step.sharding), **parts)
      return state, metadata["notes"]
    _set_aside(opened.orbax.directory, step, fault, report)
    opened.orbax.reload()
  return None


def restore_parts(opened: CheckpointFolder, step: int, target: Mapping[str, Params]) -> dict[str, Params]:
  """Restores some fields of the training state to the first local device.

  Args:
    opened: The folder.
    step: Step of the checkpoint.
    target: Abstract arrays of the fields to restore, by field name of `TrainState`.

  Raises:
    UserError: The checkpoint is damaged.
  """
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(lambda leaf: _abstract(leaf, device), target)
  parts, _, fault = _load(opened, step, abstract)
  if fault:
    where = opened.orbax.directory / str(step)
    raise errors.UserError(f"{where}: the checkpoint is damaged ({fault}); load another one, or train again")
  return parts


def _load(opened: CheckpointFolder, step: int, abstract: Mapping[str, Any]) -> tuple[Any, Any, str]:
  """Returns (fields of the state, metadata, ""), or (None, None, description of the damage)."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # Orbax leaves coroutines unawaited when it fails
    try:
      described = opened.orbax.checkpointables_metadata(step)
      metadata, (stored, added) = described.custom_metadata, _without_added(abstract, described.metadata)
      parts = opened.orbax.load_checkpointables(step, stored)
      if any(metadata["checksums"][name] != checksums.compute(part) for name, part in parts.items()):
        raise ValueError("the checksums of the arrays differ from the saved checksums")
      return {**parts, **({"model_state": {**parts["model_state"], **added}} if added else {})}, metadata, ""
    except Exception as error:  # damaged files make Orbax raise many types of exceptions
      fault = _describe(error)
    gc.collect()
  return None, None, fault


def _without_added(
  abstract: Mapping[str, Any], described: Mapping[str, Any]
) -> tuple[Mapping[str, Any], dict[str, jax.Array]]:
  """Returns the abstract arrays without those of `_ADDED_ARRAYS` that a checkpoint lacks, and the values of these.

  Args:
    abstract: Abstract arrays of the fields to load.
    described: Orbax's metadata of the arrays of the checkpoint.
  """
  state = abstract.get("model_state", {})
  missing = [name for name in _ADDED_ARRAYS if name in state and name not in described["model_state"]]
  if not missing:
    return abstract, {}
  stored = {name: leaf for name, leaf in state.items() if name not in missing}
  full = lambda leaf, value: distributed.put(np.full(leaf.shape, value, leaf.dtype), leaf.sharding)
  return {**abstract, "model_state": stored}, {name: full(state[name], _ADDED_ARRAYS[name]) for name in missing}


def _complete(opened: CheckpointFolder) -> list[Any]:
  """Returns the complete checkpoints: a checkpoint without metrics was partly deleted when a process was killed."""
  return [checkpoint for checkpoint in opened.orbax.checkpoints if checkpoint.metrics]


def _parts(state: Any) -> dict[str, Any]:
  """Returns the fields of a `TrainState` that a checkpoint contains: all except `step` and empty optional fields.

  Checkpoints of earlier versions lack the optional fields.
  """
  parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "step"}
  return {name: part for name, part in parts.items() if name in _ALWAYS_SAVED or jax.tree.leaves(part)}


def _metrics_fault(file: pathlib.Path) -> str:
  try:
    float(json.loads(file.read_bytes())[_BEST_BY])
  except (ValueError, TypeError, KeyError) as error:
    return _describe(error)
  return ""


def _set_aside(folder: os.PathLike[str], step: int | str, fault: str, report: _Report) -> None:
  """Moves a damaged checkpoint to the folder `damaged` next to `folder`, and reports it."""
  damaged = pathlib.Path(folder).parent / "damaged"

  def move() -> None:
    damaged.mkdir(exist_ok=True)
    free = next(n for n in range(1000) if not (damaged / f"{step}.{n}").exists())
    os.replace(pathlib.Path(folder) / str(step), damaged / f"{step}.{free}")

  fault = fault or "reported by another process"
  report(f"the checkpoint of step {step} is damaged ({fault}); it is moved to {damaged}")
  distributed.on_first_process(move)


def _not_written(opened: CheckpointFolder, failure: Exception) -> errors.WriteError:
  reason = _describe(failure)
  return errors.WriteError(
    f"{opened.orbax.directory}: the checkpoint cannot be written: {reason}; earlier checkpoints are unchanged. Remove "
    "the cause and run the same command again to continue"
  )


def _describe(error: Exception) -> str:
  return f"{type(error).__name__}: {errors.one_line(error)}"


def _abstract(leaf: Any, sharding: jax.sharding.Sharding | None = None) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding)

"""Saving and restoring the training state: the only place that knows Orbax. Kept are the last two and the best."""

import copy
import dataclasses
import gc
import json
import math
import os
import pathlib
import sys
import warnings

import jax
from orbax.checkpoint import v1 as ocp

from ae_jax import errors
from ae_jax.runs import checksums
from ae_jax.system import distributed, malloc

_BEST_BY = "squared_error"
_ALWAYS = ("params", "opt_state")  # the parts of a state that each checkpoint has
_LAST = 2  # so many are kept: should the last be damaged, the one before it stands in


class Opened:
  """A folder of checkpoints, open; to be used in a `with`, and leaving it waits for the save under way."""

  def __init__(self, orbax):
    self.orbax, self.under_way = orbax, None

  def settle(self):
    """Returns when the save under way is done; asked for its result, Orbax ends the thread that it started for it."""
    under_way, self.under_way = self.under_way, None
    try:
      if under_way is not None:
        under_way.result()
    finally:
      self.orbax.wait()  # a failure is told here too, and only once
      malloc.give_back()  # glibc kept 40 MiB, more of them every hour

  def __enter__(self):
    return self

  def __exit__(self, *_):
    try:
      self.settle()
    finally:
      self.orbax.close()


class _Best:
  """Preservation policy of the best checkpoint; Orbax's `BestN` keeps the last one of equals."""

  def should_preserve(self, checkpoints, *, context):
    """Returns for each checkpoint whether it is the best one."""
    del context
    found = [checkpoint for checkpoint in checkpoints if checkpoint.metrics]
    return [bool(found) and checkpoint.step == _best(found).step for checkpoint in checkpoints]


def _best(checkpoints):
  """Returns the checkpoint with the smallest error, the first one of equals."""
  return min(checkpoints, key=lambda checkpoint: (checkpoint.metrics[_BEST_BY], checkpoint.step))


def open_folder(folder, to_save, report=print):
  """The checkpoints in a folder, `Opened`.

  Opened `to_save`, what a killed process left half saved is swept away, and what is damaged is set aside in the folder
  `damaged` beside it, each with a line to `report`. Opened to load, nothing is touched, and UserError may be raised.
  """
  for metrics in sorted(folder.glob("[0-9]*/metrics/metrics")):
    step, fault = metrics.parents[1].name, _fault_of_json(metrics)
    if fault and not to_save:
      raise errors.UserError(f"{metrics}: is damaged ({fault}); the command of the run sets it aside")
    if not distributed.agreed(not fault):
      _set_aside(folder, step, fault, report)
  policies = ocp.training.preservation_policies
  context = ocp.Context()
  # else, where a folder cannot be made, Orbax's threads wait for it, and the process for them: for five minutes
  context.async_options.create_directories_asynchronously = False
  return Opened(
    ocp.training.Checkpointer(
      folder.absolute(),
      save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
      preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(_LAST), _Best()]),
      cleanup_tmp_directories=to_save,
      context=context,
    )
  )


def save(opened, state, squared_error, notes):
  """Starts saving; training may go on at once. The smallest `squared_error` so far is the best; NaN never is.

  `notes` are a dict as JSON has them, saved as they are now: they may change while the save is under way. Raises
  UserError if this save, or the one before it, cannot be written.
  """
  error = squared_error if math.isfinite(squared_error) else sys.float_info.max
  sums = {name: checksums.of(part) for name, part in _parts(state).items()}
  described = {"notes": copy.deepcopy(notes), "checksums": sums}
  try:
    opened.settle()
    opened.under_way = opened.orbax.save_checkpointables_async(
      int(state.step), _parts(state), metrics={_BEST_BY: error}, custom_metadata=described
    )
  except Exception as failure:
    raise _not_written(opened, failure) from failure


def wait(opened):
  """Returns when the save under way is done; UserError if it cannot be written."""
  try:
    opened.settle()
  except Exception as failure:
    raise _not_written(opened, failure) from failure


def holds(opened, step):
  """Whether there is a checkpoint of this step."""
  return any(checkpoint.step == step for checkpoint in _whole(opened))


def newest(folder):
  """The step of the newest checkpoint in a folder, which is only listed; None where there is none."""
  return max((int(file.parents[1].name) for file in folder.glob("[0-9]*/metrics/metrics")), default=None)


def kept(opened):
  """{"last": step, "best": step} of the checkpoints there are; {} where there is none."""
  found = _whole(opened)
  if not found:
    return {}
  return {"last": max(checkpoint.step for checkpoint in found), "best": _best(found).step}


def restore(opened, like, report=print):
  """(state, notes) of the newest checkpoint that is whole, with the types and placements of `like`; None without one.

  A damaged one is set aside, as by `open_folder`.
  """
  abstract = jax.tree.map(_abstract, _parts(like))
  for step in sorted((checkpoint.step for checkpoint in _whole(opened)), reverse=True):
    parts, described, fault = _load(opened, step, abstract)
    if distributed.agreed(not fault):
      return dataclasses.replace(
        like, step=distributed.put(jax.numpy.int32(step), like.step.sharding), **parts
      ), described["notes"]
    _set_aside(opened.orbax.directory, step, fault, report)
    opened.orbax.reload()
  return None


def restore_parts(opened, step, like):
  """Returns parts of the state saved at a step, on the first device; UserError if they are damaged.

  `like` maps their names, fields of the state, to abstract arrays.
  """
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(lambda leaf: _abstract(leaf, device), like)
  parts, _, fault = _load(opened, step, abstract)
  if fault:
    raise errors.UserError(
      f"{opened.orbax.directory / str(step)}: the checkpoint is damaged ({fault}); train on, or load the other one"
    )
  return parts


def _load(opened, step, abstract):
  """(parts, what was described with them, "") or (None, None, what is wrong with the files)."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # of the coroutines that Orbax leaves behind a failure
    try:
      parts = opened.orbax.load_checkpointables(step, abstract)
      described = opened.orbax.checkpointables_metadata(step).custom_metadata
      if any(described["checksums"][name] != checksums.of(part) for name, part in parts.items()):
        raise ValueError("its numbers are not those that were saved")
      return parts, described, ""
    except Exception as error:  # whatever a damaged file leads Orbax to
      fault = _in_words(error)
    gc.collect()
  return None, None, fault


def _whole(opened):
  """The checkpoints; one without its metrics is the rest of one that a killed process was deleting."""
  return [checkpoint for checkpoint in opened.orbax.checkpoints if checkpoint.metrics]


def _parts(state):
  """The parts of a state by name; those that are empty are left out, as in checkpoints of earlier versions."""
  parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "step"}
  return {name: part for name, part in parts.items() if name in _ALWAYS or jax.tree.leaves(part)}


def _fault_of_json(file):
  try:
    float(json.loads(file.read_bytes())[_BEST_BY])
  except (ValueError, TypeError, KeyError) as error:
    return _in_words(error)
  return ""


def _set_aside(folder, step, fault, report):
  aside = pathlib.Path(folder).parent / "damaged"

  def move():
    aside.mkdir(exist_ok=True)
    free = next(n for n in range(1000) if not (aside / f"{step}.{n}").exists())
    os.replace(pathlib.Path(folder) / str(step), aside / f"{step}.{free}")

  report(f"the checkpoint of step {step} is damaged ({fault or 'says another process'}); it is set aside in {aside}")
  distributed.on_first_process(move)


def _not_written(opened, failure):
  return errors.UserError(
    f"{opened.orbax.directory}: the checkpoint cannot be written: {_in_words(failure)}; those before it are untouched"
  )


def _in_words(error):
  return f"{type(error).__name__}: {errors.one_line(error)}"


def _abstract(leaf, sharding=None):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding)

"""Saving and restoring the training state: the only place that knows Orbax. Kept are the last and the best."""

import math
import sys

import jax
from orbax.checkpoint import v1 as ocp

from ae_jax.steps import TrainState

_BEST_BY = "squared_error"


def open_folder(folder, to_save):
  """Orbax's checkpointer for a folder, to be used in a `with`; leaving it waits for the save under way.

  Opened `to_save`, what a killed process left half saved is swept away; opened to load, nothing is touched.
  """
  policies = ocp.training.preservation_policies
  best = policies.BestN(
    get_metric_fn=lambda metrics: metrics[_BEST_BY], reverse=True, n=1, keep_checkpoints_without_metrics=False
  )
  return ocp.training.Checkpointer(
    folder.absolute(),
    save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
    preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), best]),
    cleanup_tmp_directories=to_save,
  )


def save(checkpointer, state, squared_error):
  """Starts saving; training may go on at once. The smallest `squared_error` so far is the best; NaN never is."""
  error = squared_error if math.isfinite(squared_error) else sys.float_info.max
  parts = {"params": state.params, "opt_state": state.opt_state}
  checkpointer.save_checkpointables_async(int(state.step), parts, metrics={_BEST_BY: error})


def steps(checkpointer):
  """{"last": step, "best": step} of the checkpoints there are; {} where there is none.

  One without its metrics is the rest of one that a killed process was deleting.
  """
  kept = [checkpoint for checkpoint in checkpointer.checkpoints if checkpoint.metrics]
  if not kept:
    return {}
  best = min(kept, key=lambda checkpoint: (checkpoint.metrics[_BEST_BY], checkpoint.step))
  return {"last": max(checkpoint.step for checkpoint in kept), "best": best.step}


def restore(checkpointer, step, like):
  """The state saved at a step, with the types and placements of `like`."""
  abstract = jax.tree.map(_abstract, {"params": like.params, "opt_state": like.opt_state})
  parts = checkpointer.load_checkpointables(step, abstract)
  return TrainState(jax.device_put(jax.numpy.int32(step), like.step.sharding), **parts)


def restore_params(checkpointer, step, like):
  """The parameters saved at a step, on the first device, for abstract parameters `like`."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(lambda leaf: _abstract(leaf, device), like)
  return checkpointer.load_checkpointables(step, {"params": abstract})["params"]


def _abstract(leaf, sharding=None):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding)

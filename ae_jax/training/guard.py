"""The divergence guard: repeats a chunk of steps with half the learning rate if the training diverges in it.

A chunk consists of the steps that one compiled call runs. `steps.train_chunk` tells whether the loss of each step, the
parameters after the chunk and their loss are finite, and whether the loss is far above its earlier level. So the state
before a chunk is always one from which training can go on. The number of halvings is part of the optimizer state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ae_jax.system import distributed
from ae_jax.training.optimizers import Guard
from ae_jax.training.state import TrainState

BLOW_UP = 3.0  # a chunk with a median loss above this multiple of the earlier level has diverged
HALVED = "halved"  # name of the term with the number of halvings: in the first step of a chunk, 0 in the others
_LEAST_SCALE = 2.0**-30  # the rate is not halved further; the training then fails as without the guard
_ENOUGH = 2.0**-10  # a high loss with this part of the rate has another cause, such as a schedule of the objective


def with_level(
  state: TrainState, losses: Float[Array, " steps_and_1"], finite: Bool[Array, ""]
) -> tuple[TrainState, Bool[Array, ""]]:
  """Returns the state with the next `optimizers.Guard.level`, and whether the loss is finite and not far above it.

  Args:
    state: The state after a chunk.
    losses: The loss before each step, and the loss after the chunk. A state with finite parameters can have a loss that
      is not finite; training cannot go on from it.
    finite: Whether the losses of the steps and the parameters after the chunk are finite.

  Returns:
    The state, and whether the median of the losses after the first step is at most `BLOW_UP` times the largest median
    of the earlier chunks of the stage. The median ignores a single batch with outliers. If the losses are not finite,
    the next level is NaN.
  """
  guard = _guard(state)
  before = jnp.where(guard.level == 0.0, jnp.abs(losses[0]), guard.level)
  median = jnp.where(finite & jnp.isfinite(losses[-1]), jnp.median(losses[1:]), jnp.nan)
  level = jnp.maximum(before, median)
  return _with_guard(state, guard._replace(level=level)), median <= BLOW_UP * before


def halving(train_chunk: Callable) -> Callable:
  """Returns a function like `train_chunk` that repeats a chunk with half the rate as long as the training diverges.

  Args:
    train_chunk: Function (state, rows, weights) -> (state, terms, finite), as in `compiled_stage.CompiledStage`. Of
      sweep members that train together, only those that diverge get half the rate.

  Returns:
    The function. Its terms have another entry `HALVED`. A high loss that half the rate does not lower is accepted.
  """

  def train(state: TrainState, *batches: Any) -> tuple[TrainState, dict[str, Any], np.ndarray]:
    new, terms, finite = train_chunk(state, *batches)
    if np.asarray(finite).all():
      return new, {**terms, HALVED: np.zeros(np.shape(finite), np.int32)}, np.asarray(finite)
    scale = original = np.asarray(_guard(state).scale)
    kept = np.full(scale.shape, np.nan, np.float32)  # scale to return to if half the rate does not help
    accepted = np.zeros(scale.shape, bool)
    while True:
      finite = np.asarray(finite)
      failed = ~finite.all(-1)
      high = failed & np.isfinite(np.asarray(_guard(new).level))
      kept = np.where(high & np.isnan(kept), scale, kept)
      useless = high & ~accepted & (scale <= _ENOUGH * kept)
      accepted |= useless
      halved = failed & ~accepted & (scale > _LEAST_SCALE)
      if not (useless | halved).any():
        break
      scale = np.where(useless, kept, np.where(halved, scale / 2, scale))
      del new, terms  # their memory is free for the repetition
      new, terms, finite = train_chunk(_with_scale(state, scale, original), *batches)
    counts = np.zeros(finite.shape, np.int32)
    counts[..., 0] = np.round(np.log2(original / scale))
    return new, {**terms, HALVED: counts}, finite | high[..., None]

  return train


def at_smallest_rate(state: TrainState) -> TrainState:
  """Returns the state with the smallest rate that was tried before the training fails; unchanged without a guard."""
  if not isinstance(state.opt_state[-1], Guard):
    return state
  scale = np.asarray(_guard(state).scale)
  return _with_scale(state, np.full_like(scale, _LEAST_SCALE), scale)


def _guard(state: TrainState) -> Guard:
  return state.opt_state[-1]


def _with_scale(state: TrainState, scale: np.ndarray, original: np.ndarray) -> TrainState:
  """Returns the state with another scale; the state itself if the scale is the original one."""
  if (scale == original).all():
    return state
  guard = _guard(state)
  placed = distributed.put(scale.astype(np.float32), guard.scale.sharding)
  return _with_guard(state, guard._replace(scale=placed))


def _with_guard(state: TrainState, guard: Guard) -> TrainState:
  return dataclasses.replace(state, opt_state=(*state.opt_state[:-1], guard))

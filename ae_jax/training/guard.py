"""The divergence guard: if training diverges in a chunk of steps, the chunk is repeated with half the learning rate.

A chunk consists of the steps that one compiled call runs. `steps.train_chunk` checks whether the loss of each step, the
parameters after the chunk and their loss are finite, and whether the loss is far above its earlier level. Therefore
training can always continue from the state before a chunk. The number of halvings is part of the optimizer state.
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
HALVED = "halved"  # name of a term: the number of halvings in the first step of a chunk, 0 in its other steps
_LEAST_SCALE = 2.0**-30  # smallest scale of the learning rate; if training diverges even then, it fails
_ENOUGH = 2.0**-10  # if the loss stays high at this scale, the rate is not the cause; e.g. a schedule raises the loss


def with_level(
  state: TrainState, losses: Float[Array, " steps_and_1"], finite: Bool[Array, ""]
) -> tuple[TrainState, Bool[Array, ""]]:
  """Updates `optimizers.Guard.level` after a chunk, and checks that the loss is finite and not far above the level.

  The level of a stage is the maximum of its first loss and of the median losses of its chunks so far. A single batch
  with outliers does not change a median.

  Args:
    state: The state after a chunk.
    losses: The loss before each step, and the loss after the chunk, which can be infinite or NaN even if the parameters
      are finite. Training cannot continue from such a state.
    finite: Whether the losses of the steps and the parameters after the chunk are finite.

  Returns:
    The state with the new level, and whether the median of the losses after the first step is at most `BLOW_UP` times
    the old level. If a loss or parameter is not finite, the new level is NaN and the result of the check is False.
  """
  guard = _guard(state)
  before = jnp.where(guard.level == 0.0, jnp.abs(losses[0]), guard.level)
  median = jnp.where(finite & jnp.isfinite(losses[-1]), jnp.median(losses[1:]), jnp.nan)
  level = jnp.maximum(before, median)
  return _with_guard(state, guard._replace(level=level)), median <= BLOW_UP * before


def halving(train_chunk: Callable) -> Callable:
  """Returns a function like `train_chunk` that repeats a chunk with half the rate as long as training diverges.

  If sweep members train together, the rate is halved only for members that diverge. If lower rates do not reduce a high
  loss, the rate is restored and the loss is accepted.

  Args:
    train_chunk: Function (state, rows, weights) -> (state, terms, finite), as in `compiled_stage.CompiledStage`.

  Returns:
    A function of the same form; its terms have the additional entry `HALVED`.
  """

  def train(state: TrainState, *batches: Any) -> tuple[TrainState, dict[str, Any], np.ndarray]:
    new, terms, finite = train_chunk(state, *batches)
    if np.asarray(finite).all():
      return new, {**terms, HALVED: np.zeros(np.shape(finite), np.int32)}, np.asarray(finite)
    scale = original = np.asarray(_guard(state).scale)
    kept = np.full(scale.shape, np.nan, np.float32)  # scale that is restored if lower rates do not help
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
  """Returns the state with the smallest scale of the learning rate, `_LEAST_SCALE`; unchanged without a guard."""
  if not isinstance(state.opt_state[-1], Guard):
    return state
  scale = np.asarray(_guard(state).scale)
  return _with_scale(state, np.full_like(scale, _LEAST_SCALE), scale)


def _guard(state: TrainState) -> Guard:
  return state.opt_state[-1]


def _with_scale(state: TrainState, scale: np.ndarray, original: np.ndarray) -> TrainState:
  """Returns the state with `Guard.scale` set to `scale`; `original` is its current value."""
  if (scale == original).all():
    return state
  guard = _guard(state)
  placed = distributed.put(scale.astype(np.float32), guard.scale.sharding)
  return _with_guard(state, guard._replace(scale=placed))


def _with_guard(state: TrainState, guard: Guard) -> TrainState:
  return dataclasses.replace(state, opt_state=(*state.opt_state[:-1], guard))

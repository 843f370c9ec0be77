"""Compilation of a pack: a group of sweep members that train together in one compiled program.

`build` compiles the pack if it fits into the memory budget. `choose_way` measures whether the members of a device train
faster side by side (`jax.vmap`) or in turn (`jax.lax.map`).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.data import placements
from ae_jax.models import cost
from ae_jax.sweep import compiled_pack, grid
from ae_jax.training.compiled_stage import CompiledStage
from ae_jax.training.device_arrays import DeviceData
from ae_jax.training.state import TrainState

_MIN_REMAINING = 30  # try the other way only if the remaining training takes at least 30 times as long as the trial
_MIN_SPEEDUP = 1.2  # switch only if at least 1.2x faster, so timing noise cannot flip the choice


@dataclasses.dataclass
class Pack:
  """Sweep members that train together in one compiled program, and the settings of their training."""

  members: list[grid.Member]
  padded_members: list[grid.Member]  # see `compiled_pack.pad_to_devices`
  device_data: DeviceData
  budget: float  # memory limit per device in bytes
  until: int  # number of epochs to train
  way: str  # a key of `compiled_pack.WAYS`
  measured: bool  # whether `way` is final: chosen by the user, or the result of a measurement
  baselines: dict[int, futures.Future]  # latent size -> future of the baselines {name: value}
  report: Callable[[str], None]  # called with each line of text for the user
  peak_bytes: int = 0  # per device, predicted by the compiler


class TooLarge(Exception):
  """Raised if the compiler predicts that the members do not fit in memory; `args[0]` members fit."""


def build(pack: Pack, number: int, state: TrainState) -> CompiledStage:
  """Compiles the functions of a training stage.

  Args:
    pack: The pack; `build` updates its `peak_bytes`.
    number: Index of the training stage.
    state: State of all members; the functions are compiled for its shapes.

  Raises:
    TooLarge: If the members do not fit in memory together.
    UserError: If one member per device does not fit in memory.
  """
  built = compiled_pack.build(pack.padded_members, pack.device_data, number, state, pack.way)
  pack.peak_bytes = max(pack.peak_bytes, built.peak_bytes)
  if built.peak_bytes > pack.budget:
    size, count = pack.device_data.batch_sharding.mesh.size, len(pack.padded_members)
    if count == size:
      raise errors.UserError(
        f"--budget_gib: one member needs {placements.format_gib(built.peak_bytes)} per device, but the limit is "
        f"{placements.format_gib(pack.budget)}; raise --budget_gib, or reduce the batch size or the model"
      )
    data_bytes = cost.bytes_of(jax.tree.leaves(pack.device_data.columns))
    fitting = int(count * (pack.budget - data_bytes) / (built.peak_bytes - data_bytes))
    raise TooLarge(max(size, min(fitting, count - 1) // size * size))
  futures.wait(pack.baselines.values())  # the baselines must not disturb later timings
  return dataclasses.replace(built, tune=functools.partial(choose_way, pack, number))


def choose_way(
  pack: Pack, number: int, built: CompiledStage, state: TrainState, batches: Sequence[Any], seconds: float
) -> CompiledStage:
  """Returns the faster compiled stage: `built`, or the same stage compiled with the other key of `compiled_pack.WAYS`.

  The other stage is compiled and run on a copy of the state, at most once per pack. This trial is skipped unless the
  rest of the training takes much longer than the trial.

  Args:
    pack: The pack; `way`, `measured` and `peak_bytes` are updated.
    number: Index of the training stage.
    built: The compiled stage in use.
    state: State after the last call of `built.train_chunk`.
    batches: Rows and weights of that call.
    seconds: Duration of that call.
  """
  if pack.measured:
    return built
  pack.measured = True
  batch_schedule, stage = pack.members[0].experiment.batch_schedule, pack.members[0].experiment.stages[number]
  state_bytes = cost.bytes_of(jax.tree.leaves(state)) // pack.device_data.batch_sharding.mesh.size
  last_epoch, chunk = min(stage.epochs.stop, pack.until), int(state.step) // batch_schedule.chunk
  remaining_seconds = seconds * (last_epoch * batch_schedule.chunks_per_epoch - chunk)
  trial_seconds = built.compile_seconds + seconds
  if remaining_seconds < _MIN_REMAINING * trial_seconds or built.peak_bytes + state_bytes > pack.budget:
    return built
  current, (way,) = pack.way, set(compiled_pack.WAYS) - {pack.way}
  other = compiled_pack.build(pack.padded_members, pack.device_data, number, state, way)
  if other.peak_bytes + state_bytes > pack.budget:
    return built
  speedup = seconds / _chunk_seconds(other, state, batches)
  if speedup > _MIN_SPEEDUP:
    built, pack.way, pack.peak_bytes = other, way, other.peak_bytes
  pack.report(f"each device computes its members {pack.way}: {way!r} has {speedup:.2f} times the speed of {current!r}")
  return built


def _chunk_seconds(built: CompiledStage, state: TrainState, batches: Sequence[Any]) -> float:
  """Returns the seconds that one call of `train_chunk` takes on a copy of the state."""
  state = jax.tree.map(jnp.copy, state)
  start_time = time.perf_counter()
  jax.block_until_ready(built.train_chunk(state, *batches))
  return time.perf_counter() - start_time

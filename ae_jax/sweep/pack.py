"""A pack of sweep members in training: compilation within the memory budget, and the choice of the faster way."""

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
from ae_jax.training.compiled_stage import CompiledStage, DeviceData
from ae_jax.training.state import TrainState

_MIN_REMAINING = 30  # try the other way only if the remaining training takes at least 30 times as long as the trial
_MIN_SPEEDUP = 1.2  # switch only if at least 1.2x faster, so timing noise cannot flip the choice


@dataclasses.dataclass
class Pack:
  """Members that are trained together, and the state of their training."""

  members: list[grid.Member]
  padded_members: list[grid.Member]  # see `compiled_pack.pad_to_devices`
  device_data: DeviceData
  budget: float  # bytes of a device
  until: int  # number of epochs
  way: str  # a key of `compiled_pack.WAYS`
  measured: bool  # whether `way` is final
  baselines: dict[int, futures.Future]  # latent size -> {name: value} of the evaluators' baselines
  report: Callable[[str], None]
  peak_bytes: int = 0  # of a device, as the compiler predicts it


class TooLarge(Exception):
  """A pack does not fit in memory, as the compiler predicts it; `args[0]` is the number of members that fit."""


def build(pack: Pack, number: int, state: TrainState) -> CompiledStage:
  """Compiles the functions of a stage.

  Raises:
    TooLarge: If the pack does not fit in memory.
    UserError: If not even one member per device fits.
  """
  built = compiled_pack.build(pack.padded_members, pack.device_data, number, state, pack.way)
  pack.peak_bytes = max(pack.peak_bytes, built.peak_bytes)
  if built.peak_bytes > pack.budget:
    size, count = pack.device_data.batch_sharding.mesh.size, len(pack.padded_members)
    if count == size:
      raise errors.UserError(
        f"--budget_gib: a member needs {placements.format_gib(built.peak_bytes)} on a device, but may use "
        f"{placements.format_gib(pack.budget)}; use a smaller batch or model"
      )
    data_bytes = cost.bytes_of(jax.tree.leaves((pack.device_data.train, pack.device_data.test)))
    fitting = int(count * (pack.budget - data_bytes) / (built.peak_bytes - data_bytes))
    raise TooLarge(max(size, min(fitting, count - 1) // size * size))
  futures.wait(pack.baselines.values())  # they ran during compilation, and must not disturb the timings that follow
  return dataclasses.replace(built, tune=functools.partial(choose_way, pack, number))


def choose_way(
  pack: Pack, number: int, built: CompiledStage, state: TrainState, batches: Sequence[Any], seconds: float
) -> CompiledStage:
  """Measures the other way to compute the members, once and if that can pay; returns the faster functions.

  A trial can pay if the rest of the stage takes much longer than compiling the other way and running it on a copy of
  the state.

  Args:
    pack: The pack.
    number: Number of the stage.
    built: Functions of the stage in use.
    state: State after the last chunk.
    batches: The last chunk.
    seconds: Time that `built` took for it.
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
  (way,) = set(compiled_pack.WAYS) - {pack.way}
  other = compiled_pack.build(pack.padded_members, pack.device_data, number, state, way)
  if other.peak_bytes + state_bytes > pack.budget:
    return built
  speedup = seconds / _chunk_seconds(other, state, batches)
  if speedup > _MIN_SPEEDUP:
    built, pack.way, pack.peak_bytes = other, way, other.peak_bytes
  pack.report(f"the members of a device are computed {pack.way}: {way} has {speedup:.2f} times the speed of the other")
  return built


def _chunk_seconds(built: CompiledStage, state: TrainState, batches: Sequence[Any]) -> float:
  """Returns the seconds for training a chunk on a copy of the state."""
  state = jax.tree.map(jnp.copy, state)
  start_time = time.perf_counter()
  jax.block_until_ready(built.train_chunk(state, *batches))
  return time.perf_counter() - start_time

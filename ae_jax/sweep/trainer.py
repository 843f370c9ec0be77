"""Training of sweep members in packs that fit in memory; each member gets a run folder."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ae_jax import evaluators
from ae_jax.data import placements
from ae_jax.models import memory
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.sweep import compiled_pack, grid
from ae_jax.sweep import pack as packs
from ae_jax.training import loop
from ae_jax.training.state import TrainState
from ae_jax.types import AnyArray

PACKS = ".packs"  # subfolder of a sweep folder for the checkpoints of unfinished packs
AUTO = "auto"
_MAX_MEMBERS = 200  # of a pack, because each member has three open files


@dataclasses.dataclass(frozen=True)
class SweepOptions:
  """Options for training the members of a sweep."""

  way: str = AUTO  # a key of `compiled_pack.WAYS`, or AUTO to measure the faster one
  budget_gib: float = 0.0  # memory of a device for a pack in GiB; 0 for all free memory
  until: int | None = None  # number of epochs; None for all


@dataclasses.dataclass(frozen=True)
class MemberResult:
  """Result of training one member; its metrics are in the folder of its run."""

  diverged: int | None  # first step with a non-finite loss or gradient
  way: str  # a key of `compiled_pack.WAYS`
  seconds: float  # wall time of its pack, divided by the number of members
  peak_bytes: int  # of a device, as the compiler predicted it for the pack; 0 if no training was left


def train(
  members: Sequence[grid.Member],
  workdir: Path,
  mesh: Mesh,
  options: SweepOptions,
  received: Callable[[], str],
  report: Callable[[str], None] = print,
) -> Iterator[dict[str, MemberResult]]:
  """Trains members that share a program, in packs as large as the memory allows, from their checkpoints if any.

  Args:
    members: Members with the same program; see `grid.packs`.
    workdir: Folder of the sweep, with a run folder for each member.
    mesh: Devices.
    options: Options of the sweep.
    received: See `preemption.catch_signals`.
    report: Receives lines for the user.

  Yields {name: MemberResult} of each pack.

  Raises:
    UserError: If a single member does not fit in memory, or a file cannot be written.
    Interrupted: After a signal has stopped the training and the state was saved.
  """
  budget = options.budget_gib * 2**30 or memory.device_share(mesh.size)
  remaining, size = list(members), min(_MAX_MEMBERS, _max_members(members, mesh, budget))
  while remaining:
    start_time, pack = time.monotonic(), remaining[:size]
    try:
      diverged_steps, way, peak_bytes = _train_pack(
        pack, workdir, mesh, options, budget, received=received, report=report
      )
    except packs.TooLarge as error:
      (size,) = error.args
      continue
    if len(remaining) == len(members) > size:
      report(
        f"{size} of {len(members)} members at a time: they need {placements.format_gib(peak_bytes)} on each device"
      )
    seconds = (time.monotonic() - start_time) / len(pack)
    yield {name: MemberResult(diverged, way, seconds, peak_bytes) for name, diverged in diverged_steps.items()}
    remaining = remaining[size:]


def _max_members(members: Sequence[grid.Member], mesh: Mesh, budget: float) -> int:
  """Returns how many members fit by their states alone, an upper bound that needs no compilation."""
  return mesh.size * max(1, int(budget // compiled_pack.state_bytes(compiled_pack.widest(members))))


def _train_pack(
  members: Sequence[grid.Member],
  workdir: Path,
  mesh: Mesh,
  options: SweepOptions,
  budget: float,
  *,
  received: Callable[[], str],
  report: Callable[[str], None],
) -> tuple[dict[str, int | None], str, int]:
  """Trains a pack; returns {name: step at which it diverged, or None}, the way, and the peak bytes of a device."""
  until = options.until or members[0].experiment.stages[-1].epochs.stop
  names = "\n".join([*(member.name for member in members), str(until)])
  pack_folder = workdir / PACKS / hashlib.sha256(names.encode()).hexdigest()[:16]
  with contextlib.ExitStack() as stack, memory.explain_out_of_memory():
    descriptions = [_begin(member, workdir, mesh, stack) for member in members]
    padded_members = compiled_pack.pad_to_devices(list(members), mesh)
    device_data = compiled_pack.place_data(padded_members, mesh)
    checkpoint_folder = stack.enter_context(checkpoints.open_folder(pack_folder / "checkpoints", True, report))
    state, notes = _restore(checkpoint_folder, members, padded_members, device_data, workdir, report)
    way = notes.get("way") or options.way
    measured, way = way != AUTO, compiled_pack.default_way(mesh) if way == AUTO else way
    baselines = _baselines(members)
    pack = packs.Pack(list(members), padded_members, device_data, budget, until, way, measured, baselines, report)
    recorders = []
    for index, (member, description) in enumerate(zip(members, descriptions, strict=True)):
      log = logs.Log(workdir / member.name, int(state.step), description, member.experiment.config.trackers)
      recorders.append(_recorder(pack, index, stack.enter_context(log), int(state.step), *notes["courses"][index]))
    state = loop.train(_training(pack, recorders, checkpoint_folder, received), state)
    for recorder, member, member_state in zip(
      recorders, members, compiled_pack.member_states(members, state), strict=True
    ):
      if recorder.diverged is None:
        _export(member_state, member, workdir, stack)
        if options.until is None:
          recorder.log.finish({}, {})
  shutil.rmtree(pack_folder)
  diverged_steps = {member.name: recorder.diverged for member, recorder in zip(members, recorders, strict=True)}
  return diverged_steps, pack.way, pack.peak_bytes


def _begin(member: grid.Member, workdir: Path, mesh: Mesh, stack: contextlib.ExitStack) -> dict[str, Any]:
  """Locks the run folder of a member until `stack` closes, writes its config.json, and returns the content."""
  experiment = member.experiment
  stack.enter_context(run_folder.locked(workdir / member.name))
  description = run_folder.describe(experiment.config, experiment.dataset, experiment.model, mesh.devices.flat)
  run_folder.begin(workdir / member.name, description)
  return description


def _recorder(
  pack: packs.Pack, index: int, log: logs.Log | logs.NullLog, step: int, pending: Sequence[Any], diverged: int | None
) -> loop.Recorder:
  """Returns the `loop.Recorder` of a member, which continues after `step`."""
  member = pack.members[index]
  windows = logs.WindowAverages(
    member.experiment.config.log_every_steps, member.experiment.batch_schedule.steps, step, pending
  )
  metrics = functools.partial(_metrics, member, index, pack.device_data.test_weights)
  return loop.Recorder(log, windows, metrics, lambda: pack.baselines[member.latent].result(), diverged)


def _training(
  pack: packs.Pack,
  recorders: list[loop.Recorder],
  checkpoint_folder: checkpoints.CheckpointFolder,
  received: Callable[[], str],
) -> loop.Training:
  """Returns the `loop.Training` of a pack."""
  return loop.Training(
    pack.members[0].experiment,
    recorders,
    build=functools.partial(packs.build, pack),
    feed=functools.partial(compiled_pack.feed, pack.padded_members),
    checkpoint=functools.partial(_checkpoint, pack, recorders),
    checkpoint_folder=checkpoint_folder,
    received=received,
    until=pack.until,
    sparse=True,
  )


def _restore(
  checkpoint_folder: checkpoints.CheckpointFolder,
  members: Sequence[grid.Member],
  padded_members: Sequence[grid.Member],
  device_data: compiled_pack.DeviceData,
  workdir: Path,
  report: Callable[[str], None],
) -> tuple[TrainState, dict[str, Any]]:
  """Returns the state and the notes from which a pack continues.

  They come from the pack's checkpoint; without one from the members' own checkpoints, if all are at the same step;
  otherwise training starts at step 0.
  """
  initial = compiled_pack.start(padded_members, device_data)
  restored = checkpoints.restore(checkpoint_folder, compiled_pack.to_save(initial, len(members)), report)
  if restored:
    state, notes = restored
    return compiled_pack.from_saved(state, device_data), notes
  new_notes = {"courses": [([], None)] * len(members)}
  if len({checkpoints.newest_step(workdir / member.name / "checkpoints") for member in members} - {None}) != 1:
    return initial, new_notes
  member_checkpoints = []
  for member in members:
    with checkpoints.open_folder(workdir / member.name / "checkpoints", True, report) as folder:
      abstract = compiled_pack.abstract_member_state(member)
      member_checkpoints.append(checkpoints.restore(folder, abstract, report))
  # notes are left by single runs that were interrupted within an epoch; a pack cannot continue these
  if None in member_checkpoints or any(notes for _, notes in member_checkpoints):
    return initial, new_notes
  states = [state for state, _ in member_checkpoints]
  if len({int(state.step) for state in states}) != 1:
    return initial, new_notes
  return compiled_pack.join(members, states, device_data), new_notes


def _baselines(members: Sequence[grid.Member]) -> dict[int, futures.Future]:
  """Returns {latent size: future of the evaluators' baselines {name: value}}, which a thread computes."""
  experiment, codes = members[0].experiment, {member.latent: member.experiment.model.code for member in members}
  compute = lambda code: dict(evaluators.baselines(experiment.evaluators, experiment.dataset, code))
  executor = futures.ThreadPoolExecutor(1)
  return {latent: executor.submit(compute, code) for latent, code in sorted(codes.items())}


def _metrics(
  member: grid.Member, index: int, test_weights: AnyArray, losses: AnyArray, values: Mapping[str, AnyArray]
) -> dict[str, Any]:
  """Returns the test metrics of a member, {name: value}, from the results of `evaluate` for all members."""
  experiment = member.experiment
  member_values = compiled_pack.member_values(member, {name: rows[index] for name, rows in values.items()})
  return dict(evaluators.metrics(experiment.evaluators, losses[index], member_values, test_weights, experiment.dataset))


def _checkpoint(
  pack: packs.Pack, recorders: Sequence[loop.Recorder], state: TrainState, records: Sequence[Any]
) -> tuple[TrainState, float, dict[str, Any]]:
  """Returns what to save of a pack: the state, an infinite error because no checkpoint is the best, and notes."""
  del records
  notes: dict[str, Any] = {"courses": [(recorder.windows.pending, recorder.diverged) for recorder in recorders]}
  notes |= {"way": pack.way} if pack.measured else {}
  return compiled_pack.to_save(state, len(recorders)), np.inf, notes


def _export(state: TrainState, member: grid.Member, workdir: Path, stack: contextlib.ExitStack) -> None:
  """Starts saving the state of a member as a checkpoint of its run; closing `stack` waits for it."""
  folder = workdir / member.name
  error = logs.read(folder)[-1]["test/squared_error"]
  checkpoint_folder = stack.enter_context(checkpoints.open_folder(folder / "checkpoints", True))
  if not checkpoints.has_step(checkpoint_folder, int(state.step)):
    checkpoints.save(checkpoint_folder, state, error, {})

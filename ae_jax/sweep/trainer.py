"""Training of sweep members in packs: groups that train in one compiled program and fit in memory together.

Each member gets its own run folder.
"""

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
from ae_jax.runs import checkpoints, logs, metric_names, outages, run_folder
from ae_jax.sweep import compiled_pack, grid
from ae_jax.sweep import pack as packs
from ae_jax.training import loop
from ae_jax.training.state import TrainState
from ae_jax.types import AnyArray

PACKS = ".packs"  # subfolder of the sweep folder for checkpoints of unfinished packs
AUTO = "auto"
_MAX_MEMBERS = 200  # per pack, because each member has three open files


@dataclasses.dataclass(frozen=True)
class SweepOptions:
  """Options for training sweep members."""

  way: str = AUTO  # a key of `compiled_pack.WAYS`, or AUTO to measure the faster one
  budget_gib: float = 0.0  # memory limit per device for members that train together; 0 for all free memory
  until: int | None = None  # number of epochs to train; None for all


@dataclasses.dataclass(frozen=True)
class MemberResult:
  """Result of training one sweep member; its metrics are in its run folder."""

  diverged: int | None  # first step with a non-finite loss or gradient; None if there is none
  way: str  # a key of `compiled_pack.WAYS`
  seconds: float  # wall time of the pack, divided by its number of members
  peak_bytes: int  # per device for the whole pack, predicted by the compiler; 0 if all epochs were trained before


def train(
  members: Sequence[grid.Member],
  workdir: Path,
  mesh: Mesh,
  options: SweepOptions,
  received: Callable[[], str],
  report: Callable[[str], None] = print,
) -> Iterator[dict[str, MemberResult]]:
  """Trains members or resumes their training; trains as many members together as fit in memory.

  Args:
    members: Members that can share a compiled program; see `grid.packs`.
    workdir: The sweep folder, with a run folder for each member.
    mesh: The devices.
    options: Options of the sweep.
    received: Returns the name of a received signal; see `preemption.catch_signals`.
    report: Called with each line of text for the user.

  Yields:
    {member name: MemberResult} of the members that trained together.

  Raises:
    UserError: If a single member does not fit in memory, or a file cannot be written.
    Interrupted: If a signal stops the training; the state is saved.
  """
  budget = options.budget_gib * 2**30 or memory.device_share(mesh.size)
  remaining, size = list(members), min(_MAX_MEMBERS, _max_members(members, mesh, budget))
  while remaining:
    start_time, pack = time.monotonic(), remaining[:size]
    attempt = functools.partial(_train_pack, pack, workdir, mesh, options, budget, received=received, report=report)
    try:
      pack_result = outages.resume(attempt, _pack_folder(pack, workdir, options), report)
    except packs.TooLarge as error:
      (size,) = error.args
      continue
    if len(remaining) == len(members) > size:
      report(_describe_split(size, len(members), pack_result[-1]))
    yield _member_results(*pack_result, seconds=(time.monotonic() - start_time) / len(pack))
    remaining = remaining[size:]


def _describe_split(size: int, count: int, peak_bytes: int) -> str:
  return f"training {size} of {count} members at a time, which needs {placements.format_gib(peak_bytes)} per device"


def _member_results(
  diverged_steps: Mapping[str, int | None], way: str, peak_bytes: int, *, seconds: float
) -> dict[str, MemberResult]:
  """Returns {member name: MemberResult} from the result of `_train_pack`."""
  return {name: MemberResult(diverged, way, seconds, peak_bytes) for name, diverged in diverged_steps.items()}


def _max_members(members: Sequence[grid.Member], mesh: Mesh, budget: float) -> int:
  """Returns an upper bound on the number of members that fit, from the sizes of their states; compiles nothing."""
  return mesh.size * max(1, int(budget // compiled_pack.state_bytes(grid.widest(members))))


def _until(members: Sequence[grid.Member], options: SweepOptions) -> int:
  """Returns the last epoch to train."""
  return options.until or members[0].experiment.stages[-1].epochs.stop


def _pack_folder(members: Sequence[grid.Member], workdir: Path, options: SweepOptions) -> Path:
  """Returns the folder of the checkpoints of members that train together."""
  names = "\n".join([*(member.name for member in members), str(_until(members, options))])
  return workdir / PACKS / hashlib.sha256(names.encode()).hexdigest()[:16]


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
  """Trains members together; returns {name: step of divergence or None}, the `way` used, and peak bytes per device."""
  until, pack_folder = _until(members, options), _pack_folder(members, workdir, options)
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
  """Locks a member's run folder until `stack` closes; writes config.json there and returns its content."""
  experiment = member.experiment
  stack.enter_context(run_folder.locked(workdir / member.name))
  description = run_folder.describe(experiment.config, experiment.dataset, experiment.model, mesh.devices.flat)
  run_folder.begin(workdir / member.name, description)
  return description


def _recorder(
  pack: packs.Pack, index: int, log: logs.Log | logs.NullLog, step: int, pending: Sequence[Any], diverged: int | None
) -> loop.Recorder:
  """Returns the `loop.Recorder` of the member at `index`, whose training continues after `step`."""
  member = pack.members[index]
  windows = logs.WindowAverages(
    member.experiment.config.log_every_steps, member.experiment.batch_schedule.steps, step, pending
  )
  weights = {split: evaluated.weights for split, evaluated in pack.device_data.evaluated.items()}
  metrics = functools.partial(_metrics, member, index, weights)
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

  The state comes from the checkpoint of the pack. Without that checkpoint, it comes from the checkpoints of the members
  if all of them are at the same step. Otherwise training starts at step 0.
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
  # there are notes if a single run was interrupted within an epoch; a pack cannot continue such a run
  if None in member_checkpoints or any(notes for _, notes in member_checkpoints):
    return initial, new_notes
  states = [state for state, _ in member_checkpoints]
  if len({int(state.step) for state in states}) != 1:
    return initial, new_notes
  return compiled_pack.join(members, states, device_data), new_notes


def _baselines(members: Sequence[grid.Member]) -> dict[int, futures.Future]:
  """Starts a thread that computes the baselines; returns {latent size: future of {baseline name: value}}."""
  experiment, codes = members[0].experiment, {member.latent: member.experiment.model.code for member in members}
  compute = lambda code: dict(evaluators.baselines(experiment.evaluators, experiment.dataset, code))
  executor = futures.ThreadPoolExecutor(1)
  return {latent: executor.submit(compute, code) for latent, code in sorted(codes.items())}


def _metrics(
  member: grid.Member,
  index: int,
  weights: Mapping[str, AnyArray],
  results: Mapping[str, tuple[AnyArray, Mapping[str, AnyArray]]],
) -> dict[str, Any]:
  """Returns the metrics {name: value} of the member at `index`, from the evaluation results of all members."""
  experiment = member.experiment
  member_results = {}
  for split, (losses, values) in results.items():
    member_values = compiled_pack.member_values(member, {name: rows[index] for name, rows in values.items()})
    member_results[split] = (losses[index], member_values)
  return evaluators.metrics_of_splits(
    experiment.evaluators, experiment.model, member_results, weights, experiment.dataset
  )


def _checkpoint(
  pack: packs.Pack, recorders: Sequence[loop.Recorder], state: TrainState, records: Sequence[Any]
) -> tuple[TrainState, float, dict[str, Any]]:
  """Returns (state, error, notes) to save for a pack; the error is infinite, because a pack has no best checkpoint."""
  del records
  notes: dict[str, Any] = {"courses": [(recorder.windows.pending, recorder.diverged) for recorder in recorders]}
  notes |= {"way": pack.way} if pack.measured else {}
  return compiled_pack.to_save(state, len(recorders)), np.inf, notes


def _export(state: TrainState, member: grid.Member, workdir: Path, stack: contextlib.ExitStack) -> None:
  """Starts to save the state of a member as a checkpoint of its run; closing `stack` waits for the save."""
  folder = workdir / member.name
  record = logs.read(folder)[-1]
  error = record[metric_names.selection_key(record)]
  checkpoint_folder = stack.enter_context(checkpoints.open_folder(folder / "checkpoints", True))
  if not checkpoints.has_step(checkpoint_folder, int(state.step)):
    checkpoints.save(checkpoint_folder, state, error, {})

"""Packs of sweep members: how many fit the memory, how they are computed, and the folder of a run for each of them."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil
import time
from collections.abc import Callable
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import errors, evaluators
from ae_jax.data import placements
from ae_jax.models import cost, memory
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.sweep import compiled_pack, grid
from ae_jax.training import loop

PARTS = ".packs"  # the subfolder of a sweep with the checkpoints of unfinished packs
AUTO = "auto"
_MOST = 200  # members of a pack: each has three open files
_WORTH = 30  # try the other way where the training left takes at least this many times as long as the trial
_CLEARLY = 1.2  # switch only to a way this many times as fast, so that timing noise does not decide


@dataclasses.dataclass(frozen=True)
class SweepOptions:
  """How the members of a sweep are trained."""

  way: str = AUTO  # one of `compiled_pack.WAYS`, or measured
  budget_gib: float = 0.0  # memory of a device for a pack; 0: all that is free
  until: int | None = None  # epochs; None: all


@dataclasses.dataclass(frozen=True)
class MemberResult:
  """Result of training one member; its metrics are in the folder of its run."""

  diverged: int | None  # the first step with a non-finite loss or gradient
  way: str  # one of `compiled_pack.WAYS`
  seconds: float  # its share of the time that its pack took
  peak_bytes: int  # of a device, as the compiler predicted it for the pack; 0 where nothing was left to train


@dataclasses.dataclass
class _Pack:
  """Members that are trained together, and how."""

  members: list[grid.Member]
  filled: list[grid.Member]  # as many for each device; see `compiled_pack.filled`
  device_data: compiled_pack.DeviceData
  budget: float  # bytes of a device
  until: int  # epochs
  way: str
  measured: bool  # whether `way` is settled
  baselines: dict  # latent size -> future of the evaluators' reference values, by name
  report: Callable[[str], None]
  peak_bytes: int = 0  # as the compiler predicts it


class _TooLarge(Exception):
  """The compiler predicts that a pack does not fit; `args[0]` is the number of members that do."""


def train(members, workdir, mesh, options, received, report=print):
  """Trains members that share a program, or continues that, and leaves the folder of a run for each in `workdir`.

  The members are trained in packs, each as large as the memory of the devices allows. Yields {name: MemberResult} of each
  pack. Raises UserError, and Interrupted when a signal has stopped the training, which is saved.
  """
  budget = options.budget_gib * 2**30 or memory.share(mesh.size)
  left, size = list(members), min(_MOST, _most(members, mesh, budget))
  while left:
    begun, pack = time.monotonic(), left[:size]
    try:
      ended, *how = _train_pack(pack, workdir, mesh, options, budget, received, report)
    except _TooLarge as refused:
      (size,) = refused.args
      continue
    way, peak_bytes = how
    if len(left) == len(members) > size:
      report(f"{size} of {len(members)} members at a time: they take {placements.gib(peak_bytes)} of a device")
    seconds = (time.monotonic() - begun) / len(pack)
    yield {name: MemberResult(diverged, way, seconds, peak_bytes) for name, diverged in ended.items()}
    left = left[size:]


def _most(members, mesh, budget):
  """Returns how many members fit by their states alone: an upper bound that needs no compilation."""
  return mesh.size * max(1, int(budget // compiled_pack.state_bytes(compiled_pack.widest(members))))


def _train_pack(members, workdir, mesh, options, budget, received, report):
  """Trains a pack; returns {name: the step at which it diverged, or None}, the way, and the peak bytes of a device."""
  until = options.until or members[0].experiment.stages[-1].epochs.stop
  names = "\n".join([*(member.name for member in members), str(until)])
  kept = workdir / PARTS / hashlib.sha256(names.encode()).hexdigest()[:16]
  with contextlib.ExitStack() as stack, memory.explained():
    descriptions = []
    for member in members:
      experiment = member.experiment
      stack.enter_context(run_folder.locked(workdir / member.name))
      descriptions.append(
        run_folder.describe(experiment.config, experiment.dataset, experiment.model, mesh.devices.flat)
      )
      run_folder.begin(workdir / member.name, descriptions[-1])
    filled = compiled_pack.filled(members, mesh)
    device_data = compiled_pack.place(filled, mesh)
    opened = stack.enter_context(checkpoints.open_folder(kept / "checkpoints", True, report))
    state, notes = _restored(opened, members, filled, device_data, workdir, report)
    way = notes.get("way") or options.way
    settled, first = way != AUTO, compiled_pack.likely(mesh) if way == AUTO else way
    pack = _Pack(members, filled, device_data, budget, until, first, settled, _baselines(members), report)
    courses = []
    for index, (member, description) in enumerate(zip(members, descriptions, strict=True)):
      log = logs.Log(workdir / member.name, int(state.step), description, member.experiment.config.trackers)
      courses.append(_course(pack, index, stack.enter_context(log), int(state.step), *notes["courses"][index]))
    state = loop.train(_training(pack, courses, opened, received), state)
    for course, member, own in zip(courses, members, compiled_pack.own_states(members, state), strict=True):
      if course.diverged is None:
        _export(own, member, workdir, stack)
        if options.until is None:
          course.log.finish({}, {})
  shutil.rmtree(kept)
  diverged = {member.name: course.diverged for member, course in zip(members, courses, strict=True)}
  return diverged, pack.way, pack.peak_bytes


def _course(pack, index, log, step, pending, diverged):
  """Returns the `loop.Course` of a member, which continues after `step`."""
  member = pack.members[index]
  windows = logs.Windows(
    member.experiment.config.log_every_steps, member.experiment.batch_schedule.steps, step, pending
  )
  metrics = functools.partial(_metrics, member, index, pack.device_data.test_weights)
  return loop.Course(log, windows, metrics, lambda: pack.baselines[member.latent].result(), diverged)


def _training(pack, courses, opened, received):
  """Returns the `loop.Training` of a pack."""
  return loop.Training(
    pack.members[0].experiment,
    courses,
    build=functools.partial(_build, pack),
    feed=functools.partial(compiled_pack.feed, pack.filled),
    checkpoint=functools.partial(_checkpoint, pack, courses),
    opened=opened,
    received=received,
    until=pack.until,
    sparse=True,
  )


def _restored(opened, members, filled, device_data, workdir, report):
  """Returns the state and notes of the pack's checkpoint; else of the members' own, if at one step; else new ones."""
  start = compiled_pack.start(filled, device_data)
  found = checkpoints.restore(opened, compiled_pack.to_save(start, len(members)), report)
  if found:
    return compiled_pack.from_saved(found[0], device_data), found[1]
  new = {"courses": [([], None)] * len(members)}
  if len({checkpoints.newest(workdir / member.name / "checkpoints") for member in members} - {None}) != 1:
    return start, new
  own = []
  for member in members:
    with checkpoints.open_folder(workdir / member.name / "checkpoints", True, report) as folder:
      own.append(checkpoints.restore(folder, compiled_pack.own_like(member), report))
  if None in own or len({int(state.step) for state, _ in own}) != 1 or any(notes for _, notes in own):
    return start, new
  return compiled_pack.joined(members, [state for state, _ in own], device_data), new


def _baselines(members):
  """Returns {latent size: future of the evaluators' reference values, by name}, which a thread computes meanwhile."""
  experiment, codes = members[0].experiment, {member.latent: member.experiment.model.code for member in members}
  find = lambda code: dict(evaluators.baselines(experiment.evaluators, experiment.dataset, code))
  with_one_thread = futures.ThreadPoolExecutor(1)
  return {latent: with_one_thread.submit(find, code) for latent, code in sorted(codes.items())}


def _build(pack, number, state):
  """Compiles the programs of a stage; raises _TooLarge, or UserError if one member for each device does not fit."""
  built = compiled_pack.build(pack.filled, pack.device_data, number, state, pack.way)
  pack.peak_bytes = max(pack.peak_bytes, built.peak_bytes)
  if built.peak_bytes > pack.budget:
    size, data = (
      pack.device_data.split.mesh.size,
      cost.bytes_of(jax.tree.leaves((pack.device_data.train, pack.device_data.test))),
    )
    most = int(len(pack.filled) * (pack.budget - data) / (built.peak_bytes - data))
    most = min(most, len(pack.filled) - 1) // size * size
    if len(pack.filled) == size:
      raise errors.UserError(
        f"--budget_gib: a member needs {placements.gib(built.peak_bytes)} of a device, and may take "
        f"{placements.gib(pack.budget)}; make the batch or the model smaller"
      )
    raise _TooLarge(max(size, most))
  futures.wait(pack.baselines.values())  # computed while the compiler worked; from now on times are measured
  return dataclasses.replace(built, tune=functools.partial(_faster, pack, number))


def _faster(pack, number, built, state, batches, seconds):
  """Measures the other way of computing the members, once, where that can pay; returns the faster programs.

  `built` are the programs of the stage with this number; their last chunk, `batches`, took `seconds`. A trial can pay
  where the rest of the stage takes much longer than compiling the other way and trying it on a copy of the state.
  """
  if pack.measured:
    return built
  pack.measured = True
  schedule, stage = pack.members[0].experiment.batch_schedule, pack.members[0].experiment.stages[number]
  state_bytes = cost.bytes_of(jax.tree.leaves(state)) // pack.device_data.split.mesh.size
  left = min(stage.epochs.stop, pack.until) * schedule.chunks_per_epoch - int(state.step) // schedule.chunk
  if seconds * left < _WORTH * (built.compile_seconds + seconds) or built.peak_bytes + state_bytes > pack.budget:
    return built
  (way,) = set(compiled_pack.WAYS) - {pack.way}
  other = compiled_pack.build(pack.filled, pack.device_data, number, state, way)
  if other.peak_bytes + state_bytes > pack.budget:
    return built
  ratio = seconds / _seconds(other, state, batches)
  if ratio > _CLEARLY:
    built, pack.way, pack.peak_bytes = other, way, other.peak_bytes
  pack.report(f"the members of a device are computed {pack.way}: {way} is {ratio:.2f} times as fast as the other way")
  return built


def _seconds(built, state, batches):
  """Returns how long a chunk takes; it is trained on a copy of the state."""
  state = jax.tree.map(jnp.copy, state)
  begun = time.perf_counter()
  jax.block_until_ready(built.train_chunk(state, *batches))
  return time.perf_counter() - begun


def _metrics(member, index, test_weights, losses, values):
  """Returns the test metrics of a member, {name: value}, from what `evaluate` computed for all members."""
  experiment = member.experiment
  own = compiled_pack.own_values(member, {name: rows[index] for name, rows in values.items()})
  return dict(evaluators.metrics(experiment.evaluators, losses[index], own, test_weights, experiment.dataset))


def _checkpoint(pack, courses, state, records):
  """Returns what is saved of a pack: the state of its members, no error, for none is the best, and notes."""
  del records
  notes = {"courses": [(course.windows.pending, course.diverged) for course in courses]}
  notes |= {"way": pack.way} if pack.measured else {}
  return compiled_pack.to_save(state, len(courses)), np.inf, notes


def _export(state, member, workdir, stack):
  """Starts saving the state of a member as that of the run in its folder; leaving the stack waits for it."""
  folder = workdir / member.name
  error = logs.read(folder)[-1]["test/squared_error"]
  opened = stack.enter_context(checkpoints.open_folder(folder / "checkpoints", True))
  if not checkpoints.holds(opened, int(state.step)):
    checkpoints.save(opened, state, error, {})

"""The training of members in packs: logged, saved and continued like a run, and in the end a run for each of them."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil
import time
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import checkpoints, cost, errors, evaluators, interruptions, logs, memory, runs
from ae_jax.data import placements
from ae_jax.sweep import grid, programs

PARTS = ".packs"  # the folder, in that of the sweep, of what is not finished
AUTO = "auto"
_MOST = 200  # members of a pack: each has three open files
_WORTH = 30  # times what it costs to try: what is left to train where another way of computing it is tried
_CLEARLY = 1.2  # times as fast


@dataclasses.dataclass(frozen=True)
class Orders:
  """How the members of a sweep are trained."""

  way: str = AUTO  # one of `programs.WAYS`, or measured
  budget_gib: float = 0.0  # of a device's memory for a pack; 0: what is there
  until: int | None = None  # epochs; None: all


@dataclasses.dataclass(frozen=True)
class Ended:
  """What became of a member; the rest stands in the folder of its run."""

  diverged: int | None  # the first step whose numbers are not finite
  way: str  # one of `programs.WAYS`
  seconds: float  # its share of the time that its pack took
  peak_bytes: int  # of a device, that the compiler foretold for its pack; 0 where nothing was left to train


@dataclasses.dataclass
class _Course:
  """The training of one member, as far as it has come."""

  member: grid.Member
  log: logs.Log
  windows: logs.Windows
  diverged: int | None


@dataclasses.dataclass
class _Pack:
  """Members in training together, and what that takes."""

  courses: list[_Course]
  placed: programs.Placed
  opened: checkpoints.Opened
  display: logs.Display
  received: object
  budget: float  # bytes of a device
  until: int  # epochs
  way: str
  measured: bool  # whether `way` is settled
  peak_bytes: int = 0  # foretold by the compiler

  @property
  def members(self):
    return [course.member for course in self.courses]

  @property
  def filled(self):
    return programs.filled(self.members, self.placed.everywhere.mesh)


class _TooLarge(Exception):
  """The compiler foretells that a pack does not fit; `args[0]` is how many members do."""


def train(members, workdir, mesh, orders, received, report=print):
  """Trains members that share a program, or goes on with that, and leaves in `workdir` the folder of a run for each.

  They go in packs, each as large as the memory of the devices allows. Generates {name: Ended} of each pack. Raises
  UserError, and Interrupted when a signal has stopped and saved them.
  """
  budget = orders.budget_gib * 2**30 or memory.share(mesh.size)
  left, size = list(members), min(_MOST, _most(members, mesh, budget))
  while left:
    begun, pack = time.monotonic(), left[:size]
    try:
      ended, *how = _train_pack(pack, workdir, mesh, orders, budget, received, report)
    except _TooLarge as refused:
      (size,) = refused.args
      continue
    way, peak_bytes = how
    if len(left) == len(members) > size:
      report(f"{size} of {len(members)} members at a time: they take {placements.gib(peak_bytes)} of a device")
    seconds = (time.monotonic() - begun) / len(pack)
    yield {name: Ended(diverged, way, seconds, peak_bytes) for name, diverged in ended.items()}
    left = left[size:]


def _most(members, mesh, budget):
  """How many members fit by their states alone: an upper bound that needs no compilation."""
  return mesh.size * max(1, int(budget // programs.state_bytes(programs.widest(members))))


def _train_pack(members, workdir, mesh, orders, budget, received, report):
  """({name: the step at which it diverged, or None}, how they were computed, bytes of a device) of a pack."""
  until = orders.until or members[0].described.stages[-1].epochs.stop
  names = "\n".join([*(member.name for member in members), str(until)])
  kept = workdir / PARTS / hashlib.sha256(names.encode()).hexdigest()[:16]
  with contextlib.ExitStack() as stack, memory.explained():
    descriptions = []
    for member in members:
      described = member.described
      stack.enter_context(runs.locked(workdir / member.name))
      descriptions.append(runs.describe(described.config, described.dataset, described.model, mesh.devices.flat))
      runs.begin(workdir / member.name, descriptions[-1])
    placed = programs.place(programs.filled(members, mesh), mesh)
    opened = stack.enter_context(checkpoints.open_folder(kept / "checkpoints", True, report))
    state, notes = _restored(opened, members, placed, workdir, report)
    step, way = int(state.step), notes.get("way") or orders.way
    plan = members[0].described.plan
    courses = []
    for member, description, (pending, diverged) in zip(members, descriptions, notes["courses"], strict=True):
      config = member.described.config
      log = stack.enter_context(logs.Log(workdir / member.name, step, description, config.trackers))
      windows = logs.Windows(config.log_every_steps, plan.steps, step, pending)
      courses.append(_Course(member, log, windows, diverged))
    display = stack.enter_context(logs.Display(len(members) * plan.examples, until, step / plan.steps, sparse=True))
    first = programs.likely(mesh) if way == AUTO else way
    pack = _Pack(courses, placed, opened, display, received, budget, until, first, way != AUTO)
    state = _train(pack, state, report)
    for course, own in zip(courses, programs.own_states(members, state), strict=True):
      if course.diverged is None:
        _export(own, course.member, workdir, stack)
        if orders.until is None:
          course.log.finish({}, {})
  shutil.rmtree(kept)
  return {course.member.name: course.diverged for course in courses}, pack.way, pack.peak_bytes


def _restored(opened, members, placed, workdir, report):
  """(state, notes) of the pack's newest checkpoint; else of the members' own, where all have come as far; else new."""
  start = programs.start(programs.filled(members, placed.everywhere.mesh), placed)
  found = checkpoints.restore(opened, programs.to_save(start, len(members)), report)
  if found:
    return programs.from_saved(found[0], placed), found[1]
  new = {"courses": [([], None)] * len(members)}
  if len({checkpoints.newest(workdir / member.name / "checkpoints") for member in members} - {None}) != 1:
    return start, new
  own = []
  for member in members:
    with checkpoints.open_folder(workdir / member.name / "checkpoints", True, report) as folder:
      own.append(checkpoints.restore(folder, programs.own_like(member), report))
  if None in own or len({int(state.step) for state, _ in own}) != 1 or any(notes for _, notes in own):
    return start, new
  return programs.joined(members, [state for state, _ in own], placed), new


def _train(pack, state, report):
  """The epochs that the state has not seen, of all members together: -> the state at the end."""
  described = pack.members[0].described
  plan, config = described.plan, described.config
  compile_seconds, rulers = 0.0, _rulers(pack.members)
  for number, stage in enumerate(described.stages):
    to_do = range(max(int(state.step) // plan.steps, stage.epochs.start), min(stage.epochs.stop, pack.until))
    if not to_do:
      continue
    built = _fitting(pack, number, state)
    futures.wait(rulers.values())  # while the compiler was at work; from now on times are measured
    compile_seconds += built.compile_seconds
    constants = {"stage": number} if len(described.stages) > 1 else {}
    if int(state.step) == stage.epochs.start * plan.steps:
      state = built.restart(state)
    faster = functools.partial(_faster, pack, number, report, to_do.stop * plan.chunks_per_epoch)
    for epoch in to_do:
      if not _going(pack):
        return state
      state, built, times = _train_epoch(pack, state, epoch, built, faster)
      records = [course.windows.rest() | _rate(pack, times) for course in _going(pack)]
      last = epoch + 1 == pack.until
      save_due = last or described.due(epoch + 1, config.checkpoint_every_epochs)
      if save_due or described.due(epoch + 1, config.eval_every_epochs):
        found = _metrics(pack, built.evaluate(state), rulers)
        for record, metrics in zip(records, found, strict=True):
          record |= metrics | constants | {"compile_seconds": compile_seconds}
        if records:
          pack.display.evaluated(*records)
      for course, record in zip(_going(pack), records, strict=True):
        course.log.write(record)
      if save_due:
        _save(pack, state)
  checkpoints.wait(pack.opened)
  return state


def _rulers(members):
  """{latent size: a future of the evaluators' rulers, by name}, computed beside whatever else is done."""
  described, latents = members[0].described, sorted({member.latent for member in members})
  find = lambda latent: dict(evaluators.rulers(described.measures, described.dataset, latent))
  with_one_thread = futures.ThreadPoolExecutor(1)
  return {latent: with_one_thread.submit(find, latent) for latent in latents}


def _fitting(pack, number, state):
  """The programs of a stage; raises _TooLarge, or UserError where not even one member for each device fits."""
  built = programs.build(pack.filled, pack.placed, number, state, pack.way)
  pack.peak_bytes = max(pack.peak_bytes, built.peak_bytes)
  if built.peak_bytes > pack.budget:
    size, data = pack.placed.everywhere.mesh.size, pack.placed.train.nbytes + pack.placed.test.nbytes
    most = int(len(pack.filled) * (pack.budget - data) / (built.peak_bytes - data))
    most = min(most, len(pack.filled) - 1) // size * size
    if len(pack.filled) == size:
      raise errors.UserError(
        f"--budget_gib: a member needs {placements.gib(built.peak_bytes)} of a device, and may take "
        f"{placements.gib(pack.budget)}; make the batch or the model smaller"
      )
    raise _TooLarge(max(size, most))
  return built


def _faster(pack, number, report, end, built, state, batches, seconds):
  """The programs of a stage in the way that is faster, from now on that of the pack: measured, where that can pay.

  The last chunk, its `batches`, took `seconds`; `end` chunks are there in all. It can pay where what is left takes some
  times as long as to compile the other way and to try it, on a copy of the state, which remains. A way that is hardly
  faster is not taken, so that one day chooses like another.
  """
  pack.measured = True
  state_bytes = cost.bytes_of(jax.tree.leaves(state)) // pack.placed.everywhere.mesh.size
  left = end - int(state.step) // pack.members[0].described.plan.chunk
  if seconds * left < _WORTH * (built.compile_seconds + seconds) or built.peak_bytes + state_bytes > pack.budget:
    return built
  (way,) = set(programs.WAYS) - {pack.way}
  other = programs.build(pack.filled, pack.placed, number, state, way)
  if other.peak_bytes + state_bytes > pack.budget:
    return built
  ratio = seconds / _seconds(other, state, batches)
  if ratio > _CLEARLY:
    built, pack.way, pack.peak_bytes = other, way, other.peak_bytes
  report(f"the members of a device are computed {pack.way}: {way} is {ratio:.2f} times as fast as the other way")
  return built


def _seconds(built, state, batches):
  """How long a chunk takes; the state remains."""
  state = jax.tree.map(jnp.copy, state)
  begun = time.perf_counter()
  jax.block_until_ready(built.train_chunk(state, *batches))
  return time.perf_counter() - begun


def _going(pack):
  return [course for course in pack.courses if course.diverged is None]


def _train_epoch(pack, state, epoch, built, faster):
  """The rest of an epoch of all members: -> (state, the programs from now on, seconds of each chunk)."""
  config, plan = pack.members[0].described.config, pack.members[0].described.plan
  times = []
  for batches in _chunks(pack, epoch, int(state.step) // plan.chunk - epoch * plan.chunks_per_epoch):
    if interruptions.asked(pack.received):
      _save(pack, state)
      checkpoints.wait(pack.opened)
      interruptions.stop(pack.received, int(state.step) / plan.steps)
    started = time.perf_counter()
    state, terms, finite = built.train_chunk(state, *batches)
    terms, finite = {name: np.asarray(values) for name, values in terms.items()}, np.asarray(finite)
    times.append(time.perf_counter() - started)
    if config.on_nan == "skip":
      terms["skipped"], finite = ~finite, np.ones_like(finite)
    for index, course in enumerate(pack.courses):
      if course.diverged is None:
        _note(course, {name: values[index] for name, values in terms.items()}, finite[index], int(state.step))
    pack.display.advance(len(pack.courses) * plan.examples / plan.chunks_per_epoch, times[-1])
    if not pack.measured:
      built = faster(built, state, batches, times[-1])
  return state, built, times


def _chunks(pack, epoch, first):
  """Generates what an epoch is trained on, from a chunk on: rows and weights [members, steps, B]."""
  orders = {}
  for member in pack.members:
    plan = member.described.plan
    if plan.seed not in orders:
      orders[plan.seed] = plan.chunks(epoch)
  for number in range(first, plan.chunks_per_epoch):
    own = [orders[member.described.plan.seed][number] for member in pack.filled]
    yield tuple(np.stack(part) for part in zip(*own, strict=True))


def _rate(pack, times):
  """What a record tells of the speed: that of all members together."""
  plan = pack.members[0].described.plan
  return {"images_per_second": len(pack.courses) * plan.examples * len(times) / plan.chunks_per_epoch / sum(times)}


def _note(course, terms, finite, step):
  """Logs the steps of a chunk of one member, up to the first whose numbers are not finite."""
  good = len(finite) if finite.all() else int(np.argmin(finite))
  for record in course.windows.add(terms, good):
    course.log.write(record)
  if good < len(finite):
    course.diverged = step - len(finite) + good + 1


def _metrics(pack, found, rulers):
  """The test metrics of each member that has not diverged, dicts by name."""
  losses, values = (jax.tree.map(np.asarray, part) for part in found)
  for index, course in enumerate(pack.courses):
    if course.diverged is None:
      member, described = course.member, course.member.described
      own = programs.own_values(member, {name: rows[index] for name, rows in values.items()})
      metrics = evaluators.metrics(described.measures, losses[index], own, pack.placed.test_weights, described.dataset)
      yield dict(metrics) | rulers[member.latent].result()


def _save(pack, state):
  """Starts saving the pack."""
  for course in pack.courses:
    course.log.settle()
  notes = {"courses": [(course.windows.pending, course.diverged) for course in pack.courses]}
  notes |= {"way": pack.way} if pack.measured else {}
  checkpoints.save(pack.opened, programs.to_save(state, len(pack.courses)), np.inf, notes)


def _export(state, member, workdir, stack):
  """Begins to save the state of one member as that of the run in its folder; leaving the stack waits for it."""
  folder = workdir / member.name
  error = logs.read(folder)[-1]["test/squared_error"]
  opened = stack.enter_context(checkpoints.open_folder(folder / "checkpoints", True))
  if not checkpoints.holds(opened, int(state.step)):
    checkpoints.save(opened, state, error, {})

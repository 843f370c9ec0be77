"""A whole sweep: which members are still to be trained, and the answer that all give together."""

import contextlib
import dataclasses
import itertools
import math
import shutil

from ae_jax import errors
from ae_jax.data import dimension
from ae_jax.ops import losses
from ae_jax.runs import logs, run_folder
from ae_jax.sweep import compiled_pack, engines, grid, halving, summary, trainer
from ae_jax.system import cache
from ae_jax.training import preemption, setup


def run(config, axes, workdir, options=None, factor=0, engine=engines.local):
  """Trains the members of the grid of the axes [(key of the config, values)] in `workdir`, and returns their rows.

  With a `factor` there is successive halving (`halving`). `engine` is a function (received, report) ->
  `engines.Engine`. Members that were trained to the end are left alone, and members that an earlier halving stopped
  are trained on, unless halving stops them again. Raises UserError, before anything is compiled or written,
  for whatever the user can mend, and Interrupted when a signal has stopped and saved the sweep.
  """
  _check_ends(config)
  keys, options = [key for key, _ in axes], options or trainer.SweepOptions()
  members = grid.members(config, keys, list(itertools.product(*(values for _, values in axes))))
  rungs, groups = halving.rungs(members, factor), grid.packs(members)
  for group in groups:
    setup.check_memory(compiled_pack.widest(group).experiment, 1)
  _check_place(workdir, members)
  rows = {row["name"]: row for row in summary.read(workdir)}
  with contextlib.ExitStack() as stack:
    received = stack.enter_context(preemption.caught())
    cache.keep_compiled_programs()
    engine = engine(received, logs.say)
    before = sum(_has_ended(member, rows, workdir) for member in members)
    for line in (_opening(len(members), len(groups), before, workdir), *members[0].experiment.dataset.remarks):
      logs.say(line)
    going = members
    for until in [*rungs, None]:
      to_do = [member for member in going if not _has_ended(member, rows, workdir, until)]
      parts = _parts(to_do, rows, workdir, engine.shares)
      asked = dataclasses.replace(options, until=until)
      for found in engine.run([_task(config, keys, part, workdir, asked) for part in parts]):
        rows |= {each.name: summary.row(each, workdir, found[each.name]) for each in to_do if each.name in found}
        summary.write(workdir, [rows[member.name] for member in members if member.name in rows], {})
      if until:
        scores = {member.name: summary.error_after(workdir, member, until) for member in going}
        lost = halving.stopped(going, scores, factor)
        going = [member for member in going if member.name not in lost]
        rows |= _stopped([rows[name] for name in lost])
  shutil.rmtree(workdir / trainer.PARTS, ignore_errors=True)
  found = [rows[member.name] for member in members]
  _conclude(found, members[0].experiment, workdir)
  return found


def _check_ends(config):
  """Raises UserError for what ends a single run before its last epoch: the members of a pack end together."""
  for key, given in {"early_stopping.metric": config.early_stopping.metric, "max_minutes": config.max_minutes}.items():
    if given:
      raise errors.UserError(f"config.{key}={given!r}: is for single runs; a sweep stops members by --halving")


def _parts(members, rows, workdir, shares):
  """Returns the members in groups for one task each: of one program, and trained for equally many epochs."""
  packed = [group for level in _levels(members, rows, workdir) for group in grid.packs(level)]
  return [part for group in packed for part in _cut(group, shares)]


def _task(config, keys, members, workdir, options):
  """Returns the `engines.Task` that trains these members."""
  return engines.Task(config.to_dict(), keys, [tuple(member.axes.values()) for member in members], workdir, options)


def _stopped(rows):
  """Returns {name: row} of the rows that halving lets go no further, but for those that are done or diverged."""
  stopped = [row for row in rows if row["status"] == summary.TRAINING]
  return {row["name"]: row | {"status": f"stopped after epoch {row['epochs']}"} for row in stopped}


def _cut(group, shares):
  """A group in at most so many parts, as equal as can be."""
  size = -(-len(group) // shares)
  return [group[first : first + size] for first in range(0, len(group), size)]


def _levels(members, rows, workdir):
  """Returns the members in groups that were trained for equally many epochs; only such members can share a state."""
  levels = {}
  for member in members:
    levels.setdefault(_trained(member, rows, workdir), []).append(member)
  return list(levels.values())


def _has_ended(member, rows, workdir, until=None):
  """Returns whether a member needs no more training, to epoch `until` or (None) to the end."""
  return _trained(member, rows, workdir) >= (until or member.experiment.stages[-1].epochs.stop)


def _trained(member, rows, workdir):
  """Returns the epochs that a member was trained for; infinity if it diverged, 0 if its run is not there."""
  row = rows.get(member.name)
  if row is None or not (workdir / member.name / "config.json").exists():
    return 0
  return math.inf if "diverged" in row["status"] else row["epochs"]


def _conclude(rows, experiment, workdir):
  """Writes the table, the pictures, the page and the sentence."""
  found = summary.conclusion(rows, dimension.estimates(losses.flat(experiment.dataset.train_sample)))
  said = summary.sentence(rows, found)
  summary.write(workdir, rows, found | {"answer": said})
  title = f"{experiment.config.model.name} on {experiment.config.data.name}"
  from ae_jax.report import graphs, page  # Matplotlib: a second of imports

  drawn = {workdir / "sweep.png": "the error over the latent size, mean and range of the seeds"}
  with errors.writing(workdir / "sweep.png, report.html"):
    marks = (found["knee"], found["dimensions"], f"{title}: {said}")
    graphs.error_over_latent(workdir / "sweep.png", summary.curves(rows), summary.pca(rows), *marks)
    frontier = summary.frontier(rows)
    if frontier:
      drawn[workdir / "rate_distortion.png"] = "what a nat of code buys, by latent size and beta"
      graphs.rate_distortion(workdir / "rate_distortion.png", *frontier, title)
    shown = [page.picture(file, words) for file, words in drawn.items()]
    members = [page.table(*summary.table(rows)), page.notes(*_notes(rows, workdir))]
    page.write(workdir / "report.html", title, said, [("What a size costs", shown), ("Members", members)])
  lost = [f"{each['name']} {each['status']}" for each in rows if "diverged" in each["status"]]
  one = str(workdir / rows[0]["name"])
  look = f"Look at {workdir / 'report.html'}, sweep.png and sweep.csv; each member is a run: ae_jax.load({one!r})."
  logs.say("\n".join([*lost, said, look]))


def _notes(rows, workdir):
  """Returns the notes under the table of the page."""
  seconds, ways = sum(each["seconds"] for each in rows), ", ".join(sorted({each["way"] for each in rows}))
  return [
    f"{len(rows)} members, {seconds:.0f} s of training and compiling; those of a device computed {', '.join(ways)}.",
    f"A size is enough if twice as many units reduce the error by less than {summary.ENOUGH:.0%}. Its interval holds "
    "95 % of the bootstrap samples of the seeds, which is their range for two or three seeds.",
    "The intervals of the dimension of the data cover the sampling error (95 %) and the bias that the trend over the "
    "distances to the neighbours suggests.",
    f"Each member is the folder of a run: ae_jax.load({str(workdir / rows[0]['name'])!r}).",
  ]


def _check_place(workdir, members):
  """Raises UserError for a folder that holds something else than a sweep, or members of another config."""
  known = {trainer.PARTS, engines.JOBS, *summary.FILES} | {member.name for member in members}
  if workdir.exists():
    others = sorted(p.name for p in workdir.iterdir() if p.name not in known and not (p / "config.json").exists())
    if others:
      raise errors.UserError(f"--workdir={workdir}: holds {others[0]!r} but no sweep; name a new or an empty folder")
  for member in members:
    if (workdir / member.name / "config.json").exists():
      experiment = member.experiment
      run_folder.check_same(
        workdir / member.name, run_folder.describe(experiment.config, experiment.dataset, experiment.model, [])
      )


def _opening(members, programs, before, workdir):
  """What is about to be trained, and where it will lie."""
  there = f", {before} of them trained already" if before else ""
  return f"{members} members in {programs} program{'s' if programs > 1 else ''}{there}; {workdir}"

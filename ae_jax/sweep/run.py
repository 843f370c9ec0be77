"""Runs a whole sweep: trains the members that are not yet trained, and writes the table, figures and report."""

import dataclasses
import itertools
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ae_jax import data, errors
from ae_jax.data import dimension, standardisation
from ae_jax.ops import losses
from ae_jax.runs import progress, run_folder
from ae_jax.sweep import engines, grid, halving, summary, trainer
from ae_jax.sweep.summary import Row
from ae_jax.system import cache
from ae_jax.training import preemption, setup, warm_start

StartEngine = Callable[[Callable[[], str], Callable[[str], None]], engines.Engine]  # arguments: see `engines.local`


def run(
  config: ConfigDict,
  axes: Sequence[tuple[str, Sequence[Any]]],
  workdir: Path,
  options: trainer.SweepOptions | None = None,
  factor: int = 0,
  engine: StartEngine = engines.local,
  *,
  dataset: data.Dataset | None = None,
) -> list[Row]:
  """Trains the members of a sweep that are not yet trained, and returns a row of results for each member.

  Args:
    config: Config of all members, except for the keys in `axes`.
    axes: [(config key, values)]; the sweep has one member for each combination of values.
    workdir: The sweep folder.
    options: See `trainer.SweepOptions`.
    factor: Factor of successive halving (see `halving.rungs`); 0 for no halving.
    engine: Function that starts the backend (local process, Ray or Slurm workers) that trains the members; see
      `engines.local` for its arguments.
    dataset: The data set of the config if it is in memory; None to load it.

  Raises:
    UserError: If an input is invalid; inputs are checked before anything is compiled or written.
    Interrupted: If a signal stops the sweep; its state is saved.
  """
  _check_no_early_end(config)
  keys, options = [key for key, _ in axes], options or trainer.SweepOptions()
  members = grid.members(config, keys, list(itertools.product(*(values for _, values in axes))), dataset)
  rungs, groups = halving.rungs(members, factor), grid.packs(members)
  for group in groups:
    setup.check_memory(grid.widest(group).experiment, 1)
  _check_folder(workdir, members)
  rows = {row["name"]: row for row in summary.read(workdir)}
  to_train = [member for member in members if not _has_ended(member, rows, workdir)]
  taken = dict.fromkeys(line for member in to_train for line in warm_start.check(member.experiment))
  with preemption.catch_signals() as received:
    cache.keep_compiled_programs()
    started = engine(received, progress.print_line)
    for line in (_opening(members, len(groups), rows, workdir), *members[0].experiment.remarks, *taken):
      progress.print_line(line)
    task = engines.Task(config.to_dict(), keys, [], workdir, options, dataset)
    rows = _train_rungs(task, members, rungs=rungs, factor=factor, engine=started, rows=rows)
  shutil.rmtree(workdir / trainer.PACKS, ignore_errors=True)
  _conclude([rows[member.name] for member in members], members[0].experiment, workdir)
  return [rows[member.name] for member in members]


def _train_rungs(
  task: engines.Task,
  members: Sequence[grid.Member],
  *,
  rungs: Sequence[int],
  factor: int,
  engine: engines.Engine,
  rows: dict[str, Row],
) -> dict[str, Row]:
  """Trains members and stops the worse ones after each epoch in `rungs`; returns the updated `rows`, {name: row}.

  `task` has the config and options of all members, but no points.
  """
  competing, workdir = list(members), task.workdir
  for until in [*rungs, None]:
    unfinished = [member for member in competing if not _has_ended(member, rows, workdir, until)]
    rung = dataclasses.replace(task, options=dataclasses.replace(task.options, until=until))
    groups = _task_groups(unfinished, rows, workdir, engine.shares)
    for results in engine.run([_with_points(rung, group) for group in groups]):
      rows = rows | {
        member.name: summary.row(member, workdir, results[member.name])
        for member in unfinished
        if member.name in results
      }
      summary.write(workdir, [rows[member.name] for member in members if member.name in rows], {})
    if until:
      scores = {member.name: summary.error_after(workdir, member, until) for member in competing}
      eliminated = halving.eliminated(competing, scores, factor)
      competing = [member for member in competing if member.name not in eliminated]
      rows = rows | _mark_stopped([rows[name] for name in eliminated])
  return rows


def _check_no_early_end(config: ConfigDict) -> None:
  """Raises UserError if a config key could end a run early, because members in one program must end together."""
  for key, value in {"early_stopping.metric": config.early_stopping.metric, "max_minutes": config.max_minutes}.items():
    if value:
      raise errors.UserError(
        f"config.{key}={value!r}: is not available in a sweep; unset it, or stop members with --halving"
      )


def _task_groups(
  members: Sequence[grid.Member], rows: Mapping[str, Row], workdir: Path, shares: int
) -> list[list[grid.Member]]:
  """Groups members into tasks; members of one task share a program and have trained the same number of epochs."""
  packs = [pack for level in _by_trained_epochs(members, rows, workdir) for pack in grid.packs(level)]
  return [part for pack in packs for part in _split(pack, shares)]


def _with_points(task: engines.Task, members: Sequence[grid.Member]) -> engines.Task:
  """Returns a copy of `task` that trains the given members."""
  return dataclasses.replace(task, points=[tuple(member.axes.values()) for member in members])


def _mark_stopped(rows: Iterable[Row]) -> dict[str, Row]:
  """Returns {name: row} of the rows whose status is "training", with the status changed to "stopped after epoch N"."""
  unfinished = [row for row in rows if row["status"] == summary.TRAINING]
  return {row["name"]: row | {"status": f"stopped after epoch {row['epochs']}"} for row in unfinished}


def _split(group: list[grid.Member], shares: int) -> list[list[grid.Member]]:
  """Splits members into at most `shares` lists of nearly equal length."""
  size = -(-len(group) // shares)
  return [group[first : first + size] for first in range(0, len(group), size)]


def _by_trained_epochs(
  members: Iterable[grid.Member], rows: Mapping[str, Row], workdir: Path
) -> list[list[grid.Member]]:
  """Groups members by the number of trained epochs, because members in one program must be at the same step."""
  levels: dict[float, list[grid.Member]] = {}
  for member in members:
    levels.setdefault(_trained_epochs(member, rows, workdir), []).append(member)
  return list(levels.values())


def _has_ended(member: grid.Member, rows: Mapping[str, Row], workdir: Path, until: int | None = None) -> bool:
  """Returns whether a member has diverged or has reached epoch `until`; None means the last epoch."""
  return _trained_epochs(member, rows, workdir) >= (until or member.experiment.stages[-1].epochs.stop)


def _trained_epochs(member: grid.Member, rows: Mapping[str, Row], workdir: Path) -> int | float:
  """Returns the number of epochs a member has trained; infinity if it diverged, 0 if it has no run folder."""
  row = rows.get(member.name)
  if row is None or not (workdir / member.name / "config.json").exists():
    return 0
  return math.inf if "diverged" in row["status"] else row["epochs"]


def _conclude(rows: Sequence[Row], experiment: setup.Experiment, workdir: Path) -> None:
  """Writes the table, the figures and the report, and prints the result of the sweep."""
  dataset = experiment.dataset
  unit = standardisation.squared_unit(experiment.config.data.scale, dataset.schema)
  conclusion = summary.conclusion(rows, dimension.estimates(losses.flat(dataset.train_sample)), unit)
  answer = summary.sentence(rows, conclusion)
  summary.write(workdir, rows, conclusion | {"answer": answer})
  title = f"{experiment.config.model.name} on {experiment.config.data.name}"
  from ae_jax.report import graphs, page  # importing Matplotlib takes a second

  figures = {workdir / "sweep.png": "error by latent size: mean and range over the seeds"}
  with errors.convert_os_errors(workdir / "sweep.png, report.html"):
    figure = graphs.error_over_latent(
      summary.curves(rows),
      summary.pca(rows),
      conclusion["knee"],
      conclusion["dimensions"],
      f"{title}: {answer}",
      unit,
    )
    figure.savefig(workdir / "sweep.png")
    frontier = summary.frontier(rows)
    if frontier:
      figures[workdir / "rate_distortion.png"] = "rate-distortion curves: one curve per latent size, one point per beta"
      graphs.rate_distortion(workdir / "rate_distortion.png", *frontier, title)
    pictures = [page.picture(file, caption) for file, caption in figures.items()]
    members = [page.table(*summary.table(rows)), page.notes(*_notes(rows, workdir, unit))]
    page.write(workdir / "report.html", title, answer, [("Error by latent size", pictures), ("Members", members)])
  diverged = [f"{row['name']} {row['status']}" for row in rows if "diverged" in row["status"]]
  look = f"Look at {workdir / 'report.html'}, sweep.png and sweep.csv."
  progress.print_line("\n".join([*diverged, answer, " ".join([look, *_how_to_load(rows, workdir)])]))


def _how_to_load(rows: Sequence[Row], workdir: Path) -> list[str]:
  """Returns a sentence with the Python call that loads the best member, or [] if no member was trained to the end."""
  best = summary.best_member(rows)
  return [] if best is None else [f"Load the best member: ae_jax.load({str(workdir / best)!r})."]


def _notes(rows: Sequence[Row], workdir: Path, unit: str) -> list[str]:
  """Returns the notes under the table of members in the report."""
  seconds, ways = sum(row["seconds"] for row in rows), ", ".join(sorted({row["way"] for row in rows}))
  chosen = (
    "validation set"
    if summary.chosen_by(rows) != "squared_error"
    else ("test set, so the errors of the chosen ones are too small; config.data.validation=0.1 adds a validation set")
  )
  return [
    *([f"Squared errors are {unit}."] if unit else []),
    f"The best setting and the smallest sufficient latent size were chosen on the {chosen}.",
    f"Training and compiling {len(rows)} members took {seconds:.0f} s. Each device computed its members {ways}.",
    f"A latent size is enough if doubling it reduces the error by less than {summary.ENOUGH:.0%}. The interval of the "
    "smallest such size contains 95 % of the bootstrap samples over the seeds; with two or three seeds, it is their "
    "range.",
    "The intervals of the intrinsic dimension of the data include the sampling error (95 %) and the bias. The bias is "
    "estimated from the trend over the neighbour distances.",
    *_how_to_load(rows, workdir),
  ]


def _check_folder(workdir: Path, members: Sequence[grid.Member]) -> None:
  """Raises UserError if the folder contains files that are not part of a sweep, or members with another config."""
  known = {trainer.PACKS, engines.JOBS, *summary.FILES} | {member.name for member in members}
  if workdir.exists():
    others = sorted(p.name for p in workdir.iterdir() if p.name not in known and not (p / "config.json").exists())
    if others:
      raise errors.UserError(
        f"--workdir={workdir}: contains {others[0]!r}, which is not part of a sweep; choose a new or empty folder"
      )
  for member in members:
    if (workdir / member.name / "config.json").exists():
      experiment = member.experiment
      run_folder.check_same(
        workdir / member.name, run_folder.describe(experiment.config, experiment.dataset, experiment.model, [])
      )


def _opening(members: Sequence[grid.Member], programs: int, rows: Mapping[str, Row], workdir: Path) -> str:
  """Returns the first line of output: the numbers of members and programs, and the sweep folder."""
  ended = sum(_has_ended(member, rows, workdir) for member in members)
  trained = f", {ended} of them trained already" if ended else ""
  return f"{len(members)} members in {programs} program{'s' if programs > 1 else ''}{trained}; sweep folder: {workdir}"

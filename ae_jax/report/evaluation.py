"""Runs the analyses of a trained model, and writes their results, figures and report into its run folder."""

import gc
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ae_jax import api, data, errors, evaluators
from ae_jax.evaluators import results
from ae_jax.evaluators.context import EvalContext
from ae_jax.runs import logs

_MIN_PAUSE = 30.0  # seconds between two pages of a run in training, at least
_PAUSE_FACTOR = 50  # the pause is at least this many times the seconds that a page takes: at most 2 % of the run


def analyze(
  run: api.Run,
  dataset: data.Dataset,
  measures: Sequence[evaluators.Evaluator],
  workdir: pathlib.Path,
  baselines: dict[str, Any],
  check: Callable[[], None] = lambda: None,
) -> results.Results:
  """Analyzes a run, and writes evaluation/, pictures/ and report.html into its folder.

  Earlier results of other evaluators are kept if they are of the same step.

  Args:
    run: the trained model.
    dataset: its data.
    measures: the evaluators whose analyses run.
    workdir: the run folder.
    baselines: the values of `evaluators.baselines`.
    check: is called after each result and before each picture; it stops the analyses by an exception.

  Returns:
    The new results.

  Raises:
    UserError: If the files cannot be written.
  """
  analyzed = evaluators.analyses(measures, EvalContext(run, dataset, baselines))
  found = results.collect(run.step, _checked(analyzed, check))
  from ae_jax.report import run_report  # imports Matplotlib and Bokeh, which takes seconds: training does not wait

  then = "; the checkpoints are saved: free disk space, then run the same command again"
  with errors.convert_os_errors(f"{workdir}: evaluation, pictures, report.html", then):
    results.write(workdir, results.merge(results.read(workdir), found))
    draw(found.figures, run, baselines, workdir / "pictures", check)
    run_report.write(workdir)
  return found


def draw(
  figures: Mapping[str, Any],
  run: Any,
  baselines: Mapping[str, Any],
  folder: pathlib.Path,
  check: Callable[[], None] = lambda: None,
) -> None:
  """Draws figures {"EVALUATOR/NAME": figure} as NAME.png, and the learning curves as curves.png, into a folder."""
  from ae_jax.report import graphs, pictures

  folder.mkdir(exist_ok=True)
  graphs.curves(folder / "curves.png", logs.curves(run.history), baselines)
  for name, figure in figures.items():
    check()
    pictures.draw(folder / f"{name.rpartition('/')[2]}.png", figure, run.config.data.range)


def _checked(found: Iterable[tuple[str, Any]], check: Callable[[], None]) -> Iterator[tuple[str, Any]]:
  """Yields each result, then calls `check`."""
  for result in found:
    yield result
    check()


def pictures(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the PNG files in the folder of a run by their names."""
  return {file.stem: file for file in sorted((workdir / "pictures").glob("*.png"))}


def refresher(workdir: pathlib.Path) -> Callable[[], None]:
  """Returns a function that rewrites the report of a run in training if the last one is old enough."""
  due = time.monotonic() + _MIN_PAUSE

  def refresh() -> None:
    nonlocal due
    if (begun := time.monotonic()) > due:
      from ae_jax.report import run_report

      run_report.write(workdir)
      gc.collect()  # a page leaves hundreds of objects in reference cycles, which otherwise pile up over many pages
      ended = time.monotonic()
      due = ended + max(_MIN_PAUSE, _PAUSE_FACTOR * (ended - begun))

  return refresh

"""Runs the analyses of a trained model, and writes their results, figures and report into its run folder."""

import gc
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ae_jax import api, data, errors, evaluators
from ae_jax.data import standardisation
from ae_jax.evaluators import results
from ae_jax.evaluators.context import EvalContext
from ae_jax.runs import logs

_MIN_PAUSE = 30.0  # minimum number of seconds between two updates of the report during training
_PAUSE_FACTOR = 50  # minimum ratio of a pause to the time of the update before it; updates take at most 2 % of the time


def analyze(
  run: api.Run,
  dataset: data.Dataset,
  measures: Sequence[evaluators.Evaluator],
  workdir: pathlib.Path,
  baselines: dict[str, Any],
  check: Callable[[], None] = lambda: None,
) -> results.Results:
  """Runs the analyses of a trained model, and writes evaluation/, pictures/ and report.html into the run folder.

  Stored results of other evaluators are kept if they were measured at the same training step.

  Args:
    run: Trained model.
    dataset: Data set of the run.
    measures: Evaluators whose analyses are run.
    workdir: Run folder.
    baselines: Baseline metrics {name: value} from `evaluators.baselines`.
    check: Called after each result and before each picture; raises an exception to stop the analyses.

  Returns:
    Results of `measures`, without the stored results.

  Raises:
    WriteError: If the files cannot be written.
  """
  analyzed = evaluators.analyses(measures, EvalContext(run, dataset, baselines))
  new_results = results.collect(run.step, _checked(analyzed, check))
  from ae_jax.report import run_report  # imported after the training, because Matplotlib and Bokeh take seconds

  then = "; the checkpoints are saved. Free disk space, then run the same command again"
  with errors.convert_os_errors(f"{workdir}: evaluation, pictures, report.html", then, errors.WriteError):
    results.write(workdir, results.merge(results.read(workdir), new_results))
    draw(new_results.figures, run, baselines, workdir / "pictures", check)
    run_report.write(workdir)
  return new_results


def draw(
  figures: Mapping[str, Any],
  run: Any,
  baselines: Mapping[str, Any],
  folder: pathlib.Path,
  check: Callable[[], None] = lambda: None,
) -> None:
  """Saves figures as PNG files, and the learning curves as curves.png.

  Args:
    figures: {"EVALUATOR/NAME": figure}; the figure is saved as NAME.png.
    run: Trained model with its history.
    baselines: Baseline metrics {name: value} from `evaluators.baselines`.
    folder: Folder of the files; it is created if it is missing.
    check: Called before each figure; raises an exception to stop.
  """
  from ae_jax.report import graphs, measured, pictures

  folder.mkdir(exist_ok=True)
  tested = measured.tested(run.config.data.one_class)
  unit = standardisation.squared_unit(run.config.data.scale, run.schema)
  graphs.curves(folder / "curves.png", logs.curves(run.records), baselines, tested, unit)
  for name, figure in figures.items():
    check()
    pictures.draw(folder / f"{name.rpartition('/')[2]}.png", figure, run.config.data.range)


def _checked(items: Iterable[tuple[str, Any]], check: Callable[[], None]) -> Iterator[tuple[str, Any]]:
  """Yields the results, and calls `check` after each of them."""
  for result in items:
    yield result
    check()


def pictures(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the PNG files of a run as {file name without suffix: path}."""
  return {file.stem: file for file in sorted((workdir / "pictures").glob("*.png"))}


def refresher(workdir: pathlib.Path) -> Callable[[], None]:
  """Returns a function that rewrites the report of an unfinished run, unless the report was rewritten recently."""
  due = time.monotonic() + _MIN_PAUSE

  def refresh() -> None:
    nonlocal due
    if (begun := time.monotonic()) > due:
      from ae_jax.report import run_report

      run_report.write(workdir)
      gc.collect()  # each report leaves hundreds of objects in reference cycles, which would accumulate
      ended = time.monotonic()
      due = ended + max(_MIN_PAUSE, _PAUSE_FACTOR * (ended - begun))

  return refresh

"""What is found out about a trained run, once: its analyses, and what they leave in its folder; and its page before."""

import gc
import time

from ae_jax import errors, evaluators
from ae_jax.evaluators import results
from ae_jax.evaluators.context import EvalContext
from ae_jax.runs import logs

_REFRESHED = 30.0  # seconds between two pages of a run that is being trained, at least
_REST = 50  # times as long as making a page takes, at least: pages take a fiftieth of the run


def examine(run, dataset, measures, workdir, baselines, check=lambda: None):
  """Lets the evaluators analyze a run (`api.Run`), and leaves evaluation/, pictures/ and report.html in its folder.

  `baselines` are those of `evaluators.baselines`; what other evaluators found of the same parameters is kept. Returns the
  `results.Results`; UserError where they cannot be written. `check()` is called after each finding and before each
  picture, and stops them by an exception.
  """
  analyzed = evaluators.analyses(measures, EvalContext(run, dataset, baselines))
  found = results.of(run.step, _checked(analyzed, check))
  from ae_jax.report import run_report  # Matplotlib and Bokeh: seconds of imports that training does not wait for

  then = "; the run is saved, and with room for more the same command goes on"
  with errors.writing(f"{workdir}: evaluation, pictures, report.html", then):
    whole = results.merged(results.read(workdir), found)
    results.write(workdir, whole)
    draw(found.figures, run, baselines, workdir / "pictures", check)
    run_report.write(workdir)
  return found


def draw(figures, run, baselines, folder, check):
  """Draws figures {"EVALUATOR/NAME": figure} as NAME.png into a folder, and the run's learning curves as curves.png."""
  from ae_jax.report import graphs, pictures

  folder.mkdir(exist_ok=True)
  graphs.curves(folder / "curves.png", logs.curves(run.history), baselines)
  for name, figure in figures.items():
    check()
    pictures.draw(folder / f"{name.rpartition('/')[2]}.png", figure, run.config.data.range)


def _checked(found, check):
  for each in found:
    yield each
    check()


def pictures(workdir):
  """The pictures in the folder of a run, {name: path of a PNG file}."""
  return {file.stem: file for file in sorted((workdir / "pictures").glob("*.png"))}


def refresher(workdir):
  """A function () that makes the page of a run in training, from what lies in its folder, but not too often."""
  due = time.monotonic() + _REFRESHED

  def refresh():
    nonlocal due
    if (begun := time.monotonic()) > due:
      from ae_jax.report import run_report

      run_report.write(workdir)
      gc.collect()  # hundreds of objects in circles, of which else those of a hundred pages wait for one another
      ended = time.monotonic()
      due = ended + max(_REFRESHED, _REST * (ended - begun))

  return refresh

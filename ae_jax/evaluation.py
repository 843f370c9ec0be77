"""What is found out about a trained run, once: its studies, and what they leave in its folder; and its page before."""

import gc
import time

from ae_jax import errors, evaluators, logs
from ae_jax.evaluators import findings
from ae_jax.evaluators.subject import Subject

_REFRESHED = 30.0  # seconds between two pages of a run that is being trained, at least
_REST = 50  # times as long as making a page takes, at least: pages take a fiftieth of the run


def examine(run, dataset, measures, workdir, rulers, check=lambda: None):
  """Lets the evaluators study a run (`api.Run`), and leaves evaluation/, pictures/ and report.html in its folder.

  `rulers` are those of `evaluators.rulers`; what other evaluators found of the same parameters is kept. Returns the
  `findings.Findings`; UserError where they cannot be written. `check()` is called after each finding and before each
  picture, and stops them by an exception.
  """
  studied = evaluators.studies(measures, Subject(run, dataset, rulers))
  found = findings.of(run.step, _checked(studied, check))
  from ae_jax.report import album, story  # Matplotlib and Bokeh: seconds of imports that training does not wait for

  then = "; the run is saved, and with room for more the same command goes on"
  with errors.writing(f"{workdir}: evaluation, pictures, report.html", then):
    whole = findings.merged(findings.read(workdir), found)
    findings.write(workdir, whole)
    album.draw(found.exhibits, run.config.data.range, logs.curves(run.history), rulers, workdir / "pictures", check)
    story.write(workdir)
  return found


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
      from ae_jax.report import story

      story.write(workdir)
      gc.collect()  # hundreds of objects in circles, of which else those of a hundred pages wait for one another
      ended = time.monotonic()
      due = ended + max(_REFRESHED, _REST * (ended - begun))

  return refresh

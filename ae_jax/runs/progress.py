"""The progress display of a training run, and lines printed above its progress bar."""

import contextlib
import contextvars
import functools
import math
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm

from ae_jax.runs import metric_names

_shown = contextvars.ContextVar("shown", default=True)  # whether this thread prints anything; see `quiet`
_FORESEEN_AFTER, _FORESEEN_FROM = 2.0, 60.0  # see `Display._foresee`
_INTERVALS = {False: 5.0, True: 30.0}  # `sparse` -> minimum number of seconds between lines (see `Display`)


class Display:
  """Shows the progress of training: on a terminal or in a notebook, a progress bar and a line for each evaluation.

  Elsewhere, there is no bar, and a line is printed at most every 5 seconds, but always for the last
  evaluation. A `sparse` display prints a line at most every 30 seconds, even beside a bar and for the last evaluation.
  `images` is the number of examples per epoch, `epochs` the number of epochs of the run, and `done` the number of
  completed epochs. Nothing is displayed if `shown` is False.
  """

  def __init__(self, images: int, epochs: int, done: float = 0.0, shown: bool = True, sparse: bool = False) -> None:
    self._images, self._epochs, self._shown, self._sparse = images, epochs, shown and _shown.get(), sparse
    self._seen, self._begun, self._printed = images * done, None, None
    self._measured_from = None  # time of the first evaluation, and the number of examples until then
    self._trained, self._seconds = 0.0, 0.0  # trained examples and their training time, without evaluation and saving
    in_notebook = _notebook_bar()
    self._has_bar = in_notebook is not None or sys.stdout.isatty()
    self._has_foreseen = self._has_bar or not self._shown or sparse
    bar = "{bar}" if in_notebook else "|{bar:20}|"
    self._bar = (in_notebook or tqdm.tqdm)(
      total=images * epochs,
      initial=images * done,
      disable=not (self._shown and self._has_bar),
      file=sys.stdout,
      bar_format=f"{{desc}}  {{percentage:3.0f}}% {bar}{{postfix}}, {{remaining}} left",
      postfix="compiling",
    )

  def advance(self, images: float | int, seconds: float, loss: float | np.floating[Any]) -> None:
    """Updates the progress.

    Args:
      images: Number of examples since the last call.
      seconds: Training time of these examples.
      loss: Last loss; a `sparse` display does not show it.
    """
    self._seen += images
    self._trained += images
    self._seconds += seconds
    if self._begun is None:  # the time so far includes the compilation, so the clock starts now
      self._begun = self._printed = time.monotonic()
      self._bar.initial = self._bar.n = self._seen
      self._bar.unpause()
      images = 0
    text = "" if self._sparse else f"  loss {loss:.4g}"
    self._bar.set_description_str(f"epoch {math.ceil(self._seen / self._images - 1e-6)}{text}", refresh=False)
    self._bar.set_postfix_str(f"{self._trained / self._seconds:,.0f} examples/s", refresh=False)
    self._bar.update(images)
    self._foresee()

  def _foresee(self) -> None:
    """Prints the remaining training time and the time of its end once, without a bar and if both are worth knowing.

    It waits for 2 seconds of training, and a minute must be left. Evaluations are not included.
    """
    if self._has_foreseen or self._seconds < _FORESEEN_AFTER:
      return
    self._has_foreseen = True
    seconds = (self._images * self._epochs - self._seen) * self._seconds / self._trained
    if seconds >= _FORESEEN_FROM:
      end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
      left = tqdm.tqdm.format_interval(seconds)
      print_line(f"about {left} of training left, without evaluations; it ends at about {end}")

  def evaluated(self, *records: Mapping[str, Any]) -> None:
    """Shows the results of an evaluation: one record for each model that is trained."""
    now, epoch = time.monotonic(), records[0]["epoch"]
    due = self._begun is not None and now > self._printed + _INTERVALS[self._sparse]
    last = epoch >= self._epochs and not self._sparse
    if self._shown and (due or last or (self._has_bar and not self._sparse)):
      self._printed = now
      line = f"epoch {epoch:g} of {self._epochs}  {_summary(records)}"
      print_line(
        line if self._has_bar else f"{line}  {records[0]['images_per_second']:,.0f} examples/s{self._left(now)}"
      )
    if self._measured_from is None:  # the first evaluation includes its compilation and the baselines
      self._measured_from = now, self._seen

  def _left(self, now: float) -> str:
    """Returns the remaining time as text, estimated from the speed since the first evaluation; "" if it is unknown."""
    remaining = self._images * self._epochs - self._seen
    start, seen = self._measured_from or (now, self._seen)
    if self._seen <= seen or remaining < 0.5:
      return ""
    return f"  {tqdm.tqdm.format_interval(remaining * (now - start) / (self._seen - seen))} left"

  def __enter__(self) -> "Display":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()


@functools.cache
def _notebook_bar() -> type[tqdm.tqdm] | None:
  """Returns the class of progress bars for notebooks; None outside notebooks, and in notebooks without ipywidgets."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", tqdm.TqdmWarning)  # without ipywidgets, lines are printed instead of a bar
    from tqdm import auto, notebook
  return auto.tqdm if issubclass(auto.tqdm, notebook.tqdm_notebook) else None


@contextlib.contextmanager
def quiet(is_quiet: bool = True) -> Iterator[None]:
  """Context manager in which this thread displays no progress and prints no lines, except warnings."""
  token = _shown.set(_shown.get() and not is_quiet)
  try:
    yield
  finally:
    _shown.reset(token)


def print_line(line: str) -> None:
  """Prints a line to stdout, above the progress bar."""
  if not _shown.get():
    return
  tqdm.tqdm.write(line, file=sys.stdout)
  sys.stdout.flush()


def warn(line: str) -> None:
  """Prints a warning to stderr, above the progress bar."""
  tqdm.tqdm.write(f"ae_jax: {' '.join(line.split())}", file=sys.stderr)


def _summary(records: Collection[Mapping[str, Any]]) -> str:
  """Returns the losses and errors of an evaluation as one line of text."""
  first, *others = records
  squared_errors = [record["test/squared_error"] for record in records]
  if others:
    return f"{len(records)} members  test error {min(squared_errors):.4g} to {max(squared_errors):.4g}"
  names = {"loss": "train/loss", "test loss": "test/loss", "nats": "test/nats"}
  values = {label: f"{first[name]:.4g}" for label, name in names.items() if name in first}
  nats = values.pop("nats", values["test loss"])
  losses = "  ".join(f"{label} {value}" for label, value in values.items())
  suffix = "" if nats == values["test loss"] else f"  nats {nats}"
  return f"{losses}  test error {squared_errors[0]:.4g} (PCA {first[metric_names.pca_key(first)]:.4g}){suffix}"

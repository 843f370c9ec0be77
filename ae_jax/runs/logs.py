"""Output of a training run: metrics.jsonl and copies of it, the progress display, and profiles."""

import array
import contextlib
import functools
import itertools
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.runs import metric_names, tensorboard, trackers

_INTERVALS = {False: 5.0, True: 30.0}  # `sparse` -> minimum number of seconds between lines (see `Display`)

Record = dict[str, float | int]  # a line of metrics.jsonl: "step", "epoch" and metrics, by name


class Log:
  """The metrics of a run: metrics.jsonl with one JSON object per line, and copies for TensorBoard and trackers.

  Opening the log at `step` removes all later records and incomplete lines. The run can then continue from `step`
  without duplicate records. `description` is the contents of config.json, which the copies contain too. `tracked` are
  the names of the trackers that receive a copy (keys of `trackers.TRACKERS`).
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    description: Mapping[str, Any] | None = None,
    tracked: Iterable[str] = (),
  ) -> None:
    self._workdir, self._step, self._config = workdir, step, description and description["config"]
    path = workdir / "metrics.jsonl"
    records = [record for record in stream(workdir) if record["step"] <= step]
    part = workdir / "metrics.jsonl.part"
    with self._writing():
      part.write_text("".join(map(_line, records)))
      os.replace(part, path)
      self._file = path.open("a")
    self._copies = [trackers.Copy(name, workdir, description, records, warn) for name in dict.fromkeys(tracked)]

  @functools.cached_property
  def _board(self) -> tensorboard.Board:
    """TensorBoard's event file. It is opened for the first record, because its imports take a second."""
    return tensorboard.Board(self._workdir, self._step, self._config)

  def write(self, record: Record) -> None:
    """Appends a record; raises UserError if it cannot be written."""
    with self._writing():
      self._file.write(_line(record))
      self._file.flush()
      self._board.write(record)
    self._step = record["step"]
    for copy in self._copies:
      copy.write(record)

  def settle(self) -> None:
    """Flushes all records to the disk; raises UserError if that fails.

    It is called before each checkpoint, so the disk contains all records up to the step of the checkpoint.
    """
    with self._writing():
      os.fsync(self._file.fileno())

  def finish(self, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    """Adds the final metrics, which are in no record, and PNG files to the copies; both are dicts by name."""
    with self._writing():
      self._board.write({"step": self._step, **numbers})
      self._board.pictures(pictures, self._step)
      self._board.finish(self._step)
    for copy in self._copies:
      copy.finish(numbers, pictures)

  def _writing(self) -> contextlib.AbstractContextManager[None]:
    where = f"{self._workdir}/metrics.jsonl or events.*"
    return errors.convert_os_errors(
      where, "; the checkpoints are unchanged. Free disk space and run the same command again; it continues the run"
    )

  def close(self) -> None:
    """Closes the file and the copies; waits until the trackers have received the remaining records."""
    with contextlib.suppress(OSError):  # already reported by `write`
      self._file.close()
    with contextlib.suppress(OSError):
      if "_board" in vars(self):
        self._board.close()
    for copy in self._copies:
      copy.close()

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class WindowAverages:
  """Averages of the loss terms over windows of `every` steps, and over the remaining steps of an epoch.

  Steps that `config.on_nan` skips are counted, but their terms are not averaged. `step` is the number of completed
  steps, and `pending` contains the loss terms of the last steps, which are not in a record yet.
  """

  def __init__(
    self, every: int, steps_per_epoch: int, step: int, pending: Iterable[dict[str, float | int]] = ()
  ) -> None:
    self._every, self._steps_per_epoch = every, steps_per_epoch
    self.pending = list(pending)
    self._step = step - len(self.pending)

  def add(self, terms: Mapping[str, Shaped[np.ndarray, " steps"]], count: int) -> Iterator[Record]:
    """Adds the next `count` steps and yields the record of each completed window.

    Args:
      terms: {name of a loss term: its values at the next steps}, for at least `count` steps.
      count: Number of steps to add.
    """
    self.pending.extend({name: values[row].item() for name, values in terms.items()} for row in range(count))
    while len(self.pending) > self._every:
      yield self._record(self._every)

  def rest(self) -> Record:
    """Returns the record of the steps that are not in a record yet."""
    return self._record(len(self.pending))

  def _record(self, count: int) -> Record:
    window, self.pending = self.pending[:count], self.pending[count:]
    self._step += count
    used = [terms for terms in window if not terms.get("skipped")]
    means = {f"train/{name}": float(np.mean([terms[name] for terms in used])) for name in window[0] if used}
    skipped = {"train/skipped": len(window) - len(used)} if "skipped" in window[0] else {}
    return {"step": self._step, "epoch": self._step / self._steps_per_epoch} | means | skipped


class NullLog:
  """A `Log` that writes nothing, for all processes except the first."""

  def write(self, record: Record) -> None:
    """Does nothing."""

  def settle(self) -> None:
    """Does nothing."""

  def finish(self, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    """Does nothing."""

  def __enter__(self) -> "NullLog":
    return self

  def __exit__(self, *_: object) -> None:
    pass


def read(workdir: pathlib.Path) -> list[Record]:
  """Returns all records of a run in order; [] without metrics.jsonl. Values that were not finite are NaN."""
  return list(stream(workdir))


def stream(workdir: pathlib.Path) -> Iterator[Record]:
  """Yields the records that `read` returns."""
  with contextlib.suppress(FileNotFoundError), (workdir / "metrics.jsonl").open(errors="replace") as file:
    yield from filter(None, map(_record, file))


def curves(records: Iterable[Record]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns the values of each metric over time, {name: (epochs, values)}, in the order of the records.

  `epochs` and `values` are float64 [points]. If `records` is a generator, only these arrays are kept in memory, because
  a long run has tens of thousands of records and its report is written repeatedly.
  """
  points = {}
  for record in records:
    for name, value in record.items():
      epochs, values = points.setdefault(name, (array.array("d"), array.array("d")))
      epochs.append(record["epoch"])
      values.append(value)
  return {name: (np.asarray(epochs), np.asarray(values)) for name, (epochs, values) in points.items()}


class Display:
  """Shows the progress of training: on a terminal, a progress bar with a line above it for each evaluation.

  Without a terminal, there is no bar, and a line is printed at most every 5 seconds, but always for the last
  evaluation. A `sparse` display prints a line at most every 30 seconds, even on a terminal and for the last evaluation.
  `images` is the number of examples per epoch, `epochs` the number of epochs of the run, and `done` the number of
  completed epochs. Nothing is displayed if `shown` is False.
  """

  def __init__(self, images: int, epochs: int, done: float = 0.0, shown: bool = True, sparse: bool = False) -> None:
    self._images, self._epochs, self._shown, self._sparse = images, epochs, shown, sparse
    self._seen, self._first, self._begun, self._printed = images * done, None, None, None
    self._trained, self._seconds = 0.0, 0.0  # trained examples and their training time, without evaluation and saving
    bar_format = "{desc}  {percentage:3.0f}% |{bar:20}|{postfix}, {remaining} left"
    self._terminal = sys.stdout.isatty()
    self._bar = tqdm.tqdm(
      total=images * epochs,
      initial=images * done,
      disable=not (shown and self._terminal),
      file=sys.stdout,
      bar_format=bar_format,
      postfix="compiling",
    )

  def advance(self, images: float | int, seconds: float, loss: float | np.floating[Any]) -> None:
    """Adds `images` examples, which took `seconds` of training, and the last loss (not shown if `sparse`)."""
    self._seen += images
    self._trained += images
    self._seconds += seconds
    if self._begun is None:  # the time so far includes the compilation, so the clock starts now
      self._begun = self._printed = time.monotonic()
      self._first = self._bar.initial = self._bar.n = self._seen
      self._bar.unpause()
      images = 0
    text = "" if self._sparse else f"  loss {loss:.4g}"
    self._bar.set_description_str(f"epoch {math.ceil(self._seen / self._images - 1e-6)}{text}", refresh=False)
    self._bar.set_postfix_str(f"{self._trained / self._seconds:,.0f} examples/s", refresh=False)
    self._bar.update(images)

  def evaluated(self, *records: Mapping[str, Any]) -> None:
    """Shows the results of an evaluation: one record for each model that is trained."""
    now, epoch = time.monotonic(), records[0]["epoch"]
    due = self._begun is not None and now > self._printed + _INTERVALS[self._sparse]
    last = epoch >= self._epochs and not self._sparse
    if self._shown and (due or last or (self._terminal and not self._sparse)):
      self._printed = now
      line = f"epoch {epoch:g} of {self._epochs}  {_summary(records)}"
      print_line(
        line if self._terminal else f"{line}  {records[0]['images_per_second']:,.0f} examples/s{self._left(now)}"
      )

  def _left(self, now: float) -> str:
    """Returns text with the remaining time, estimated from the speed since compilation; "" if it is unknown."""
    remaining = self._images * self._epochs - self._seen
    if self._begun is None or self._seen <= self._first or remaining < 0.5:
      return ""
    return f"  {tqdm.tqdm.format_interval(remaining * (now - self._begun) / (self._seen - self._first))} left"

  def __enter__(self) -> "Display":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()


def print_line(line: str) -> None:
  """Prints a line to stdout, above the progress bar."""
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


def profiled(function: Callable[..., Any], folder: pathlib.Path) -> Callable[..., Any]:
  """Returns the function with its second call profiled; TensorBoard and Perfetto can open the trace in `folder`."""
  calls = itertools.count()

  def call(*args: Any) -> Any:
    if next(calls) != 1:
      return function(*args)
    import jax

    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
      return jax.block_until_ready(function(*args))

  return call


def _record(line: str) -> Record | None:
  """Returns the record in a line, with NaN for null; None if the line is incomplete or damaged."""
  try:
    record = {name: math.nan if value is None else value for name, value in json.loads(line).items()}
    array.array("d", record.values())  # raises TypeError unless all values are numbers
    return record if isinstance(record["step"], int) and "epoch" in record else None
  except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError):
    return None


def _line(record: Record) -> str:
  """Returns a record as a line of JSON, with null for NaN and infinity, which JSON cannot represent."""
  return json.dumps({name: value if math.isfinite(value) else None for name, value in record.items()}) + "\n"

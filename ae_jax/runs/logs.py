"""Output of a training run: metrics.jsonl and its copies, the progress display, and profiles."""

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

_INTERVALS = {False: 5.0, True: 30.0}  # seconds between two lines without a terminal, and of a `sparse` display

Record = dict[str, float | int]  # a line of metrics.jsonl: metrics by name, with "step" and "epoch"


class Log:
  """The metrics of a run: metrics.jsonl with one JSON object per line, and copies for TensorBoard and trackers.

  Opening the log at a step removes records beyond that step, and an incomplete last line, so that the run continues
  from that step and each step has one record. `description` holds the contents of config.json, for the copies, and
  `tracked` the names of trackers that receive a copy (`trackers.TRACKERS`).
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
    """TensorBoard's event file, opened with the first record because its imports take a second."""
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
    """Flushes all records to the disk, before a checkpoint that follows them; raises UserError if that fails."""
    with self._writing():
      os.fsync(self._file.fileno())

  def finish(self, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    """Adds metrics that are in no record, by name, and PNG files by name to the copies."""
    with self._writing():
      self._board.write({"step": self._step, **numbers})
      self._board.pictures(pictures, self._step)
      self._board.finish(self._step)
    for copy in self._copies:
      copy.finish(numbers, pictures)

  def _writing(self) -> contextlib.AbstractContextManager[None]:
    where = f"{self._workdir}/metrics.jsonl or events.*"
    return errors.convert_os_errors(
      where, "; the checkpoints are unchanged. Free disk space; then the same command continues"
    )

  def close(self) -> None:
    """Closes the file and the copies; waits for trackers to receive the remaining records."""
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
  """Averages loss terms over windows of `every` steps and over the rest of an epoch; skipped steps are only counted.

  `step` is the number of completed steps; `pending` holds the terms of the last ones that are in no record yet.
  """

  def __init__(
    self, every: int, steps_per_epoch: int, step: int, pending: Iterable[dict[str, float | int]] = ()
  ) -> None:
    self._every, self._steps_per_epoch = every, steps_per_epoch
    self.pending = list(pending)
    self._step = step - len(self.pending)

  def add(self, terms: Mapping[str, Shaped[np.ndarray, " steps"]], count: int) -> Iterator[Record]:
    """Adds the next `count` steps and yields the records of completed windows.

    Args:
      terms: Values by term, of at least `count` steps.
      count: Number of steps to add.
    """
    self.pending.extend({name: values[row].item() for name, values in terms.items()} for row in range(count))
    while len(self.pending) > self._every:
      yield self._record(self._every)

  def rest(self) -> Record:
    """Returns the record of the steps that are in no record yet."""
    return self._record(len(self.pending))

  def _record(self, count: int) -> Record:
    window, self.pending = self.pending[:count], self.pending[count:]
    self._step += count
    used = [terms for terms in window if not terms.get("skipped")]
    means = {f"train/{name}": float(np.mean([terms[name] for terms in used])) for name in window[0] if used}
    skipped = {"train/skipped": len(window) - len(used)} if "skipped" in window[0] else {}
    return {"step": self._step, "epoch": self._step / self._steps_per_epoch} | means | skipped


class NullLog:
  """A `Log` that writes nothing, for all processes but the first."""

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
  """Returns all records of a run in order, with NaN for values that were not finite; [] without metrics.jsonl."""
  return list(stream(workdir))


def stream(workdir: pathlib.Path) -> Iterator[Record]:
  """Yields the records of a run; see `read`."""
  with contextlib.suppress(FileNotFoundError), (workdir / "metrics.jsonl").open(errors="replace") as file:
    yield from filter(None, map(_record, file))


def curves(records: Iterable[Record]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns each metric over time: {name: (epochs, values)}, float64 [points], in the order of the records.

  If `records` is a generator, only these numbers are kept in memory: a long run has tens of thousands of records, and
  its report is written repeatedly.
  """
  points = {}
  for record in records:
    for name, value in record.items():
      epochs, values = points.setdefault(name, (array.array("d"), array.array("d")))
      epochs.append(record["epoch"])
      values.append(value)
  return {name: (np.asarray(epochs), np.asarray(values)) for name, (epochs, values) in points.items()}


class Display:
  """Progress of a training on the screen: a progress bar on a terminal, and a line for each evaluation above it.

  Without a terminal, only the lines are printed, at most one every few seconds, and always the one of the last
  evaluation. A sparse display also prints at most one line every few seconds on a terminal, and none in particular for
  the last evaluation. `images` is the number of examples per epoch, and `done` the number of completed epochs. Nothing
  is displayed if `shown` is False.
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
    """Adds `images` examples that were trained in `seconds`, with the last loss, which a sparse display omits."""
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
    self._bar.set_postfix_str(f"{self._trained / self._seconds:,.0f} images/s", refresh=False)
    self._bar.update(images)

  def evaluated(self, *records: Mapping[str, Any]) -> None:
    """Shows an evaluation, given the record of each model."""
    now, epoch = time.monotonic(), records[0]["epoch"]
    due = self._begun is not None and now > self._printed + _INTERVALS[self._sparse]
    last = epoch >= self._epochs and not self._sparse
    if self._shown and (due or last or (self._terminal and not self._sparse)):
      self._printed = now
      line = f"epoch {epoch:g} of {self._epochs}  {_summary(records)}"
      print_line(
        line if self._terminal else f"{line}  {records[0]['images_per_second']:,.0f} images/s{self._left(now)}"
      )

  def _left(self, now: float) -> str:
    """Returns the remaining time, at the speed since the end of the compilation."""
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
  """Returns the losses and errors of an evaluation as text."""
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
  """Returns the function with its second call profiled; the trace in `folder` is for TensorBoard or Perfetto."""
  calls = itertools.count()

  def call(*args: Any) -> Any:
    if next(calls) != 1:
      return function(*args)
    import jax

    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
      return jax.block_until_ready(function(*args))

  return call


def _record(line: str) -> Record | None:
  """Returns the record in a line, with NaN for null, or None if the line is incomplete or damaged."""
  try:
    record = {name: math.nan if value is None else value for name, value in json.loads(line).items()}
    array.array("d", record.values())  # raises TypeError unless all values are numbers
    return record if isinstance(record["step"], int) and "epoch" in record else None
  except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError):
    return None


def _line(record: Record) -> str:
  """Returns a record as a line of JSON, with null for NaN and infinity, which JSON does not have."""
  return json.dumps({name: value if math.isfinite(value) else None for name, value in record.items()}) + "\n"

"""Metrics of a run: metrics.jsonl and copies of it for TensorBoard and trackers; and profiles of the training."""

import array
import contextlib
import functools
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.runs import progress, tensorboard, trackers
from ae_jax.system import atomic

Record = dict[str, float | int]  # a line of metrics.jsonl: "step", "epoch" and metrics, by name
_COUNTS = ("skipped", "halved")  # terms of `config.on_nan` that are summed in a record; all other terms are averaged


class Log:
  """The metrics of a run: metrics.jsonl with one JSON object per line, and copies for TensorBoard and trackers.

  Opening the log at `step` removes all later records and incomplete lines. The run can then be resumed from `step`
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
    with self._writing():
      atomic.write_text(path, "".join(map(_line, records)))
      self._file = path.open("a", encoding="utf-8", newline="\n")
    self._copies = [
      trackers.Copy(name, workdir, description, records, progress.warn) for name in dict.fromkeys(tracked)
    ]

  @functools.cached_property
  def _board(self) -> tensorboard.Board:
    """TensorBoard's event file. It is opened for the first record, because its imports take a second."""
    return tensorboard.Board(self._workdir, self._step, self._config)

  def write(self, record: Record) -> None:
    """Appends a record; raises WriteError if it cannot be written."""
    with self._writing():
      self._file.write(_line(record))
      self._file.flush()
      self._board.write(record)
    self._step = record["step"]
    for copy in self._copies:
      copy.write(record)

  def settle(self) -> None:
    """Flushes all records to the disk; raises WriteError if that fails.

    It is called before each checkpoint, so the disk contains all records up to the step of the checkpoint.
    """
    with self._writing():
      os.fsync(self._file.fileno())

  def finish(self, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    """Adds final results to the copies for TensorBoard and trackers.

    Args:
      numbers: {name: value} of the final metrics. metrics.jsonl does not contain them.
      pictures: {name: path} of PNG files.
    """
    with self._writing():
      self._board.write({"step": self._step, **numbers})
      self._board.pictures(pictures, self._step)
      self._board.finish(self._step)
    for copy in self._copies:
      copy.finish(numbers, pictures)

  def _writing(self) -> contextlib.AbstractContextManager[None]:
    where = f"{self._workdir}/metrics.jsonl or events.*"
    then = "; the checkpoints are unchanged. Free disk space and run the same command again; it resumes the run"
    return errors.convert_os_errors(where, then, errors.WriteError)

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
    """Returns a record of all steps in `pending`."""
    return self._record(len(self.pending))

  def _record(self, count: int) -> Record:
    window, self.pending = self.pending[:count], self.pending[count:]
    self._step += count
    used = [terms for terms in window if not terms.get("skipped")]
    means = {f"train/{name}": float(np.mean([terms[name] for terms in used])) for name in window[0] if used}
    counts = {f"train/{name}": sum(terms[name] for terms in window) for name in _COUNTS if name in window[0]}
    return {"step": self._step, "epoch": self._step / self._steps_per_epoch} | means | counts


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


class MemoryLog(NullLog):
  """A `Log` of a run without a folder: it keeps the records in memory."""

  def __init__(self) -> None:
    self.records: list[Record] = []

  def write(self, record: Record) -> None:
    """Appends a record."""
    self.records.append(record)


def read(workdir: pathlib.Path) -> list[Record]:
  """Returns all records of a run in order; [] without metrics.jsonl. Values that were not finite are NaN."""
  return list(stream(workdir))


def stream(workdir: pathlib.Path) -> Iterator[Record]:
  """Yields the records that `read` returns."""
  with (
    contextlib.suppress(FileNotFoundError),
    (workdir / "metrics.jsonl").open(encoding="utf-8", errors="replace") as file,
  ):
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


def profiled(function: Callable[..., Any], folder: pathlib.Path) -> Callable[..., Any]:
  """Returns a wrapper of `function` that profiles the second call.

  The trace is written to `folder`; TensorBoard and Perfetto can open it.
  """
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

"""What a run says while it trains: metrics.jsonl and its copies, what the screen shows, and a profile if asked."""

import array
import contextlib
import functools
import itertools
import json
import math
import os
import sys
import time

import numpy as np
import tqdm

from ae_jax import errors
from ae_jax.runs import metric_names, trackers

_EVERY = {False: 5.0, True: 30.0}  # seconds between two lines where there is no terminal, and of a `sparse` display


class Log:
  """The records of a run, one JSON object a line, each with a `step` that no other line has, and copies of them.

  Opening it at a step drops what lies beyond that step (and a line cut short by a crash): the run goes on from there.
  The copies are TensorBoard's file, and those of the trackers by their names, given what config.json holds.
  """

  def __init__(self, workdir, step, description=None, tracked=()):
    self._workdir, self._step, self._config = workdir, step, description and description["config"]
    path = workdir / "metrics.jsonl"
    kept = [record for record in stream(workdir) if record["step"] <= step]
    part = workdir / "metrics.jsonl.part"
    with self._writing():
      part.write_text("".join(map(_line, kept)))
      os.replace(part, path)
      self._file = path.open("a")
    self._copies = [trackers.Copy(name, workdir, description, kept, complain) for name in dict.fromkeys(tracked)]

  @functools.cached_property
  def _board(self):
    """TensorBoard's file, opened at the first record: a second of imports."""
    from ae_jax.runs import tensorboard

    return tensorboard.Board(self._workdir, self._step, self._config)

  def write(self, record):
    """Appends a record: a dict of numbers with `step` and `epoch`; UserError if it cannot be written."""
    with self._writing():
      self._file.write(_line(record))
      self._file.flush()
      self._board.write(record)
    self._step = record["step"]
    for copy in self._copies:
      copy.write(record)

  def settle(self):
    """Returns when the records lie on the disk, which a checkpoint after them may rely on; UserError if they cannot."""
    with self._writing():
      os.fsync(self._file.fileno())

  def finish(self, numbers, pictures):
    """Gives the copies what is known at the end: numbers {name: value} of no record, pictures {name: path of a PNG}."""
    with self._writing():
      self._board.write({"step": self._step, **numbers})
      self._board.pictures(pictures, self._step)
      self._board.finish(self._step)
    for copy in self._copies:
      copy.finish(numbers, pictures)

  def _writing(self):
    where = f"{self._workdir}/metrics.jsonl or events.*"
    return errors.writing(where, "; the checkpoints are untouched, and with room for more the same command continues")

  def close(self):
    """Writes out what the copies still lack."""
    with contextlib.suppress(OSError):  # said already
      self._file.close()
    with contextlib.suppress(OSError):
      if "_board" in vars(self):
        self._board.close()
    for copy in self._copies:
      copy.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


class Windows:
  """Makes records of the terms of steps: the means over `every` of them, and over what is left at the end of an epoch.

  Steps that were skipped are counted and left out.
  """

  def __init__(self, every, steps_per_epoch, step, pending=()):
    self._every, self._steps_per_epoch = every, steps_per_epoch
    self.pending = list(pending)  # terms of the steps up to `step` that are in no record yet, as dicts
    self._step = step - len(self.pending)

  def add(self, terms, count):
    """The first `count` of the next steps, whose terms are {name: [steps]}: generates the records that are complete."""
    self.pending.extend({name: values[row].item() for name, values in terms.items()} for row in range(count))
    while len(self.pending) > self._every:
      yield self._record(self._every)

  def rest(self):
    """The record of the steps that are in none yet."""
    return self._record(len(self.pending))

  def _record(self, count):
    window, self.pending = self.pending[:count], self.pending[count:]
    self._step += count
    used = [terms for terms in window if not terms.get("skipped")]
    means = {f"train/{name}": float(np.mean([terms[name] for terms in used])) for name in window[0] if used}
    skipped = {"train/skipped": len(window) - len(used)} if "skipped" in window[0] else {}
    return {"step": self._step, "epoch": self._step / self._steps_per_epoch} | means | skipped


class Silence:
  """What a process that is not the first has for a `Log`."""

  def write(self, record):
    """Nothing."""

  def settle(self):
    """Nothing."""

  def finish(self, numbers, pictures):
    """Nothing."""

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def read(workdir):
  """All complete records of a run in order, as dicts, NaN for what was not finite; [] where there are none."""
  return list(stream(workdir))


def stream(workdir):
  """Generates what `read` has, a record at a time."""
  with contextlib.suppress(FileNotFoundError), (workdir / "metrics.jsonl").open(errors="replace") as file:
    yield from filter(None, map(_record, file))


def curves(records):
  """What records say of each metric as training goes on: {name: (epochs [n], values [n])}, float64, in their order.

  Of records that are generated no more than these numbers is kept: a long run has tens of thousands, and its page is
  made again and again.
  """
  found = {}
  for record in records:
    for name, value in record.items():
      epochs, values = found.setdefault(name, (array.array("d"), array.array("d")))
      epochs.append(record["epoch"])
      values.append(value)
  return {name: (np.asarray(epochs), np.asarray(values)) for name, (epochs, values) in found.items()}


class Display:
  """What the screen shows of a training: on a terminal a line that moves, and above it one for each evaluation.

  Where there is no terminal it is those lines alone, one in some seconds at most, but always that of the last. With
  `sparse` it is one in some seconds on a terminal too, and the last is one like any other.
  """

  def __init__(self, images, epochs, done=0.0, shown=True, sparse=False):
    """Of `images` an epoch and so many `epochs`, of which `done` are; nothing at all if not `shown`."""
    self._images, self._epochs, self._shown, self._sparse = images, epochs, shown, sparse
    self._seen, self._first, self._begun, self._said = images * done, None, None, None
    self._trained, self._seconds = 0.0, 0.0  # images, and the time that they took, without what is done in between
    form = "{desc}  {percentage:3.0f}% |{bar:20}|{postfix}, {remaining} left"
    self._terminal = sys.stdout.isatty()
    self._bar = tqdm.tqdm(
      total=images * epochs,
      initial=images * done,
      disable=not (shown and self._terminal),
      file=sys.stdout,
      bar_format=form,
      postfix="compiling",
    )

  def advance(self, images, seconds, loss):
    """Counts `images` that were trained in `seconds`; a display that is not `sparse` shows the last loss."""
    self._seen += images
    self._trained += images
    self._seconds += seconds
    if self._begun is None:  # the clock starts now: what went before was compiling too
      self._begun = self._said = time.monotonic()
      self._first = self._bar.initial = self._bar.n = self._seen
      self._bar.unpause()
      images = 0
    told = "" if self._sparse else f"  loss {loss:.4g}"
    self._bar.set_description_str(f"epoch {math.ceil(self._seen / self._images - 1e-6)}{told}", refresh=False)
    self._bar.set_postfix_str(f"{self._trained / self._seconds:,.0f} images/s", refresh=False)
    self._bar.update(images)

  def evaluated(self, *records):
    """The test set was evaluated: the records of the model, or of some that are trained together, say how it went."""
    now, epoch = time.monotonic(), records[0]["epoch"]
    due = self._begun is not None and now > self._said + _EVERY[self._sparse]
    last = epoch >= self._epochs and not self._sparse
    if self._shown and (due or last or (self._terminal and not self._sparse)):
      self._said = now
      line = f"epoch {epoch:g} of {self._epochs}  {_told(records)}"
      say(line if self._terminal else f"{line}  {records[0]['images_per_second']:,.0f} images/s{self._left(now)}")

  def _left(self, now):
    """How long it will take, at the speed since the compiling was over."""
    to_do = self._images * self._epochs - self._seen
    if self._begun is None or self._seen <= self._first or to_do < 0.5:
      return ""
    return f"  {tqdm.tqdm.format_interval(to_do * (now - self._begun) / (self._seen - self._first))} left"

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()


def say(line):
  """Prints a line, above that which moves if there is one."""
  tqdm.tqdm.write(line, file=sys.stdout)
  sys.stdout.flush()


def complain(line):
  """Says what is wrong in a line, above that which moves if there is one."""
  tqdm.tqdm.write(f"ae_jax: {' '.join(line.split())}", file=sys.stderr)


def _told(records):
  """The losses and errors of an evaluation in a few words."""
  first, found = records[0], [record["test/squared_error"] for record in records]
  if len(records) > 1:
    return f"{len(records)} members  test error {min(found):.4g} to {max(found):.4g}"
  names = {"loss": "train/loss", "test loss": "test/loss", "nats": "test/nats"}
  told = {words: f"{first[name]:.4g}" for words, name in names.items() if name in first}
  nats = told.pop("nats", told["test loss"])
  losses = "  ".join(f"{words} {value}" for words, value in told.items())
  more = "" if nats == told["test loss"] else f"  nats {nats}"
  return f"{losses}  test error {found[0]:.4g} (PCA {first[metric_names.pca_key(first)]:.4g}){more}"


def traced(function, folder):
  """`function`, whose second call leaves in `folder` what each device and thread did, for TensorBoard or Perfetto."""
  calls = itertools.count()

  def call(*args):
    if next(calls) != 1:
      return function(*args)
    import jax

    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
      return jax.block_until_ready(function(*args))

  return call


def _record(line):
  """The record that a line holds, NaN for null; None if it holds none, as the last one of a run that was killed.

  A line that a disk has damaged is as if it were not there: those behind it are kept.
  """
  try:
    record = {name: math.nan if value is None else value for name, value in json.loads(line).items()}
    array.array("d", record.values())  # of numbers alone
    return record if isinstance(record["step"], int) and "epoch" in record else None
  except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError):
    return None


def _line(record):
  """A record as JSON has it, which knows no number that is not finite: null stands for it."""
  return json.dumps({name: value if math.isfinite(value) else None for name, value in record.items()}) + "\n"

"""What a run says while it trains: metrics.jsonl, TensorBoard's events, the progress line, and a profile if asked."""

import contextlib
import functools
import itertools
import json
import math
import os
import time

import tqdm

from ae_jax import errors

_EVERY = 30.0  # seconds until TensorBoard sees what is new


class Log:
  """The records of a run, one JSON object a line, each with a `step` that no other line has.

  Opening it at a step drops what lies beyond that step (and a line cut short by a crash): the run goes on from there.
  """

  def __init__(self, workdir, step):
    self._workdir, self._step, self._flushed = workdir, step, time.monotonic()
    path = workdir / "metrics.jsonl"
    kept = [record for record in read(workdir) if record["step"] <= step]
    part = workdir / "metrics.jsonl.part"
    with self._writing():
      part.write_text("".join(map(_line, kept)))
      os.replace(part, path)
      self._file = path.open("a")

  @functools.cached_property
  def _events(self):
    """TensorBoard's file, opened at the first record: a second of imports. It forgets what lies beyond the step.

    Written by this thread: what fails in the one of tensorboardX's SummaryWriter nobody can catch.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    events = EventsWriter(str(self._workdir / "events"))
    events.write_event(Event(step=self._step + 1, session_log=SessionLog(status=SessionLog.START)))
    return events

  def write(self, record):
    """Appends a record: a dict of numbers with `step` and `epoch`; UserError if it cannot be written."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import Summary

    values = [(name, value) for name, value in record.items() if name != "step" and math.isfinite(value)]
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values])
    with self._writing():
      self._file.write(_line(record))
      self._file.flush()
      self._events.write_event(Event(wall_time=time.time(), step=record["step"], summary=summary))
      if time.monotonic() > self._flushed + _EVERY:
        self._flush_events()

  def settle(self):
    """Returns when the records lie on the disk, which a checkpoint after them may rely on; UserError if they cannot."""
    with self._writing():
      os.fsync(self._file.fileno())

  def _flush_events(self):
    self._events.flush()
    self._flushed = time.monotonic()

  def _writing(self):
    where = f"{self._workdir}/metrics.jsonl or events.*"
    return errors.writing(where, "; the checkpoints are untouched, and with room for more the same command continues")

  def close(self):
    """Writes out what TensorBoard still holds back."""
    with contextlib.suppress(OSError):  # said already
      self._file.close()
    with contextlib.suppress(OSError):
      if "_events" in vars(self):
        self._events.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


class Silence:
  """What a process that is not the first has for a `Log`."""

  def write(self, record):
    """Nothing."""

  def settle(self):
    """Nothing."""

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def read(workdir):
  """All complete records of a run in order, as dicts, NaN for what was not finite; [] where there are none."""
  records = []
  path = workdir / "metrics.jsonl"
  if path.exists():
    for line in path.read_text(errors="replace").splitlines():
      try:
        record = json.loads(line)
      except json.JSONDecodeError:  # the last line of a run that was killed
        break
      if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        break
      records.append({name: math.nan if value is None else value for name, value in record.items()})
  return records


def progress(images, epochs, done, shown=True):
  """A tqdm line counting images (with images/s and time left), from `done` epochs on; silent when not a terminal."""
  total, silent = images * epochs, None if shown else True
  form = "{desc}  {percentage:3.0f}% |{bar:20}| {rate_fmt}, {remaining} left{postfix}"
  return tqdm.tqdm(total=total, initial=images * done, unit=" images", unit_scale=True, disable=silent, bar_format=form)


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


def _line(record):
  """A record as JSON has it, which knows no number that is not finite: null stands for it."""
  return json.dumps({name: value if math.isfinite(value) else None for name, value in record.items()}) + "\n"

"""What a run says while it trains: metrics.jsonl, TensorBoard's events, the progress line, and a profile if asked."""

import contextlib
import functools
import itertools
import json
import math
import os

import tqdm

from ae_jax import errors


class Log:
  """The records of a run, one JSON object a line, each with a `step` that no other line has.

  Opening it at a step drops what lies beyond that step (and a line cut short by a crash): the run goes on from there.
  """

  def __init__(self, workdir, step):
    self._workdir, self._step = workdir, step
    path = workdir / "metrics.jsonl"
    kept = [record for record in read(workdir) if record["step"] <= step]
    part = workdir / "metrics.jsonl.part"
    part.write_text("".join(map(_line, kept)))
    os.replace(part, path)
    self._file = path.open("a")

  @functools.cached_property
  def _events(self):
    """TensorBoard's writer, opened at the first record: a second of imports, and a file."""
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(self._workdir), purge_step=self._step + 1)

  def write(self, record):
    """Appends a record: a dict of numbers with `step` and `epoch`; UserError if it cannot be written."""
    with self._complaining():
      self._file.write(_line(record))
      self._file.flush()
    for name, value in record.items():
      if name != "step" and math.isfinite(value):
        self._events.add_scalar(name, value, record["step"])

  def settle(self):
    """Returns when the records lie on the disk, which a checkpoint after them may rely on; UserError if they cannot."""
    with self._complaining():
      os.fsync(self._file.fileno())

  @contextlib.contextmanager
  def _complaining(self):
    try:
      yield
    except OSError as error:
      raise errors.UserError(
        f"{self._workdir}/metrics.jsonl: cannot be written: {error.strerror}; the checkpoints are untouched, and with "
        "room for more the same command continues"
      ) from None

  def close(self):
    """Writes out what TensorBoard still holds back."""
    with contextlib.suppress(OSError):  # said already
      self._file.close()
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

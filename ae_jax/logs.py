"""What a run says while it trains: metrics.jsonl, TensorBoard's events, the progress line, and a profile if asked."""

import functools
import itertools
import json
import os

import tqdm


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
    """Appends a record: a dict of numbers with `step` and `epoch`."""
    self._file.write(_line(record))
    self._file.flush()
    for name, value in record.items():
      if name != "step":
        self._events.add_scalar(name, value, record["step"])

  def close(self):
    """Writes out what TensorBoard still holds back."""
    self._file.close()
    if "_events" in vars(self):
      self._events.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def read(workdir):
  """All complete records of a run in order, as dicts; [] where there are none."""
  records = []
  path = workdir / "metrics.jsonl"
  if path.exists():
    for line in path.read_text().splitlines():
      try:
        records.append(json.loads(line))
      except json.JSONDecodeError:  # the last line of a run that was killed
        break
  return records


def progress(images, epochs, done):
  """A tqdm line counting images (with images/s and time left), from `done` epochs on; silent when not a terminal."""
  total = images * epochs
  form = "{desc}  {percentage:3.0f}% |{bar:20}| {rate_fmt}, {remaining} left{postfix}"
  return tqdm.tqdm(total=total, initial=images * done, unit=" images", unit_scale=True, disable=None, bar_format=form)


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
  return json.dumps(record) + "\n"

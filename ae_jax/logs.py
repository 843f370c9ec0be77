"""What a run says while it trains: metrics.jsonl, TensorBoard's events, and the progress line."""

import json
import os

import tqdm


class Log:
  """The records of a run, one JSON object a line, each with a `step` that no other line has.

  Opening it at a step drops what lies beyond that step (and a line cut short by a crash): the run goes on from there.
  """

  def __init__(self, workdir, step):
    self._path = workdir / "metrics.jsonl"
    kept = [record for record in read(workdir) if record["step"] <= step]
    part = workdir / "metrics.jsonl.part"
    part.write_text("".join(map(_line, kept)))
    os.replace(part, self._path)
    self._file = self._path.open("a")
    from tensorboardX import SummaryWriter  # a second of imports

    self._events = SummaryWriter(str(workdir), purge_step=step + 1)

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


def _line(record):
  return json.dumps(record) + "\n"

"""What TensorBoard shows of a run: the file events.* of its folder."""

import json
import math
import struct
import time

from ae_jax import config as configs

_EVERY = 30.0  # seconds until TensorBoard sees what is new


class Board:
  """The events of a run from a step on; TensorBoard forgets what earlier ones say beyond that step.

  Written by the thread that calls: what fails in the one of tensorboardX's SummaryWriter nobody can catch. Every method
  raises OSError where the file cannot be written.
  """

  def __init__(self, workdir, step, config):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import SessionLog

    self._events, self._flushed = EventsWriter(str(workdir / "events"), f".{step}"), time.monotonic()
    self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
    if config:
      self._write(step, summary=_session(config)[0])

  def write(self, record):
    """A record: a dict of numbers with `step`, of which those are shown that are finite."""
    values = [(name, value) for name, value in record.items() if name != "step" and math.isfinite(value)]
    self._write(record["step"], summary=_summary({"tag": name, "simple_value": value} for name, value in values))
    if time.monotonic() > self._flushed + _EVERY:
      self.flush()

  def pictures(self, files, step):
    """Pictures, {name: path of a PNG file}."""
    for name, file in files.items():
      self._write(step, summary=_summary([{"tag": f"pictures/{name}", "image": _image(file.read_bytes())}]))

  def finish(self, step):
    """The end of the run: its line in the table of the HParams tab counts as a success."""
    self._write(step, summary=_session({})[1])
    self.flush()

  def flush(self):
    """Lets TensorBoard see all that was written."""
    self._events.flush()
    self._flushed = time.monotonic()

  def close(self):
    """Flushes, and closes the file."""
    self._events.close()

  def _write(self, step, **content):
    from tensorboardX.proto.event_pb2 import Event

    self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def flat(config):
  """A nested config, as config.json has it, as {"section.key": number, flag or text}; its lists as texts of JSON."""
  entries = configs.flat(config).items()
  return {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in entries}


def _session(config):
  """The summaries that begin and end a session of the HParams tab, which is a run with its config.

  The third that there can be, of the experiment, is left out: TensorBoard then makes it of all the runs in its folder,
  and shows first the keys in which they differ. It would use that of one run for all, in alphabetical order.
  """
  from tensorboardX.summary import hparams

  _, start, end = hparams(flat(config), {})
  return start, end


def _summary(values):
  from tensorboardX.proto.summary_pb2 import Summary

  return Summary(value=[Summary.Value(**value) for value in values])


def _image(png):
  """The bytes of a PNG file as an image of a summary; its header says the size, and the kind of its pixels."""
  width, height, _, kind = struct.unpack(">IIBB", png[16:26])
  channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[kind]
  return {"width": width, "height": height, "colorspace": channels, "encoded_image_string": png}

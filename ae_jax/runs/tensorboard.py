"""TensorBoard event files of a run."""

import json
import math
import pathlib
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ae_jax import config as configs

_FLUSH_INTERVAL = 30.0  # seconds


class Board:
  """Writer of the TensorBoard event file of a run that starts or resumes at `step`.

  When a run is resumed at `step`, TensorBoard discards events of later steps that were written before. This class
  writes in the calling thread, because errors in the thread of tensorboardX's SummaryWriter cannot be caught. All
  methods raise OSError if the file cannot be written.
  """

  def __init__(self, workdir: pathlib.Path, step: int, config: Mapping[str, Any] | None) -> None:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import SessionLog

    self._events, self._flushed = EventsWriter(str(workdir / "events"), f".{step}"), time.monotonic()
    self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
    if config:
      self._write(step, summary=_session(config)[0])

  def write(self, record: Mapping[str, float | int]) -> None:
    """Writes the finite metrics of a record at its step."""
    values = [(name, value) for name, value in record.items() if name != "step" and math.isfinite(value)]
    self._write(record["step"], summary=_summary({"tag": name, "simple_value": value} for name, value in values))
    if time.monotonic() > self._flushed + _FLUSH_INTERVAL:
      self.flush()

  def pictures(self, files: Mapping[str, pathlib.Path], step: int) -> None:
    """Writes PNG files, {name: path}, as images of a step."""
    for name, file in files.items():
      self._write(step, summary=_summary([{"tag": f"pictures/{name}", "image": _image(file.read_bytes())}]))

  def finish(self, step: int) -> None:
    """Marks the run as successful in TensorBoard's HParams tab."""
    self._write(step, summary=_session({})[1])
    self.flush()

  def flush(self) -> None:
    """Flushes the file, so TensorBoard shows all events."""
    self._events.flush()
    self._flushed = time.monotonic()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._events.close()

  def _write(self, step: int, **content: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a nested config of JSON types as {"section.key": value}, with lists as JSON text."""
  entries = configs.flat(config).items()
  return {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in entries}


def _session(config: Mapping[str, Any]) -> tuple[Any, Any]:
  """Returns the two summaries that start and end a session. The HParams tab shows a run and its config as a session.

  The HParams plugin also defines a summary of the experiment, which is optional and omitted here. Without it,
  TensorBoard lists the config keys of all runs in the folder, and begins with the keys that differ. With it,
  TensorBoard would list the keys of a single run, in alphabetical order.
  """
  from tensorboardX.summary import hparams

  _, start, end = hparams(flat(config), {})
  return start, end


def _summary(values: Iterable[Mapping[str, Any]]) -> Any:
  from tensorboardX.proto.summary_pb2 import Summary

  return Summary(value=[Summary.Value(**value) for value in values])


def _image(png: bytes) -> dict[str, Any]:
  """Returns a PNG file as the image entry of a summary, with the size and the channels from the PNG header."""
  width, height, _, color_type = struct.unpack(">IIBB", png[16:26])
  channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[color_type]
  return {"width": width, "height": height, "colorspace": channels, "encoded_image_string": png}

import json
import math

import jax
import numpy as np
import pytest

from ae_jax import errors, logs


def write(folder, start, stop):
  with logs.Log(folder, step=start) as log:
    for step in range(start + 1, stop + 1):
      log.write({"step": step, "epoch": step / 2, "train/loss": 1.5 * step})


def test_records_come_back(tmp_path):
  write(tmp_path, 0, 3)
  assert logs.read(tmp_path) == [{"step": s, "epoch": s / 2, "train/loss": 1.5 * s} for s in (1, 2, 3)]
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_going_on_from_a_step_leaves_no_step_twice_and_none_missing(tmp_path):
  write(tmp_path, 0, 7)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "epo')  # killed here
  write(tmp_path, 4, 9)
  assert [record["step"] for record in logs.read(tmp_path)] == list(range(1, 10))
  for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
    json.loads(line)


def test_tensorboard_reads_the_same_numbers(tmp_path):
  write(tmp_path, 0, 3)
  from tensorboardX.proto import event_pb2

  (events,) = tmp_path.glob("events.*")
  found = {}
  content = events.read_bytes()
  while content:  # a record: length, its checksum, the event, its checksum
    length = int.from_bytes(content[:8], "little")
    event = event_pb2.Event.FromString(content[12 : 12 + length])
    content = content[12 + length + 4 :]
    for value in event.summary.value:
      found[value.tag, event.step] = value.simple_value
  assert found == {(tag, s): v for s in (1, 2, 3) for tag, v in {"epoch": s / 2, "train/loss": 1.5 * s}.items()}


def test_a_run_without_records_has_none(tmp_path):
  assert logs.read(tmp_path) == []


def test_the_second_call_and_no_other_is_traced(tmp_path):
  traced = logs.traced(jax.jit(lambda x: x @ x), tmp_path / "profile")
  results = [traced(np.eye(3))]
  assert not (tmp_path / "profile").exists()
  results += [traced(np.eye(3)) for _ in range(2)]
  (profile,) = tmp_path.rglob("*.xplane.pb")
  assert profile.stat().st_size > 0
  for result in results:
    np.testing.assert_array_equal(result, np.eye(3))


def test_progress_is_silent_when_not_on_a_terminal(capfd):
  with logs.progress(10, 2, 0) as bar:
    bar.set_description("epoch 1/2")
    bar.update(10)
  assert capfd.readouterr() == ("", "")


def test_what_is_no_record_and_all_behind_it_is_not_read(tmp_path):
  for torn in (b'{"step": 3', b"\xff\xfe\n", b"12\n", b'{"epoch": 3}\n', b'{"step": "3"}\n'):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + torn)
    assert logs.read(tmp_path) == [{"step": 1}]


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
  with logs.Log(tmp_path, step=0) as log:
    log.write({"step": 1, "epoch": 0.5, "test/psnr": math.inf, "train/loss": math.nan})
  stored = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
  assert stored == {"step": 1, "epoch": 0.5, "test/psnr": None, "train/loss": None}
  (record,) = logs.read(tmp_path)
  assert math.isnan(record["test/psnr"])
  assert math.isnan(record["train/loss"])


class Full:
  """A file on a disk that is full."""

  def write(self, text):
    raise OSError(28, "No space left on device")

  def close(self):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line(tmp_path):
  with logs.Log(tmp_path, step=0) as log:
    log._file.close()
    log._file = Full()
    with pytest.raises(
      errors.UserError, match=r"metrics.jsonl or events.*: cannot be written: No space left on device; .* continues"
    ):
      log.write({"step": 2, "epoch": 2.0})

"""metrics.jsonl, and profiles."""

import json
import math
import os
import tracemalloc

import jax
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.runs import logs


def write(folder, start, stop):
  with logs.Log(folder, step=start) as log:
    for step in range(start + 1, stop + 1):
      log.write({"step": step, "epoch": step / 2, "train/loss": 1.5 * step})


def test_records_are_read_as_written(tmp_path):
  write(tmp_path, 0, 3)
  assert logs.read(tmp_path) == [{"step": s, "epoch": s / 2, "train/loss": 1.5 * s} for s in (1, 2, 3)]
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_continued_log_has_each_step_once(tmp_path):
  write(tmp_path, 0, 7)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "epo')  # as after a kill
  write(tmp_path, 4, 9)
  assert [record["step"] for record in logs.read(tmp_path)] == list(range(1, 10))
  for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
    json.loads(line)


def test_read_returns_an_empty_list_without_a_file(tmp_path):
  assert logs.read(tmp_path) == []


def test_only_the_second_call_is_profiled(tmp_path):
  traced = logs.profiled(jax.jit(lambda x: x @ x), tmp_path / "profile")
  results = [traced(np.eye(3))]
  assert not (tmp_path / "profile").exists()
  results += [traced(np.eye(3)) for _ in range(2)]
  (profile,) = tmp_path.rglob("*.xplane.pb")
  assert profile.stat().st_size > 0
  for result in results:
    np.testing.assert_array_equal(result, np.eye(3))


def test_damaged_lines_are_skipped(tmp_path):
  incomplete = [b'{"step": 3, "epoch": 1', b"\xff\xfe", b"12", b"", b'{"epoch": 3}', b'{"step": 3}']
  wrong_types = [b'{"step": "3", "epoch": 1}', b'{"step": 3, "epoch": "1"}', b'{"step": 3, "epoch": [1]}']
  for damaged in (*incomplete, *wrong_types, b'{"step": 3, "epoch": 1' + 400 * b"0" + b"}", b"[" * 10**5):
    lines = [b'{"step": 1, "epoch": 0.5}', damaged, b'{"step": 4, "epoch": 2.0}', damaged]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert logs.read(tmp_path) == [{"step": 1, "epoch": 0.5}, {"step": 4, "epoch": 2.0}]


def test_curves_returns_the_points_of_each_metric_in_order():
  records = [{"step": 1, "epoch": 0.5, "loss": 9}, {"step": 2, "epoch": 1.0, "loss": math.nan, "error": 4.0}]
  curves = logs.curves(records)
  assert {name: [axis.tolist() for axis in curves[name]] for name in ("step", "error")} == {
    "step": [[0.5, 1.0], [1.0, 2.0]],
    "error": [[1.0], [4.0]],
  }
  np.testing.assert_array_equal(curves["loss"], [[0.5, 1.0], [9.0, math.nan]])
  assert logs.curves([]) == {}


def test_curves_of_a_long_run_need_little_more_memory_than_their_values(tmp_path):
  """Reports are written repeatedly during training, and Python's allocator would keep the memory of all records."""
  names = [f"test/{number}" for number in range(6)]
  with (tmp_path / "metrics.jsonl").open("w") as file:
    for step in range(5_000):
      file.write(json.dumps({"step": step, "epoch": step / 7, **dict.fromkeys(names, step / 3)}) + "\n")
  tracemalloc.start()
  curves = logs.curves(logs.stream(tmp_path))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(curves["epoch"][0]) == 5_000
  assert peak < 1.5 * (16 * 8 * 5_000) + 2**18  # arrays grow by an eighth; records as dicts need five times as much


def test_nonfinite_values_are_null_in_the_file_and_nan_when_read(tmp_path):
  with logs.Log(tmp_path, step=0) as log:
    log.write({"step": 1, "epoch": 0.5, "test/psnr": math.inf, "train/loss": math.nan})
  stored = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
  assert stored == {"step": 1, "epoch": 0.5, "test/psnr": None, "train/loss": None}
  (record,) = logs.read(tmp_path)
  assert math.isnan(record["test/psnr"])
  assert math.isnan(record["train/loss"])


def test_settle_flushes_the_records_to_the_disk(tmp_path, monkeypatch):
  synced = []
  monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, os.fstat(file).st_size)))
  with logs.Log(tmp_path, step=0) as log:
    log.write({"step": 1, "epoch": 0.5})
    assert synced == []
    log.settle()
    stat = (tmp_path / "metrics.jsonl").stat()
    assert synced == [(stat.st_ino, stat.st_size)]
    assert stat.st_size > 0


class Full:
  """A file on a full disk."""

  def write(self, text):
    raise OSError(28, "No space left on device")

  def close(self):
    raise OSError(28, "No space left on device")


def test_full_disk_raises_a_user_error(tmp_path):
  with logs.Log(tmp_path, step=0) as log:
    log._file.close()
    log._file = Full()
    with pytest.raises(
      errors.UserError,
      match=r"metrics.jsonl or events.*: cannot be written: No space left on device; .* resumes the run",
    ):
      log.write({"step": 2, "epoch": 2.0})

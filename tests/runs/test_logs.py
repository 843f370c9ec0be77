import io
import itertools
import json
import math
import os
import re
import sys
import tracemalloc
import types

import jax
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.runs import logs


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


class Terminal(io.StringIO):
  """A screen."""

  def isatty(self):
    return True


def evaluation(epoch, **others):
  values = {"train/loss": 73.124, "test/loss": 74.5, "test/nats": 74.5, "test/squared_error": 7.9312}
  return {"epoch": epoch, **values, "test/pca_squared_error": 13.91, "images_per_second": 18300.4} | others


@pytest.fixture
def shown(monkeypatch):
  """Trains some of four epochs of 100 images before a screen, or none: a function that returns what it saw."""

  def show(screen, every, records=lambda epoch: [evaluation(epoch)], epochs=4, **options):
    clock = itertools.count(10.0, 0.5)
    monkeypatch.setattr(logs, "_INTERVALS", dict.fromkeys((False, True), every))
    monkeypatch.setattr(logs, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(sys, "stdout", screen)
    with logs.Display(100, 4, **options) as display:
      for epoch in range(1, epochs + 1):
        for loss in (80.0, 73.6):
          display.advance(50, 0.0025, loss)
        display.evaluated(*records(float(epoch)))
    return screen.getvalue()

  return show


LINE = "epoch {} of 4  loss 73.12  test loss 74.5  test error 7.931 (PCA 13.91)"


def test_where_there_is_no_terminal_there_are_lines_now_and_then_and_a_last_one(shown, capfd):
  last = LINE.format(4) + "  18,300 images/s"
  assert shown(io.StringIO(), 1e9).splitlines() == [last]
  *others, end = shown(io.StringIO(), 0.0).splitlines()
  assert [line.rpartition("  ")[0] for line in others] == [LINE.format(n) + "  18,300 images/s" for n in (1, 2, 3)]
  assert end == last
  assert shown(io.StringIO(), 1e9, epochs=3) == ""
  assert capfd.readouterr() == ("", "")


def test_the_time_left_is_that_of_the_images_since_the_compiling(shown):
  """Half a second an evaluation; the first 50 images do not count: 300 x 0.5 / 50, 200 x 1 / 150, 100 x 1.5 / 250."""
  *lines, _ = shown(io.StringIO(), 0.0).splitlines()
  assert [re.search(r"  00:(\d\d) left", line).group(1) for line in lines] == ["03", "01", "00"]


def test_a_terminal_shows_a_line_that_moves_and_each_evaluation_above_it(shown):
  seen = shown(Terminal(), 1e9)
  for number in (1, 2, 3, 4):
    assert re.search(rf"\r{re.escape(LINE.format(number))}\n", seen)
  moving = [line for line in re.split(r"[\r\n]", seen) if "|" in line]
  assert "compiling" in moving[0]
  assert re.fullmatch(r"epoch 4  loss 73.6  100% \|[█#]+\|, 20,000 images/s, 00:00 left", moving[-1].strip())


def test_the_rate_is_that_of_this_process_alone(shown):
  """Two of four epochs are done: 50 images in 0.0025 s are 20,000 images/s, whatever came before."""
  moving = [line for line in re.split(r"[\r\n]", shown(Terminal(), 1e9, epochs=2, done=2.0)) if "images/s, " in line]
  assert moving
  assert all("|, 20,000 images/s, " in line for line in moving)


def test_many_that_are_trained_together_say_little(shown):
  several = lambda epoch: [evaluation(epoch), evaluation(epoch, **{"test/squared_error": 24.5})]
  for screen in (io.StringIO, Terminal):
    assert "members" not in shown(screen(), 1e9, several, sparse=True)
  assert "epoch 2 of 4  2 members  test error 7.931 to 24.5  " in shown(io.StringIO(), 0.0, several, sparse=True)


def test_who_is_not_to_speak_is_silent(shown):
  for screen in (io.StringIO(), Terminal()):
    assert shown(screen, 0.0, shown=False) == ""


def test_nats_are_told_where_they_are_not_the_loss(shown):
  other = lambda epoch: [evaluation(epoch, **{"test/nats": 70.12})]
  assert "nats" not in shown(io.StringIO(), 0.0)
  assert "(PCA 13.91)  nats 70.12" in shown(io.StringIO(), 0.0, other)
  gaussian = {name: value for name, value in evaluation(4.0).items() if name not in ("test/nats", "train/loss")}
  assert shown(io.StringIO(), 0.0, lambda _: [gaussian]).startswith("epoch 4 of 4  test loss 74.5  test error")


def test_words_go_out_and_complaints_elsewhere(capfd):
  logs.say("done")
  logs.complain("a server\nis gone")
  assert capfd.readouterr() == ("done\n", "ae_jax: a server is gone\n")


def test_a_line_that_is_no_record_is_left_out_alone(tmp_path):
  torn = [b'{"step": 3, "epoch": 1', b"\xff\xfe", b"12", b"", b'{"epoch": 3}', b'{"step": 3}']
  strange = [b'{"step": "3", "epoch": 1}', b'{"step": 3, "epoch": "1"}', b'{"step": 3, "epoch": [1]}']
  for other in (*torn, *strange, b'{"step": 3, "epoch": 1' + 400 * b"0" + b"}", b"[" * 10**5):
    lines = [b'{"step": 1, "epoch": 0.5}', other, b'{"step": 4, "epoch": 2.0}', other]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert logs.read(tmp_path) == [{"step": 1, "epoch": 0.5}, {"step": 4, "epoch": 2.0}]


def test_curves_are_the_points_of_each_metric_in_order():
  records = [{"step": 1, "epoch": 0.5, "loss": 9}, {"step": 2, "epoch": 1.0, "loss": math.nan, "error": 4.0}]
  found = logs.curves(records)
  assert {name: [each.tolist() for each in found[name]] for name in ("step", "error")} == {
    "step": [[0.5, 1.0], [1.0, 2.0]],
    "error": [[1.0], [4.0]],
  }
  np.testing.assert_array_equal(found["loss"], [[0.5, 1.0], [9.0, math.nan]])
  assert logs.curves([]) == {}


def test_curves_of_a_long_run_take_no_more_memory_than_their_numbers(tmp_path):
  """A page in training is made of them again and again, and what its records took once Python's allocator keeps."""
  names = [f"test/{number}" for number in range(6)]
  with (tmp_path / "metrics.jsonl").open("w") as file:
    for step in range(5_000):
      file.write(json.dumps({"step": step, "epoch": step / 7, **dict.fromkeys(names, step / 3)}) + "\n")
  tracemalloc.start()
  found = logs.curves(logs.stream(tmp_path))
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(found["epoch"][0]) == 5_000
  assert most < 1.5 * (16 * 8 * 5_000) + 2**18  # arrays grow in eighths; a record as a dict is five times as much


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
  with logs.Log(tmp_path, step=0) as log:
    log.write({"step": 1, "epoch": 0.5, "test/psnr": math.inf, "train/loss": math.nan})
  stored = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
  assert stored == {"step": 1, "epoch": 0.5, "test/psnr": None, "train/loss": None}
  (record,) = logs.read(tmp_path)
  assert math.isnan(record["test/psnr"])
  assert math.isnan(record["train/loss"])


def test_settled_records_are_written_through_to_the_disk(tmp_path, monkeypatch):
  synced = []
  monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, os.fstat(file).st_size)))
  with logs.Log(tmp_path, step=0) as log:
    log.write({"step": 1, "epoch": 0.5})
    assert synced == []
    log.settle()
    found = (tmp_path / "metrics.jsonl").stat()
    assert synced == [(found.st_ino, found.st_size)]
    assert found.st_size > 0


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

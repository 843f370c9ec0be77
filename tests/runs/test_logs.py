"""metrics.jsonl, the progress display, and profiles."""

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


class Terminal(io.StringIO):
  """A stream that is a terminal."""

  def isatty(self):
    return True


def evaluation(epoch, **changes):
  values = {"train/loss": 73.124, "test/loss": 74.5, "test/nats": 74.5, "test/squared_error": 7.9312}
  return {"epoch": epoch, **values, "test/pca_squared_error": 13.91, "images_per_second": 18300.4} | changes


@pytest.fixture
def output(monkeypatch):
  """A function that shows up to four epochs of 100 images on a stream and returns the text."""

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


def test_without_a_terminal_lines_are_printed_at_intervals_and_at_the_end(output, capfd):
  last = LINE.format(4) + "  18,300 examples/s"
  assert output(io.StringIO(), 1e9).splitlines() == [last]
  *lines, end = output(io.StringIO(), 0.0).splitlines()
  assert [line.rpartition("  ")[0] for line in lines] == [LINE.format(n) + "  18,300 examples/s" for n in (1, 2, 3)]
  assert end == last
  assert output(io.StringIO(), 1e9, epochs=3) == ""
  assert capfd.readouterr() == ("", "")


def test_remaining_time_excludes_the_compilation(output):
  """An evaluation takes 0.5 s; the first 50 images are excluded: 300 x 0.5 / 50, 200 x 1 / 150, 100 x 1.5 / 250."""
  *lines, _ = output(io.StringIO(), 0.0).splitlines()
  assert [re.search(r"  00:(\d\d) left", line).group(1) for line in lines] == ["03", "01", "00"]


def test_terminal_shows_a_progress_bar_and_a_line_per_evaluation(output):
  text = output(Terminal(), 1e9)
  for number in (1, 2, 3, 4):
    assert re.search(rf"\r{re.escape(LINE.format(number))}\n", text)
  bars = [line for line in re.split(r"[\r\n]", text) if "|" in line]
  assert "compiling" in bars[0]
  assert re.fullmatch(r"epoch 4  loss 73.6  100% \|[█#]+\|, 20,000 examples/s, 00:00 left", bars[-1].strip())


def test_rate_excludes_epochs_of_earlier_processes(output):
  """Two of four epochs are done before; 50 images in 0.0025 s are 20,000 examples/s."""
  bars = [line for line in re.split(r"[\r\n]", output(Terminal(), 1e9, epochs=2, done=2.0)) if "examples/s, " in line]
  assert bars
  assert all("|, 20,000 examples/s, " in line for line in bars)


def test_sparse_display_prints_few_lines(output):
  members = lambda epoch: [evaluation(epoch), evaluation(epoch, **{"test/squared_error": 24.5})]
  for screen in (io.StringIO, Terminal):
    assert "members" not in output(screen(), 1e9, members, sparse=True)
  assert "epoch 2 of 4  2 members  test error 7.931 to 24.5  " in output(io.StringIO(), 0.0, members, sparse=True)


def test_hidden_display_prints_nothing(output):
  for screen in (io.StringIO(), Terminal()):
    assert output(screen, 0.0, shown=False) == ""


def test_nats_are_shown_if_they_differ_from_the_loss(output):
  with_nats = lambda epoch: [evaluation(epoch, **{"test/nats": 70.12})]
  assert "nats" not in output(io.StringIO(), 0.0)
  assert "(PCA 13.91)  nats 70.12" in output(io.StringIO(), 0.0, with_nats)
  gaussian = {name: value for name, value in evaluation(4.0).items() if name not in ("test/nats", "train/loss")}
  assert output(io.StringIO(), 0.0, lambda _: [gaussian]).startswith("epoch 4 of 4  test loss 74.5  test error")


def test_say_prints_to_stdout_and_complain_to_stderr(capfd):
  logs.print_line("done")
  logs.warn("a server\nis gone")
  assert capfd.readouterr() == ("done\n", "ae_jax: a server is gone\n")


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
      match=r"metrics.jsonl or events.*: cannot be written: No space left on device; .* continues the run",
    ):
      log.write({"step": 2, "epoch": 2.0})

"""The progress display, on a terminal and without one."""

import io
import itertools
import re
import sys
import types

import pytest
import tqdm

from ae_jax.runs import progress


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
    monkeypatch.setattr(progress, "_INTERVALS", dict.fromkeys((False, True), every))
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(sys, "stdout", screen)
    with progress.Display(100, 4, **options) as display:
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
  assert [re.sub(r"  \S+ left$", "", line) for line in lines] == [
    LINE.format(n) + "  18,300 examples/s" for n in (1, 2, 3)
  ]
  assert end == last
  assert output(io.StringIO(), 1e9, epochs=3) == ""
  assert capfd.readouterr() == ("", "")


def test_remaining_time_excludes_the_compilation_and_the_first_evaluation(output, monkeypatch):
  """The first evaluation takes 90 s, later epochs take 8 s; the first line has no estimate."""
  assert "left" not in output(io.StringIO(), 0.0).splitlines()[0]
  clock = iter([10.0, 100.0, 108.0, 116.0, 124.0])
  monkeypatch.setattr(itertools, "count", lambda *_: clock)
  *lines, _ = output(io.StringIO(), 0.0).splitlines()
  assert [re.findall(r"  (\d\d:\d\d) left", line) for line in lines] == [[], ["00:16"], ["00:08"]]


@pytest.mark.parametrize(("seconds", "parts"), [(0.9, 0), (1.5, 1), (60.0, 1)])
def test_a_long_training_says_once_when_it_ends(monkeypatch, seconds, parts):
  """After 2 chunks of 50 images, 198 chunks are left."""
  screen = io.StringIO()
  monkeypatch.setattr(sys, "stdout", screen)
  monkeypatch.setattr(progress, "_FORESEEN_FROM", 200.0)
  with progress.Display(100, 100) as display:
    for _ in range(4):
      display.advance(50, seconds, 80.0)
  lines = screen.getvalue().splitlines()
  assert len(lines) == parts
  if parts:
    left = {1.5: "04:57", 60.0: "3:19:00"}[seconds]
    assert re.fullmatch(rf"about {left} of training left, without evaluations; it ends at about \d\d:\d\d", lines[0])


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


def test_a_notebook_has_its_own_bar_and_a_line_per_evaluation(output, monkeypatch):
  bars = []

  class NotebookBar(tqdm.tqdm):
    def display(self, *_, **__):
      bars.append(str(self))

  assert output(io.StringIO(), 1e9).splitlines() == [LINE.format(4) + "  18,300 examples/s"]
  monkeypatch.setattr(progress, "_notebook_bar", lambda: NotebookBar)
  lines = [line for line in output(io.StringIO(), 1e9).splitlines() if line.strip()]  # the others clear the bar
  assert lines == [LINE.format(number) for number in (1, 2, 3, 4)]
  assert "compiling" in bars[0]
  assert bars[-1].startswith("epoch 4  loss 73.6  100% ")


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


def test_lines_go_to_stdout_and_warnings_to_stderr(capfd):
  progress.print_line("done")
  progress.warn("a server\nis gone")
  assert capfd.readouterr() == ("done\n", "ae_jax: a server is gone\n")

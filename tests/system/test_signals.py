"""The first signal is acknowledged immediately, even while the main thread is busy; a second one ends the process."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, tiny_flags

SOON = 1.0 if os.environ.get("CI") else 3.0  # seconds; test processes share their cores
BEGIN = "import hashlib, os, signal, time\nfrom ae_jax.system import signals\nsignals.watch()\n"
# C code that runs for minutes without the GIL and is not interrupted by signals, like a compilation
BUSY = "print('busy', flush=True); hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)\n"


def start(script):
  command = [sys.executable, "-c", BEGIN + script]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process, number):
  """Sends a signal; returns the line printed for it, and the seconds until then."""
  begun = time.monotonic()
  process.send_signal(number)
  return process.stdout.readline(), time.monotonic() - begun


def ended(process, number):
  """Ends a process by a signal; returns its line, the seconds until it, the exit status and stderr."""
  response = answer(process, number)
  rest, complaints = process.communicate(timeout=60)
  assert rest == ""
  return *response, process.returncode, complaints


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_ends_the_process_without_a_promise(number):
  with start(BUSY) as process:
    assert process.stdout.readline() == "busy\n"
    line, seconds, status, complaints = ended(process, number)
  assert line == f"{number.name}: stopped at once; saved files are kept\n"
  assert (status, complaints) == (128 + number, "")
  assert seconds < SOON


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_first_signal_is_acknowledged_and_second_ends_the_process(first, second):
  with start(f"with signals.catching('saving the run') as received:\n  {BUSY}") as process:
    assert process.stdout.readline() == "busy\n"
    line, seconds = answer(process, first)
    assert line == f"{first.name}: saving the run; press Ctrl-C again to stop at once\n"
    assert seconds < SOON
    time.sleep(0.3)
    line, seconds, status, complaints = ended(process, second)
  assert line == f"{second.name}: stopped at once; saved files are kept\n"
  assert (status, complaints) == (128 + second, "")
  assert seconds < SOON


def output_lines(script):
  """Returns the lines that a script prints until it ends."""
  with start(script) as process:
    output, complaints = process.communicate(timeout=60)
  assert (process.returncode, complaints) == (0, "")
  return output.splitlines()


TWICE = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.3)"


def test_two_signals_at_the_same_time_count_as_one():
  assert output_lines(f"with signals.catching('saving') as received:\n  {TWICE}\nprint(received())") == [
    "SIGTERM: saving; press Ctrl-C again to stop at once",
    "SIGTERM",
  ]


def test_promise_can_be_changed_and_a_new_one_resets_the_signal():
  lines = output_lines(f"""
for words in ("saving", "again"):
  with signals.catching("training") as received:
    signals.promise(words)
    print(received() == "")
    {TWICE}
signals.promise("too late")
print(signals._state.promise == "")
""")
  words = [f"SIGTERM: {words}; press Ctrl-C again to stop at once" for words in ("saving", "again")]
  assert lines == ["True", words[0], "True", words[1], "True"]


def test_forked_process_uses_default_signal_handlers():
  lines = output_lines("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and later, for a fork beside threads
reading, writing = os.pipe()
with signals.catching("saving") as received:
  child = os.fork()
  if not child:
    os.write(writing, b"here")
    time.sleep(20)
    os._exit(0)
  os.read(reading, 4)
  os.kill(child, signal.SIGTERM)
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), received() == "")
""")
  assert lines == ["-15 True"]


@pytest.mark.parametrize("module", ["absl", "jax._src"])
def test_signal_during_import_ends_the_command_with_one_line(tmp_path, module):
  command = [sys.executable, "-X", "importtime", "-m", "ae_jax.main", *tiny_flags(), f"--workdir={tmp_path / 'run'}"]
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **options) as process:
    for line in process.stderr:
      if f" {module}." in line:
        break
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=60)
  assert output == "SIGINT: stopped at once; saved files are kept\n"
  assert process.returncode == 130
  assert [line for line in complaints.splitlines() if not line.startswith("import time:")] == []
  assert not (tmp_path / "run").exists()

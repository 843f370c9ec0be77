"""What the commands share, seen from outside: flags, a line for a mistake, silence."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, run_main, tiny_flags

from ae_jax import cli

pytestmark = pytest.mark.quick_compile

COMMAND = '''"""Says what it was given."""

import asyncio
import os
import sys
from absl import flags
from ae_jax import cli

flags.adopt_module_key_flags(cli)
TIMES = flags.DEFINE_integer("times", 1, "How often.")


class Late:
  """Ends as what waits for an event loop that is gone, or in another way."""

  def __init__(self, words="Event loop is closed"):
    self.words = words

  def __del__(self):
    raise RuntimeError(self.words)


def main(given):
  print(*[given] * TIMES.value)
  if str(given) == "late":
    Late()
    Late("another")
    asyncio.sleep(1)
  if str(given) == "wrong":
    cli.fail("wrong it is", cli.WRONG_INPUT)


try:
  cli.{run}
finally:
  if "jax" in sys.modules:
    os._exit(99)  # it has made the user wait
'''
RUNS = {"folder": "run_on_folder(main)", "arguments": "run_on_arguments(main, 'runs/a runs/b')"}


@pytest.fixture
def command(tmp_path):
  """A command of a kind, as a process: a function (kind, flags) -> (exit status, output, complaints)."""

  def call(kind, *flags, **environment):
    file = tmp_path / "command.py"
    file.write_text(COMMAND.replace("{run}", RUNS[kind]))
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')", *flags]
    options = {"encoding": "utf-8", "errors": "surrogateescape", "env": os.environ | environment}
    done = subprocess.run(command, cwd=ROOT, **options, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr

  return call


@pytest.mark.parametrize(
  ("kind", "flags", "output"),
  [
    ("folder", ["--workdir=runs/a"], "runs/a\n"),
    ("folder", ["--times=2", "--workdir=runs/a"], "runs/a runs/a\n"),
    ("folder", ["--quiet", "--workdir=runs/a"], ""),
    ("arguments", ["runs/a", "runs/b"], "['runs/a', 'runs/b']\n"),
    ("arguments", ["runs/a", "--times=2"], "['runs/a'] ['runs/a']\n"),  # a flag behind an argument is one
    ("arguments", ["runs/a", "--quiet", "runs/b"], ""),
  ],
)
def test_a_command_without_a_config_is_given_what_it_takes(command, kind, flags, output):
  assert command(kind, *flags) == (0, output, "")


@pytest.mark.parametrize(
  ("kind", "flags", "status", "message"),
  [
    ("folder", [], 2, "--workdir is missing"),
    ("folder", ["runs/a"], 2, "unexpected argument 'runs/a'; write the run folder as --workdir=FOLDER"),
    ("folder", ["--config=configs/cnn.py", "--workdir=runs/a"], 2, "Unknown command line flag 'config'"),
    ("folder", ["--times=x", "--workdir=runs/a"], 2, "--times=x"),
    ("folder", ["--quiet", "--workdir=wrong"], 1, "wrong it is"),
    ("arguments", [], 2, "arguments are missing; for example runs/a runs/b"),
    ("arguments", ["--workdir=runs/a", "runs/b"], 2, "Unknown command line flag 'workdir'"),
  ],
)
def test_a_mistake_is_a_line_and_a_status(command, kind, flags, status, message):
  ended, output, complaints = command(kind, *flags)
  assert (ended, output) == (status, "")
  assert complaints.startswith("ae_jax: ")
  assert message in complaints
  assert len(complaints.splitlines()) == 1


@pytest.mark.parametrize("kind", RUNS)
def test_help_tells_the_flags_that_the_command_has(command, kind):
  status, output, complaints = command(kind, "--help")
  assert (status, complaints) == (0, "")
  assert "Says what it was given" in output
  assert all(flag in output for flag in ("--times", "quiet"))
  assert "--config" not in output
  assert ("--workdir" in output) == (kind == "folder")
  assert "default: runs/" not in output  # only commands that train have a default folder


def test_a_quiet_run_says_nothing_and_does_the_same(tmp_path):
  assert run_main(*tiny_flags(), "--quiet", f"--workdir={tmp_path / 'run'}") == (0, "", "")
  assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_a_failed_save_leaves_behind_is_not_told_but_anything_else_is(command):
  status, _, complaints = command("folder", "--workdir=late")
  assert status == 0
  assert "another" in complaints
  assert not any(word in complaints for word in ("loop", "awaited"))


def test_a_stream_that_cannot_encode_a_name_shows_an_escape(command):
  status, output, complaints = command("arguments", "größe", "대구", PYTHONIOENCODING="cp1252")
  assert (status, complaints) == (0, "")
  assert output.encode("cp1252", "surrogateescape") == b"['gr\xf6\xdfe', '\\ub300\\uad6c']\n"


def test_a_folder_of_a_config_may_have_a_colon_as_in_windows(tmp_path):
  folder = tmp_path / "C:"
  folder.mkdir()
  shutil.copy(ROOT / "configs" / "dense.py", folder)
  arguments = (f"--config={folder}/dense.py:digits", "--config.model.latent=0", f"--workdir={tmp_path / 'run'}")
  assert "config.model.latent=0: must be" in run_main(*arguments)[2]


@pytest.mark.parametrize(
  ("code", "message"),
  [
    ("pass", "get_config returned an object of type NoneType; return a ConfigDict"),
    ("raise ValueError('wrong')", "flag --config=FILE: wrong"),
    ("open('missing.csv', 'rb')", "--config: [Errno 2] No such file or directory: 'missing.csv'"),
  ],
)
def test_a_fault_of_a_config_file_is_a_line(tmp_path, code, message):
  file = tmp_path / "own.py"
  file.write_text(f"def get_config():\n  {code}\n")
  status, output, complaints = run_main(f"--config={file}")
  assert (status, output) == (1, "")
  assert message.replace("FILE", str(file)) in complaints
  assert len(complaints.splitlines()) == 1


@pytest.mark.parametrize("text", ["1000", "1e3", "1000.0", "1_000", "+1E3"])
def test_a_whole_number_may_be_written_as_a_real_one(text):
  found = cli._WholeNumber().parse(text)
  assert (found, type(found)) == (1000, int)


@pytest.mark.parametrize("text", ["1.5", "1e-3", "inf", "nan", "1e999", "many", ""])
def test_what_is_no_whole_number_is_none(text):
  with pytest.raises(ValueError, match="must be a whole number, such as 1000 or 1e3"):
    cli._WholeNumber().parse(text)

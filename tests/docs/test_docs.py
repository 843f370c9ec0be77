"""The documentation: it builds without warnings, and its code blocks run."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS) for page in DOCS.rglob("*.md") if "_build" not in page.parts)
BLOCK = re.compile(
  r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)  # `{code-block}` directives do not run
WITH_CODE = [page for page in PAGES if BLOCK.search((DOCS / page).read_text())]
# Flags that shorten the training commands of a page, unless the command sets them: full trainings take minutes.
SHORT = {"--config.epochs": "1", "--config.evaluators": "()"}


def script_of(page):
  """Returns the code blocks of a page as one Python script; console commands run as subprocesses."""
  lines = ["import subprocess, sys"]
  for language, text in BLOCK.findall((DOCS / page).read_text()):
    if language == "python":
      lines.append(text)
    else:
      lines += [f"subprocess.run({command_of(line)!r}, check=True)" for line in text.splitlines()]
  return "\n".join(lines).replace(repr(sys.executable), "sys.executable")


def command_of(line):
  """Returns the arguments of a console line `$ ae_jax ...`; training is shortened by SHORT."""
  assert line.startswith("$ ae_jax "), line
  arguments = shlex.split(line)[2:]
  if arguments[0] in ("train", "sweep") and "--help" not in arguments:
    given = {argument.partition("=")[0] for argument in arguments}
    arguments += [f"{flag}={value}" for flag, value in SHORT.items() if flag not in given]
  return [sys.executable, "-m", "ae_jax", *arguments]


@pytest.mark.parametrize("page", WITH_CODE, ids=str)
def test_the_code_of_a_page_runs(page, tmp_path):
  (tmp_path / "page.py").write_text(script_of(page))
  environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
  done = subprocess.run(
    [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_site_builds_without_warnings(tmp_path):
  pytest.importorskip("sphinx")
  command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
  assert done.returncode == 0, done.stderr[-4000:]
  built = {page.relative_to(tmp_path).with_suffix(".md") for page in pathlib.Path(tmp_path).rglob("*.html")}
  assert {*PAGES} <= built

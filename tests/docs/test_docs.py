"""The documentation: it builds without warnings, and its code blocks run."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
from unittest import mock

import command_server
import jax
import pytest
from conftest import ROOT

from ae_jax import models

DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS) for page in DOCS.rglob("*.md") if "_build" not in page.parts)
BLOCK = re.compile(
  r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)  # `{code-block}` directives do not run
WITH_CODE = [page for page in PAGES if BLOCK.search((DOCS / page).read_text())]
# Flags that shorten the training commands of a page, unless the command sets them: full trainings take minutes.
SHORT = {"--config.epochs": "1", "--config.evaluators": "()"}


def command_of(line):
  """Returns the arguments of a console line `$ ae_jax ...`; training is shortened by SHORT."""
  assert line.startswith("$ ae_jax "), line
  arguments = shlex.split(line)[2:]
  if arguments[0] in ("train", "sweep") and "--help" not in arguments:
    given = {argument.partition("=")[0] for argument in arguments}
    arguments += [f"{flag}={value}" for flag, value in SHORT.items() if flag not in given]
  return arguments


@pytest.mark.quick_compile
@pytest.mark.runs_optax
@pytest.mark.parametrize("page", WITH_CODE, ids=str)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
  """Python blocks share a module, as in a notebook; console blocks run the command."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, "page", types.ModuleType("page"))
  with mock.patch.dict(models.FAMILIES), jax.numpy_rank_promotion("allow"):
    for language, text in BLOCK.findall((DOCS / page).read_text()):
      if language == "python":
        exec(compile(text, str(page), "exec"), vars(sys.modules["page"]))
        continue
      for line in text.splitlines():
        status, output, complaints = command_server.run("ae_jax", command_of(line), tmp_path, {**os.environ}, 600)
        assert status == 0, output[-2000:] + complaints[-2000:]


def test_the_site_builds_without_warnings(tmp_path):
  pytest.importorskip("sphinx")
  command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
  assert done.returncode == 0, done.stderr[-4000:]
  built = {page.relative_to(tmp_path).with_suffix(".md") for page in pathlib.Path(tmp_path).rglob("*.html")}
  assert {*PAGES} <= built

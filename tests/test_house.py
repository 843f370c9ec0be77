"""The rules of the house that a search can check."""

import ast
import json
import re
import subprocess
import sys

import pytest
from conftest import CONFIGS, ROOT, config_of
from ml_collections import ConfigDict

from ae_jax.config import base

OPS = [f"ops/{file.name}" for file in (ROOT / "ae_jax" / "ops").glob("[!_]*.py")]
SOURCES = sorted((ROOT / "ae_jax").rglob("*.py"))


def test_no_key_of_a_config_is_read_with_a_default():
  for file in SOURCES:
    assert not re.search(r"(?<!ae_jax\.)(?<!named_)config[\w.]*\.get\(", file.read_text()), file


def test_every_key_of_the_config_is_read_somewhere():
  code = "\n".join(file.read_text() for file in SOURCES if file.parent.name != "config")
  for name, value in base("").items():
    keys = [name, *value] if isinstance(value, ConfigDict) else [name]
    assert all(re.search(rf"\b{key}\b", code) for key in keys), name


def test_every_config_says_what_it_is_and_only_adds_a_model():
  for file in CONFIGS:
    assert file.read_text().startswith('"""')
    assert set(config_of(file.stem, "digits")) == {*base("digits"), "model"}


def test_each_io_library_is_imported_in_one_file():
  libraries = ("orbax", "tensorflow_datasets", "tensorboardX", "mlxtend", "matplotlib", "grain", "PIL")
  for library in (*libraries, "bokeh", "jinja2", "mlflow", "wandb"):
    importers = [
      file for file in SOURCES if re.search(rf"^\s*(import|from) {library}\b", file.read_text(), re.MULTILINE)
    ]
    assert len(importers) == 1, (library, importers)


def test_corruptions_ops_and_system_depend_on_no_other_package():
  system = [f"system/{file.name}" for file in (ROOT / "ae_jax" / "system").glob("*.py")]
  for name in ("objectives/corruptions.py", *system, *OPS):
    code = re.sub(r'""".*?"""|#.*', "", (ROOT / "ae_jax" / name).read_text(), flags=re.DOTALL)
    imported = set(re.findall(r"^\s*(?:from|import) (ae_jax[.\w]*(?: import errors)?)", code, re.MULTILINE))
    assert {each.partition(".")[2].partition(".")[0] for each in imported} <= {"", "ops", "system", "types"}, name


def test_nothing_that_is_read_is_run():
  calls, libraries = r"(?<![\w.])(eval|exec|compile|__import__)\(", r"import (\w*pickle|marshal|shelve|dill|joblib)"
  for file in SOURCES:
    found = re.search(rf"{calls}|{libraries}|pickle=True", file.read_text())
    assert not found, (file, found)


def test_claims_about_speed_name_the_processor():
  folder = ROOT / "experiments" / "throughput"
  files = folder.glob("results*.json")
  runs = [run for file in files for run in json.loads(file.read_text())["runs"].values()]
  for text in ((ROOT / "README.md").read_text(), (folder / "README.md").read_text()):
    assert all(f"{run['processor']} with {run['vectors']}" in text for run in runs)


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(command):
  done = subprocess.run(
    [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout


def public_functions(tree):
  """Yields the public functions of a module and the public methods of its public classes."""
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from public_functions(node)
    elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
      yield node


def test_public_functions_are_annotated():
  for file in SOURCES:
    for function in public_functions(ast.parse(file.read_text())):
      arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
      bare = [each.arg for each in arguments if each.annotation is None and each.arg not in ("self", "cls")]
      assert function.returns is not None, (file, function.name)
      assert not bare, (file, function.name, bare)


def test_mypy_finds_nothing(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout


def opens_text_without_encoding(call):
  """Returns whether a call reads or writes a text file in the encoding of the system, which is cp1252 on Windows."""
  name = getattr(call.func, "attr", getattr(call.func, "id", ""))
  given = {keyword.arg for keyword in call.keywords}
  if name in ("read_text", "write_text"):
    return "encoding" not in given and ast.unparse(call.func) != "atomic.write_text"
  if name in ("run", "Popen", "check_output"):
    return "text" in given and "encoding" not in given
  values = (*call.args, *(keyword.value for keyword in call.keywords))
  modes = [str(each.value) for each in values if isinstance(each, ast.Constant)]
  mode = next((each for each in modes if re.fullmatch(r"[rwax+bt]+", each)), "")
  is_path = isinstance(call.func, ast.Attribute) and not (call.args or mode) and name == "open"
  is_text = name in ("open", "fdopen") and (isinstance(call.func, ast.Name) or mode or is_path)
  return is_text and "b" not in mode and "encoding" not in given


def test_text_files_have_an_encoding():
  calls = {"open(f)": True, "open(f, 'rb')": False, "f.open()": True, "f.open('a')": True, "f.read_text()": True}
  calls |= {"Image.open(f)": False, "f.read_text(encoding='utf-8')": False, "run(c, text=True)": True}
  for text, expected in calls.items():
    assert bool(opens_text_without_encoding(ast.parse(text).body[0].value)) == expected, text
  for file in [*SOURCES, *(ROOT / "experiments").rglob("*.py")]:
    for node in ast.walk(ast.parse(file.read_bytes())):
      assert not (isinstance(node, ast.Call) and opens_text_without_encoding(node)), (file, node.lineno)


def test_no_two_test_files_have_one_name():
  names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
  assert sorted(names) == sorted(set(names))  # pytest imports them by their names


def test_ci_runs_the_readmes_commands():
  readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
  commands = re.findall(r"^(pip install .*)$", readme, re.MULTILINE)
  assert len(commands) == 2
  assert "README.md" in ci

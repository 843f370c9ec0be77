"""The `ae_jax` command of an installed package: subcommands, --help, shipped configs by name."""

import ast
import re
import sys
import tomllib

import pytest
from conftest import CONFIGS, ROOT, run_command

from ae_jax import __main__, cli
from ae_jax import config as configs
from ae_jax.config import reference, shipped


def ae_jax(*arguments):
  """Returns what `ae_jax ARGUMENTS` prints."""
  status, output, error = run_command("__main__", *arguments)
  assert (status, error) == (0, "")
  return output


def test_without_arguments_it_lists_the_commands():
  output = ae_jax()
  assert all(f"  {name}" in output for name in __main__.COMMANDS)


def test_an_unknown_command_names_the_nearest():
  status, output, error = run_command("__main__", "trian")
  assert (status, output) == (2, "")
  assert error == "ae_jax: unknown command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_each_command_explains_itself_with_three_examples(name):
  source = (ROOT / f"{__main__.COMMANDS[name][0].replace('.', '/')}.py").read_text()
  documentation = ast.get_docstring(ast.parse(source), clean=False)
  assert len(re.findall(r"^  (ae_jax|python -m ae_jax)", documentation, re.MULTILINE)) >= 3
  assert re.search(r"^def run\(", source, re.MULTILINE)


def test_configs_lists_every_shipped_config_with_a_summary():
  lines = ae_jax("configs").splitlines()
  assert [line.split()[0] for line in lines] == [file.stem for file in CONFIGS]
  assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("given", ["cnn", "cnn:mnist", "cnn:npz"])
def test_the_name_of_a_shipped_config_stands_for_its_file(given):
  name, colon, data = given.partition(":")
  assert shipped.resolve(given) == f"{ROOT / 'configs' / name}.py{colon}{data}"
  for flag in ("--config", "-config"):
    assert cli._with_shipped_config(["x", f"{flag}={given}"]) == ["x", f"--config={shipped.resolve(given)}"]
    assert cli._with_shipped_config(["x", flag, given]) == ["x", flag, shipped.resolve(given)]
  assert cli._with_shipped_config(["x", "--config"]) == ["x", "--config"]  # without a value


@pytest.mark.parametrize("given", ["configs/cnn.py", "configs/cnn.py:mnist", "mine", "--workdir=cnn"])
def test_other_arguments_stay_as_they_are(given):
  assert shipped.resolve(given) == given
  assert cli._with_shipped_config(["x", given, "--workdir=vae"]) == ["x", given, "--workdir=vae"]


def test_a_file_of_the_users_wins_over_a_shipped_config_of_the_same_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "cnn").write_text("")
  assert shipped.resolve("cnn:digits") == "cnn:digits"


def test_describe_explains_every_key_and_counts_parameters():
  status, output, error = run_command(
    "describe", "--config=dense:digits", "--config.model.widths=(16,)", "--config.optimizer.learning_rate=auto"
  )
  assert (status, error) == (0, "")
  keys = re.findall(r"^([\w.]+)  \(", output, re.MULTILINE)
  assert {*configs.flat(configs.as_json(configs.base("digits")))} <= {*keys}
  assert "parameters: 3,200\n" in output  # 64 * 16 + 16 + 16 * 32 + 32, 32 * 16 + 16 + 16 * 64 + 64
  assert "examples: 8 x 8 x 1; 1,438 for training" in output


def test_every_key_has_a_meaning():
  for file in CONFIGS:
    meanings = reference.meanings(file)
    assert all(meanings.get(key) for key in configs.flat(configs.as_json(configs.base("digits")))), file


def test_the_wheel_has_every_package_and_the_configs():
  setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
  found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "ae_jax").rglob("*.py")}
  assert {*setuptools["packages"]} == found | {"ae_jax.shipped_configs"}
  assert setuptools["package-dir"] == {"ae_jax.shipped_configs": "configs"}
  assert sys.modules["ae_jax"].__file__ == str(ROOT / "ae_jax" / "__init__.py")

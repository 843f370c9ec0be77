"""Paths from the user: `~` is expanded, and remote paths are refused with one line."""

import ntpath
import os
import pathlib
import sys

import pytest
from conftest import ROOT, run_command, tiny_flags

import ae_jax
from ae_jax import errors
from ae_jax.system import paths
from ae_jax.training import train

REMOTE = ["gs://bucket/run", "s3://bucket/run", "hdfs://host:9000/run", "file:///tmp/run", "GS://bucket/run"]


@pytest.mark.parametrize("text", ["runs/a", "/tmp/a", "a:b/c", "C:/runs/a", "", "runs/~", "runs//a"])
def test_local_path_is_unchanged(text):
  assert paths.local_path("--workdir", text) == pathlib.Path(text)
  assert paths.local_path("--workdir", pathlib.Path(text)) == pathlib.Path(text)


def test_tilde_is_expanded_to_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert paths.local_path("--workdir", "~/runs/a") == tmp_path / "runs" / "a"
  assert paths.local_path("--workdir", "~") == tmp_path


@pytest.mark.parametrize("text", [*REMOTE, *map(pathlib.Path, REMOTE), "~no_user_of_this_name/runs"])
def test_remote_paths_and_unknown_users_are_refused(text):
  with pytest.raises(errors.UserError) as refusal:
    paths.local_path("--workdir", text)
  assert str(refusal.value).startswith(f"--workdir={text}: ")


def test_long_names_are_shortened_from_the_left():
  assert paths.shortened("test/good/0013.png") == "test/good/0013.png"
  assert paths.shortened("photographs/of_2026/test/good/0013.png") == "…/of_2026/test/good/0013.png"
  assert paths.shortened("a/" + 40 * "x" + ".png") == "…" + 25 * "x" + ".png"


def test_names_commands_and_folders_on_windows(monkeypatch):
  assert paths.relative_name("/data/test/a b.png", "/data") == "test/a b.png"
  assert paths.command_line(["ae_jax", "--workdir=a b"]) == "ae_jax '--workdir=a b'"
  assert paths.file_name("voc/2007:5.0.0 (test)") == "voc_2007_5.0.0 (test)"
  monkeypatch.setattr(sys, "platform", "win32")
  monkeypatch.setattr(os, "sep", "\\")
  monkeypatch.setattr(os.path, "relpath", ntpath.relpath)
  assert paths.relative_name(r"C:\data\test\a b.png", "C:/data") == "test/a b.png"
  assert paths.command_line(["ae_jax", r"--workdir=runs\a b"]) == r'ae_jax "--workdir=runs\a b"'


def test_functions_refuse_a_remote_folder_and_create_nothing(tiny, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  message = r"^workdir=gs://bucket/run: remote paths are not supported"
  with pytest.raises(errors.UserError, match=message):
    train.train_and_evaluate(tiny, "gs://bucket/run")
  with pytest.raises(errors.UserError, match=message):
    ae_jax.load("gs://bucket/run")
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  ("command", "arguments", "message"),
  [
    ("main", [*tiny_flags(), "--workdir=gs://bucket/run"], "--workdir=gs://bucket/run: remote"),
    ("evaluate", ["--workdir=gs://bucket/run"], "--workdir=gs://bucket/run: remote"),
    ("compare", ["gs://bucket/run", "runs/a"], "folder=gs://bucket/run: remote"),
    ("compare", ["runs/a", "runs/b", "--out=gs://bucket/c.html"], "--out=gs://bucket/c.html: remote"),
  ],
  ids=["main", "evaluate", "compare", "out"],
)
def test_commands_refuse_a_remote_path_with_one_line(command, arguments, message):
  status, output, complaints = run_command(command, *arguments)
  assert (status, output, len(complaints.splitlines())) == (1, "", 1)
  assert complaints.startswith(f"ae_jax: {message}")
  assert not (ROOT / "gs:").exists()

"""Runs on the Hugging Face hub, with a local folder in place of the hub."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from conftest import with_pictures
from made_exports import made

import ae_jax
from ae_jax import errors
from ae_jax.runs import checkpoints

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 1), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hub") / "run"
  options = {"epochs": 1, "latent": 2, "model__widths": 8, "evaluators": (), "verbose": False}
  with jax.numpy_rank_promotion("allow"), with_pictures():
    return ae_jax.fit(IMAGES, model="dense", workdir=folder, **options)


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """A library like huggingface_hub whose repositories are folders; as there, empty folders are not kept."""
  repositories = {}

  class HfApi:
    def __init__(self, token=None):
      self.token = token

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
      assert exist_ok or repo_id not in repositories
      repositories.setdefault(repo_id, {"private": private, "token": self.token, "files": {}})

    def upload_folder(self, *, repo_id, folder_path, commit_message=None):
      for file in pathlib.Path(folder_path).rglob("*"):
        if file.is_file():
          repositories[repo_id]["files"][str(file.relative_to(folder_path))] = file.read_bytes()

  def snapshot_download(repo_id, *, revision=None):
    if repo_id not in repositories:
      raise FileNotFoundError(f"404: {repo_id} not found")
    snapshot = tmp_path / "cache" / repo_id / (revision or "main")
    shutil.rmtree(snapshot, ignore_errors=True)
    for number, (name, contents) in enumerate(repositories[repo_id]["files"].items()):
      blob = tmp_path / "cache" / "blobs" / str(number)
      blob.parent.mkdir(parents=True, exist_ok=True)
      blob.write_bytes(contents)
      (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
      os.symlink(blob, snapshot / name)  # as in the cache of huggingface_hub
    return str(snapshot)

  library = types.SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", library)
  return repositories


def test_a_run_returns_from_the_hub(run, hub):
  assert run.push_to_hub("user/model", token="secret") == "hf://user/model"
  assert hub["user/model"]["private"] is True
  assert hub["user/model"]["token"] == "secret"
  for address in ("hf://user/model", "hf://user/model@v1.0"):
    loaded = ae_jax.load(address)
    np.testing.assert_array_equal(loaded.encode(IMAGES), run.encode(IMAGES))
    assert loaded.metrics == run.metrics


def test_nothing_of_the_machine_is_uploaded(run, hub):
  run.push_to_hub("user/model")
  files = hub["user/model"]["files"]
  assert "command" not in json.loads(files["config.json"])
  for name, contents in files.items():
    assert str(run.workdir.parent).encode() not in contents, name


@pytest.fixture
def copied(run, tmp_path):
  """Returns the run with a copy of its folder, whose files a test may change."""
  shutil.copytree(run.workdir, tmp_path / "copied")
  return dataclasses.replace(run, workdir=tmp_path / "copied")


@pytest.mark.parametrize("path", ["/home/jane doe/secret/scans.npz", "secret/scans.npz", "~/secret/scans.npz"])
def test_the_folders_of_data_in_files_are_not_uploaded(copied, hub, path):
  file, absolute = copied.workdir / "config.json", os.path.abspath(os.path.expanduser(path))
  stored = json.loads(file.read_text())
  folder = os.path.dirname(absolute)
  stored["config"]["data"]["path"] = path
  stored["data"]["remarks"] = [f"config.data.path={path!r}: not read: y", f"{absolute} and {folder}/mask.npz"]
  stored["data"]["faults"] = [f"config.data.name='npz' ({absolute[:-4]}...): one training example"]
  stored["data"]["class_names"] = [absolute, f"{folder}/a", path, "kept/name"]
  file.write_text(json.dumps(stored))
  copied.push_to_hub("user/model")
  for name, contents in hub["user/model"]["files"].items():
    assert b"secret" not in contents, name
  uploaded = json.loads(hub["user/model"]["files"]["config.json"])
  assert uploaded["config"]["data"]["path"] == "scans.npz"
  assert uploaded["data"]["class_names"] == ["scans.npz", "a", "scans.npz", "kept/name"]
  np.testing.assert_array_equal(ae_jax.load("hf://user/model").encode(IMAGES), copied.encode(IMAGES))


def test_the_card_loads_the_checkpoint_that_its_metrics_are_of(run, hub, monkeypatch):
  steps = {"last": run.step + 7, "best": run.step}
  monkeypatch.setattr(checkpoints, "last_and_best", lambda opened: steps)
  run.push_to_hub("user/model")
  assert 'ae_jax.load("hf://user/model", which="best")' in hub["user/model"]["files"]["README.md"].decode()
  steps["best"] = 77
  with pytest.raises(errors.UserError, match=rf"from step {run.step}, .* \(last: {run.step + 7}, best: 77\); load"):
    run.push_to_hub("user/other")
  assert "user/other" not in hub


def test_a_folder_without_metrics_is_refused(copied, hub):
  (copied.workdir / "metrics.jsonl").unlink()
  with pytest.raises(errors.UserError, match=r"metrics.jsonl: is missing; restore it"):
    copied.push_to_hub("user/model")
  assert not hub


def test_the_card_has_the_data_the_metrics_the_use_and_figures_that_exist(run, hub):
  run.push_to_hub("user/model", license="mit", intended_use="Only for tests.")
  files = hub["user/model"]["files"]
  card = files["README.md"].decode()
  assert card.startswith("---\nlibrary_name: ae_jax\n")
  assert "\nlicense: mit\n---\n" in card
  data = json.loads(files["config.json"])["data"]
  assert f"{data['train']} training and {data['test']} test examples of shape 4 x 6 x 1" in card
  assert f"| squared error per test example | {run.metrics['test/squared_error']:.4g} |" in card
  assert "Only for tests." in card
  assert 'ae_jax.load("hf://user/model")' in card
  pictures = {name for name in files if name.startswith("pictures/")}
  assert "pictures/reconstructions.png" in pictures
  assert all(f"]({name})" in card for name in pictures)


def test_figures_of_private_examples_can_be_left_out(run, hub):
  run.push_to_hub("user/model", figures=False)
  assert not any(name.endswith(".png") for name in hub["user/model"]["files"])
  assert "![" not in hub["user/model"]["files"]["README.md"].decode()


def test_what_is_wrong_is_one_message(run, hub, monkeypatch):
  with pytest.raises(errors.UserError, match="hf://model: must be user/name"):
    run.push_to_hub("model")
  with pytest.raises(errors.UserError, match="hf://user/model@v1: cannot upload to a revision; pass 'user/model'"):
    run.push_to_hub("user/model@v1")
  with pytest.raises(errors.UserError, match="has no run folder"):
    made().push_to_hub("user/model")
  with pytest.raises(errors.UserError, match="hf://user/none: the download failed: 404"):
    ae_jax.load("hf://user/none")
  assert not hub
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(errors.UserError, match=r"pip install 'ae_jax\[hub\]'"):
    ae_jax.load("hf://user/model")
  with pytest.raises(errors.UserError, match=r"pip install 'ae_jax\[hub\]'"):
    run.push_to_hub("user/model")

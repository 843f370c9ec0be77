"""Run folders: loading a run, config.json, locks, and changes of the data or the config."""

import contextlib
import dataclasses
import json
import os
import pickle
import subprocess

import filelock
import jax
import numpy as np
import pytest
from conftest import ROOT, config_of, unstudied

import ae_jax
from ae_jax import api, data, errors, models
from ae_jax import config as configs
from ae_jax.runs import run_folder
from ae_jax.training import train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "cnn"
  config = unstudied(config_of("cnn", "mnist_5k"))
  config.update({"epochs": 1, "model": {"channels": (2, 3)}})
  train.train_and_evaluate(config, folder)
  return folder


@pytest.fixture(scope="module")
def test_images():
  return data.load("mnist_5k", "", "unit").test


@pytest.mark.parametrize("count", [0, 1, 3, 7, 1000])
def test_methods_do_not_depend_on_the_number_of_examples(workdir, test_images, count):
  run = ae_jax.load(workdir)
  codes = run.encode(test_images[:count])
  assert codes.shape == (count, 32)
  assert codes.dtype == np.float32
  images = run.reconstruct(test_images[:count])
  assert images.shape == (count, 28, 28, 1)
  assert images.dtype == np.float32
  np.testing.assert_allclose(images, run.decode(codes), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    run.score(test_images[:count]), np.square(images - test_images[:count] / 255).sum((1, 2, 3)), rtol=1e-4
  )
  np.testing.assert_allclose(codes, run.encode(test_images)[:count], rtol=1e-4, atol=1e-4)
  one_by_one = [run.encode(image[None])[0] for image in test_images[: min(count, 3)]]
  np.testing.assert_allclose(codes[:3], np.reshape(one_by_one, (-1, 32)), rtol=1e-4, atol=1e-4)
  assert ((images >= 0) & (images <= 1)).all()


def test_bytes_floats_and_missing_channel_axis_are_equivalent(workdir, test_images):
  run = ae_jax.load(workdir)
  expected = run.encode(test_images[:5])
  np.testing.assert_array_equal(run.encode(test_images[:5, :, :, 0]), expected)
  np.testing.assert_allclose(run.encode(test_images[:5] / 255), expected, rtol=1e-5, atol=1e-5)


def test_pickled_run_returns_the_same_codes(workdir, test_images):
  run = ae_jax.load(workdir)
  restored = pickle.loads(pickle.dumps(run))
  np.testing.assert_array_equal(restored.encode(test_images[:3]), run.encode(test_images[:3]))
  assert (restored.config, restored.config.is_locked) == (run.config, True)
  assert (restored.model, restored.step, restored.records, restored.metrics) == (
    run.model,
    run.step,
    run.records,
    run.metrics,
  )


def test_run_has_its_config_parameters_and_metrics(workdir):
  run = ae_jax.load(workdir)
  assert run.config.model.channels == (2, 3)
  assert run.metrics["epoch"] == 1
  assert run.metrics["test/squared_error"] == run.records[-1]["test/squared_error"]
  count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  assert count == json.loads((workdir / "config.json").read_text())["parameters"]


def test_run_folder_can_be_moved(workdir, tmp_path, test_images):
  subprocess.run(["cp", "-r", workdir, tmp_path / "elsewhere"], check=True)
  moved = ae_jax.load(str(tmp_path / "elsewhere"))
  np.testing.assert_array_equal(moved.encode(test_images[:3]), ae_jax.load(workdir).encode(test_images[:3]))


def test_best_checkpoint_has_the_smallest_test_error(tiny, tmp_path):
  tiny.optimizer.update({"learning_rate": 0.05, "schedule": "constant", "warmup_epochs": 0.0})
  tiny.epochs = 6
  train.train_and_evaluate(tiny, tmp_path)
  last, best = (ae_jax.load(tmp_path, which) for which in ("last", "best"))
  test_errors = [record["test/squared_error"] for record in last.records if "test/squared_error" in record]
  assert best.metrics["test/squared_error"] == min(test_errors)
  assert last.metrics["test/squared_error"] == test_errors[-1]
  digits = data.load("digits", "", "unit").test
  error = np.square(best.reconstruct(digits) - digits).sum((1, 2, 3)).mean()
  np.testing.assert_allclose(error, min(test_errors), rtol=1e-5)


def test_config_json_describes_how_to_repeat_the_run(workdir):
  description = json.loads((workdir / "config.json").read_text())
  assert description["config"]["model"]["name"] == "cnn"
  assert description["versions"]["jax"] == jax.__version__
  assert description["devices"] == ["cpu: cpu"]
  assert len(description["data"]["fingerprint"]) == 64
  head = subprocess.run(
    ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
  ).stdout.strip()
  assert (description["git_commit"] or "").rstrip("+") == head


def test_continued_run_keeps_its_description(workdir):
  before = (workdir / "config.json").read_bytes()
  run_folder.begin(workdir, json.loads(before) | {"command": "another", "git_commit": "another"})
  assert (workdir / "config.json").read_bytes() == before
  assert not (workdir / "config.json.part").exists()


def test_git_commit_marks_changed_files(tmp_path, monkeypatch):
  git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
  call = lambda *arguments: subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout
  monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "x.py"))
  assert run_folder._git_commit() is None
  call("init")
  (tmp_path / "x.py").write_text("1")
  call("add", "x.py")
  call("commit", "-m", "a", "--no-gpg-sign")
  head = call("rev-parse", "HEAD").strip()
  assert run_folder._git_commit() == head
  (tmp_path / "x.py").write_text("2")
  assert run_folder._git_commit() == head + "+"


@pytest.mark.parametrize("end", [lambda: None, lambda: 1 / 0])
def test_folder_is_locked_until_the_run_ends_or_fails(tmp_path, monkeypatch, end):
  locks, make = [], filelock.FileLock
  monkeypatch.setattr(filelock, "FileLock", lambda *a, **k: locks.append(make(*a, **k)) or locks[-1])  # keep them alive
  with contextlib.suppress(ZeroDivisionError), run_folder.locked(tmp_path / "run"):
    for _ in range(2):
      with pytest.raises(errors.UserError, match="another process"), run_folder.locked(tmp_path / "run"):
        pass
    end()
  with run_folder.locked(tmp_path / "run"):
    pass


def test_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("text")
  with pytest.raises(errors.UserError, match=r"holds 'thesis\.tex' but no run"), run_folder.locked(tmp_path):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_read_only_folder_is_refused(workdir, monkeypatch):
  monkeypatch.setattr(run_folder.os, "access", lambda path, mode: mode != os.W_OK)
  with pytest.raises(errors.UserError, match="Permission denied"):
    run_folder.begin(workdir, json.loads((workdir / "config.json").read_text()))


@pytest.mark.parametrize(
  ("method", "array", "message"),
  [
    ("encode", np.zeros((2, 27, 28, 1), np.uint8), r"\(2, 27, 28, 1\): the shape must be \[N, 28, 28, 1\]"),
    ("encode", np.zeros((28, 27), np.uint8), r"\(28, 27\): the shape must be"),
    ("encode", np.full((1, 28, 28, 1), 255.0), "outside the range"),
    ("encode", np.full((1, 28, 28, 1), np.nan), "NaN"),
    ("encode", np.zeros((1, 28, 28, 1), int), "int64"),
    ("decode", np.zeros((1, 31)), r"\(1, 31\): the shape must be \[N, 32\]"),
  ],
)
def test_arrays_of_wrong_shape_dtype_or_range_are_refused(workdir, method, array, message):
  with pytest.raises(errors.UserError, match=message):
    getattr(ae_jax.load(workdir), method)(array)


def test_load_refuses_folders_without_a_run(workdir, tmp_path):
  with pytest.raises(errors.UserError, match="there is no run here"):
    ae_jax.load(tmp_path)
  assert not list(tmp_path.iterdir())
  with pytest.raises(errors.UserError, match="which='worst': the run has no such checkpoint; use one of last, best"):
    ae_jax.load(workdir, "worst")
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.UserError, match=r"config\.json: cannot be read"):
    ae_jax.load(tmp_path)
  for foreign in ("{}", "[1]", '{"config": 3}'):
    (tmp_path / "config.json").write_text(foreign)
    with pytest.raises(errors.UserError, match=r"config\.json: was not written by ae_jax"):
      ae_jax.load(tmp_path)
    with pytest.raises(errors.UserError, match=r"config\.json: was not written by ae_jax"):
      run_folder.begin(tmp_path, {})
    assert (tmp_path / "config.json").read_text() == foreign


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"config": {"model": {"latent": 10**9}}}, "config.model"),
    ({"config": {"model": {"name": "os.system"}}}, "config.model.name='os.system' is unknown"),
    ({"config": {"model": {"widths": {"a": 1}}}}, "config.model"),
    ({"config": {"data": {"range": "[]"}}}, "config.data.range"),
    ({"config": {"compute_dtype": "float8"}}, "config.compute_dtype"),
    ({"data": {"shape": [28]}}, "these data are tables"),
    ({"data": {"shape": [28, 28, -1]}}, "was not written by ae_jax"),
  ],
)
def test_edited_config_json_is_refused_with_one_line(workdir, tmp_path, change, message):
  subprocess.run(["cp", "-r", workdir, tmp_path / "run"], check=True)
  file = tmp_path / "run" / "config.json"

  def update(old, new):
    for key, value in new.items():
      old[key] = update(old[key], value) if isinstance(value, dict) and key in old else value
    return old

  file.write_text(json.dumps(update(json.loads(file.read_text()), change)))
  with pytest.raises(errors.UserError, match=message) as failure:
    ae_jax.load(tmp_path / "run")
  assert "\n" not in str(failure.value)


def test_attention_weights_by_layer(workdir, test_images):
  assert ae_jax.load(workdir).attention(test_images[:3]) == {}
  config = config_of("attention", "digits")
  model = models.build(shape=(8, 8, 1), **config.model)
  run = api.Run(jax.jit(model.init)(jax.random.key(0)), config, {}, [], model, 0)
  maps = run.attention(np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8))
  assert set(maps) == {"encoder/blocks/attention/0", "encoder/pool"}
  for weights in maps.values():
    assert weights.shape[::3] == (3, 16)  # 4 x 4 patches of 2 x 2 pixels
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4), np.uint8)
LABELS = np.arange(40) % 4 - 1


@pytest.fixture
def begin(tmp_path):
  """A function that stores arrays and begins a run on them; it returns (run folder, config, description)."""

  def begin_run(one_class=None, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    config = config_of("dense", "npz")
    # random: the test set does not depend on the labels
    config.data.update({"path": str(tmp_path / "data.npz"), "one_class": one_class, "split": "random"})
    workdir = tmp_path / "run"
    workdir.mkdir(exist_ok=True)
    description = describe(config)
    run_folder.begin(workdir, description)
    return workdir, config, description

  return begin_run


def describe(config, **changes):
  dataset = dataclasses.replace(data.load(**config.data), **changes)
  model = models.build(shape=dataset.shape, compute_dtype="float32", **config.model)
  return run_folder.describe(config, dataset, model, [])


@pytest.mark.parametrize(
  ("changes", "different"),
  [
    ({"y_train": (LABELS + 1) % 3}, "labels"),
    ({"y_train": LABELS / 2}, "labels"),
    ({"y_train": None}, "labels"),
    ({"x_train": 255 - IMAGES}, "examples"),
    ({"x_train": IMAGES[:, :3]}, "shape, examples"),
    ({"x_train": IMAGES[:30], "y_train": LABELS[:30]}, "number of training examples, number of test examples, ex.*"),
  ],
)
def test_changed_data_are_refused_with_the_differing_parts(begin, changes, different):
  arrays = {"x_train": IMAGES, "y_train": LABELS}
  workdir, config, description = begin(**arrays)
  assert run_folder.load_data(workdir, config).fingerprints["labels_fingerprint"]
  before = (workdir / "config.json").read_text()
  np.savez(config.data.path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
  for check in (lambda: run_folder.load_data(workdir, config), lambda: run_folder.begin(workdir, describe(config))):
    with pytest.raises(errors.UserError, match=rf"not the data of the run; different: {different}\. Restore"):
      check()
  assert (workdir / "config.json").read_text() == before
  assert before == json.dumps(description, indent=2) + "\n"


def test_run_of_an_earlier_version_is_refused_with_the_flags_that_divide_its_data(begin):
  workdir, config, description = begin(x_train=IMAGES, y_train=LABELS)
  del description["data"]["split"]
  for key in ("split", "read_validation"):
    del description["config"]["data"][key]
  (workdir / "config.json").write_text(json.dumps(description))
  assert not run_folder.begin(workdir, describe(config))
  config.data.split = "auto"
  with pytest.raises(errors.UserError, match=r"different: examples, labels.* add --config\.data\.split=random"):
    run_folder.begin(workdir, describe(config))


def test_changed_factors_are_refused(begin):
  workdir, config, _ = begin(x_train=IMAGES)
  factors = {"train_factors": np.zeros((32, 2), int), "test_factors": np.zeros((8, 2), int)}
  with pytest.raises(errors.UserError, match=r"different: factors\. Restore"):
    run_folder.check_same(workdir, describe(config, **factors))


def convert_to_format_1(workdir):
  """Rewrites config.json as an earlier version would have written it.

  It has no format, only the fingerprint of the examples, -1 for all labels, and no keys that were added since.
  """
  description = json.loads((workdir / "config.json").read_text())
  del description["format"], description["data"]["labels_fingerprint"], description["data"]["factors_fingerprint"]
  del description["config"]["schedules"], description["config"]["data"]["augment"]
  if description["config"]["data"]["one_class"] is None:
    description["config"]["data"]["one_class"] = -1
  (workdir / "config.json").write_text(json.dumps(description))


@pytest.mark.parametrize("one_class", [None, 2])
def test_run_of_format_1_continues_with_its_data_and_class(begin, one_class):
  """This also holds if -1, which meant all labels, is a label of the data."""
  workdir, config, description = begin(one_class, x_train=IMAGES, y_train=LABELS)
  convert_to_format_1(workdir)
  run_folder.check_same(workdir, description)
  stored = configs.from_json(run_folder.read_description(workdir)["config"])
  assert stored.data.one_class == one_class
  assert run_folder.load_data(workdir, stored).one_class == one_class
  config.data.one_class = -1
  with pytest.raises(errors.UserError, match=rf"differs in data\.one_class \({one_class}, now -1\)"):
    run_folder.check_same(workdir, describe(config))
  np.savez(config.data.path, x_train=255 - IMAGES, y_train=LABELS)
  with pytest.raises(errors.UserError, match=r"different: examples\. Restore"):
    run_folder.load_data(workdir, stored)


def test_label_minus_one_is_stored_as_none_unless_the_data_contain_it(begin):
  for labels, stored in [(LABELS, -1), (LABELS + 1, None)]:
    workdir, config, description = begin(-1, x_train=IMAGES, y_train=labels)
    assert description["config"]["data"]["one_class"] == stored
    assert run_folder.read_description(workdir)["config"]["data"]["one_class"] == stored
    config_again = configs.from_json(run_folder.read_description(workdir)["config"])
    assert len(run_folder.load_data(workdir, config_again).train) == len(data.load(**config.data).train)
    (workdir / "config.json").unlink()


def test_a_run_continues_with_the_same_data_at_another_path(begin, tmp_path):
  workdir, config, _ = begin(x_train=IMAGES, y_train=LABELS)
  (tmp_path / "data.npz").rename(tmp_path / "moved.npz")
  old = configs.from_json(run_folder.read_description(workdir)["config"])
  with pytest.raises(errors.UserError, match="file not found"):
    run_folder.load_data(workdir, old)
  assert len(run_folder.load_data(workdir, old, str(tmp_path / "moved.npz")).train) == 32
  config.data.path = str(tmp_path / "moved.npz")
  (note,) = run_folder.begin(workdir, describe(config))
  assert "the same data are now read from" in note
  stored = run_folder.read_description(workdir)["config"]
  assert configs.differences(configs.as_json(old), stored) == []
  assert stored["data"]["path"] == config.data.path
  np.savez(config.data.path, x_train=255 - IMAGES, y_train=LABELS)
  with pytest.raises(errors.UserError, match=r"different: examples\. Restore"):
    run_folder.begin(workdir, describe(config))


@pytest.mark.parametrize("one_class", [None, "good"])
def test_class_names_and_scaling_are_stored_with_the_run(begin, one_class):
  names = np.array(["bad", "good", "odd", "rare"])[LABELS + 1]
  workdir, config, _ = begin(one_class, x_train=IMAGES.astype(int), y_train=names)
  stored = run_folder.read_description(workdir)
  assert stored["data"]["class_names"] == ["bad", "good", "odd", "rare"]
  assert (stored["data"]["scaling"]["dtype"], stored["data"]["scaling"]["divisor"]) == ("int64", 255)
  assert stored["config"]["data"]["one_class"] == (None if one_class is None else 1)
  model = models.build(shape=(4, 4, 1), compute_dtype="float32", **config.model)
  variables = jax.jit(model.init)(jax.random.key(0))
  run = api.make_run(variables, config, model, workdir, 0, data_description=stored["data"])
  assert run.class_names == ("bad", "good", "odd", "rare")
  np.testing.assert_array_equal(run.encode(IMAGES.astype(int)), run.encode(IMAGES))
  with pytest.raises(errors.UserError, match="from 0 to 256, but the values from 0 to 255 that were found"):
    run.encode(IMAGES.astype(int) * 0 + np.arange(2).repeat(8).reshape(4, 4) * 256)
  with pytest.raises(
    errors.UserError, match=r"outside the range 'unit'.*; the training examples were int64 from 0 to 255"
  ):
    run.encode(IMAGES.astype(float))

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import CONFIGS, ROOT, config_of, learned, train_until, unstudied, with_pictures
from sklearn.decomposition import PCA

import ae_jax
from ae_jax import data, errors
from ae_jax.data import batch_schedule
from ae_jax.runs import logs
from ae_jax.training import loop, train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


def params_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, ae_jax.load(a).params, ae_jax.load(b).params)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The run folder of a finished run on digits, its config and its metrics."""
  workdir = tmp_path_factory.mktemp("trained") / "run"
  config = unstudied(config_of("dense", "digits"))
  config.epochs = 3
  with with_pictures():
    return workdir, config, train.train_and_evaluate(config, workdir)


def test_recompilation_in_a_later_epoch_fails(tiny, tmp_path, monkeypatch):
  epoch = loop._train_epoch

  def retraces(*args):
    jax.jit(lambda x: x + 1)(np.zeros(3))  # a new function each time
    return epoch(*args)

  monkeypatch.setattr(loop, "_train_epoch", retraces)
  with pytest.raises(RuntimeError, match="epoch 2 compiled again"):
    train.train_and_evaluate(tiny, tmp_path / "run")


_COUNT = """
import collections, importlib, json, pathlib, sys, jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rpartition("/")[2]]))
from ae_jax.system import cache
from ae_jax.training import train
from configs import dense
cache.keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # however fast the machine is
config = dense.get_config("digits")
config.epochs, config.evaluators = 1, ()
train.train_and_evaluate(config, pathlib.Path(sys.argv[1]))
print(json.dumps(counts))
"""


def test_second_process_reads_the_compilation_cache(tmp_path):
  """It takes training chunk and evaluation from the persistent cache and adds neither."""
  environment = {**os.environ, "AE_JAX_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
  counts, kept = [], []
  for run in ("first", "second"):
    command = [sys.executable, "-c", _COUNT, str(tmp_path / run)]
    done = subprocess.run(
      command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    counts.append(json.loads(done.stdout.splitlines()[-1]))
    kept.append({file.name for file in (tmp_path / "cache" / "xla").glob("*-cache")})
  assert counts[0].get("cache_hits", 0) == 0
  assert counts[1]["cache_hits"] >= 2
  ours = [{file for file in files if file.startswith(("jit_train_chunk-", "jit_evaluate-"))} for files in kept]
  assert ours[0] == ours[1]
  assert len(ours[0]) == 2
  ours, theirs = (ae_jax.load(tmp_path / run) for run in ("first", "second"))
  jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_run_folder_has_its_files(trained):
  workdir, _, _ = trained
  for name in ("config.json", "metrics.jsonl", "checkpoints", "pictures/reconstructions.png", "pictures/curves.png"):
    assert (workdir / name).exists(), name
  assert list(workdir.glob("events.*"))
  assert not list(workdir.rglob("*.part"))


def test_metrics_are_complete_and_consistent(trained):
  workdir, config, metrics = trained
  names = "train/loss train/nats test/loss test/squared_error test/mse test/psnr test/nats"
  baselines = {"test/nats_floor", "test/pca_squared_error", "test/mean_predictor_squared_error"}
  assert set(metrics) == {*names.split(), *baselines, "images_per_second", "compile_seconds", "epoch", "step"}
  assert metrics["epoch"] == config.epochs
  np.testing.assert_allclose(metrics["test/mse"], metrics["test/squared_error"] / 64)
  np.testing.assert_allclose(metrics["test/psnr"], -10 * np.log10(metrics["test/mse"]))
  np.testing.assert_allclose(metrics["test/loss"], metrics["test/nats"], rtol=1e-6)
  assert metrics["test/nats"] > metrics["test/nats_floor"]
  steps = [record["step"] for record in logs.read(workdir)]
  assert steps == sorted(set(steps))


def test_metrics_match_the_loaded_model_in_numpy(trained):
  workdir, _, metrics = trained
  dataset = data.load("digits", "", "unit")
  x_hat = ae_jax.load(workdir).reconstruct(dataset.test).astype(np.float64)
  error = np.square(x_hat - dataset.test).sum((1, 2, 3)).mean()
  np.testing.assert_allclose(metrics["test/squared_error"], error, rtol=1e-5)
  x = dataset.test.astype(np.float64)
  nats = -(x * np.log(x_hat) + (1 - x) * np.log1p(-x_hat)).sum((1, 2, 3)).mean()
  np.testing.assert_allclose(metrics["test/nats"], nats, rtol=1e-4)


def test_baselines_match_scikit_learn_in_double_precision(trained):
  _, _, metrics = trained
  dataset = data.load("digits", "", "unit")
  train_, test = (split.reshape(len(split), -1).astype(np.float64) for split in (dataset.train, dataset.test))
  pca = PCA(32, svd_solver="full").fit(train_)
  error = np.square(pca.inverse_transform(pca.transform(test)) - test).sum(1).mean()
  np.testing.assert_allclose(metrics["test/pca_squared_error"], error, rtol=1e-4)
  inside = test[(test > 0) & (test < 1)]
  entropy = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside)).sum() / len(test)
  np.testing.assert_allclose(metrics["test/nats_floor"], entropy, rtol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("cnn", marks=pytest.mark.slow), "vae"])
def test_streamed_run_equals_a_run_in_memory_bitwise(tmp_path, monkeypatch, name):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
  config = unstudied(config_of(name, "digits"))
  config.epochs, config.batch_size = 2, 100
  for placement in ("memory", "stream"):
    config.data.placement = placement
    train.train_and_evaluate(config, tmp_path / placement)
  params_equal(tmp_path / "memory", tmp_path / "stream")


def test_remat_does_not_change_the_loss(tiny, tmp_path):
  losses = []
  for remat in (False, True):
    tiny.remat = remat
    losses.append(train.train_and_evaluate(tiny, tmp_path / str(remat))["test/loss"])
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_skipped_steps_are_counted_and_excluded_from_means(tiny, tmp_path, unreliable):
  tiny.on_nan = "skip"
  metrics = train.train_and_evaluate(tiny, tmp_path)
  records = logs.read(tmp_path)
  assert 3 < sum(record["train/skipped"] for record in records) < 18  # of 36 steps
  assert all(np.isfinite(record["train/loss"]) for record in records)
  assert metrics["test/squared_error"] < 30


def test_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, monkeypatch):
  tiny.data.augment = ({"name": "flip"}, {"name": "shift", "pixels": 1})
  train.train_and_evaluate(tiny, tmp_path / "straight")
  train_until(tiny, tmp_path / "broken", 2, monkeypatch)
  train.train_and_evaluate(tiny, tmp_path / "broken")
  (params, records), (other_params, other_records) = (learned(tmp_path / name) for name in ("straight", "broken"))
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records
  assert [record["epoch"] for record in records if "test/loss" in record] == [1, 2, 3]  # once per epoch
  test = data.load("digits", "", "unit").test
  x_hat = ae_jax.load(tmp_path / "straight").reconstruct(test)  # examples are not augmented in evaluation
  np.testing.assert_allclose(
    records[-1]["test/squared_error"], np.square(x_hat - test).sum((1, 2, 3)).mean(), rtol=1e-5
  )


def stateful():
  """The config of a VQ-VAE with dropout, augmentation and averaged parameters, on digits."""
  config = unstudied(config_of("vqvae", "digits"))
  config.update({"epochs": 3, "batch_size": 128, "checkpoint_every_epochs": 1, "ema_decay": 0.9})
  config.model.update({"latent": 3, "channels": (4,), "codebook_size": 8, "dropout": 0.1})
  config.data.augment = ({"name": "shift", "pixels": 1},)
  return config


def test_resume_preserves_codebook_averages_dropout_and_augmentation(tmp_path, monkeypatch):
  train.train_and_evaluate(stateful(), tmp_path / "straight")
  train_until(stateful(), tmp_path / "broken", 2, monkeypatch)
  train.train_and_evaluate(stateful(), tmp_path / "broken")
  for weights in ("raw", "ema"):
    straight, broken = (ae_jax.load(tmp_path / name, weights=weights).variables for name in ("straight", "broken"))
    jax.tree.map(np.testing.assert_array_equal, straight, broken)
  raw, ema = (ae_jax.load(tmp_path / "straight", weights=weights) for weights in ("raw", "ema"))
  assert any((a != b).any() for a, b in zip(*(jax.tree.leaves(run.params) for run in (raw, ema)), strict=True))
  test = data.load("digits", "", "unit").test
  error = np.square(ema.reconstruct(test) - test).sum((1, 2, 3)).mean()
  assert ema.metrics["test/squared_error"] == pytest.approx(error, rel=1e-5)  # evaluations use the averages
  assert ae_jax.load(tmp_path / "straight").params["decoder"].keys() == ema.params["decoder"].keys()


def test_loss_of_a_run_on_one_class_is_measured_on_normal_examples(tmp_path, monkeypatch):
  """It equals the loss on a test set without anomalies, also on a validation set and after a resume."""
  x = np.random.default_rng(0).random((90, 6), np.float32)
  labels, records = np.where(np.arange(20) < 8, 1, 0), {}
  arrays = {"x_train": x[:50], "y_train": np.zeros(50, int), "weight_test": 1 + np.arange(20) / 20}
  for name, kept in (("all", labels < 2), ("normal", labels == 0)):
    of_split = lambda start, kept=kept: (x[start : start + 20] + 9 * labels[:, None].astype(np.float32))[kept]
    given = {"x_test": of_split(50), "y_test": labels[kept], "x_val": of_split(70), "y_val": labels[kept]}
    weights = {
      "weight_train": np.ones(50),
      "weight_test": arrays["weight_test"][kept],
      "weight_val": np.ones(kept.sum()),
    }
    np.savez(tmp_path / f"{name}.npz", **arrays | given | weights)
    config = config_of("dense", "npz")
    config.update_from_flattened_dict({"epochs": 2, "batch_size": 16, "model.latent": 2, "data.range": "real"})
    config.data.path, config.data.one_class = str(tmp_path / f"{name}.npz"), 0
    config.objective.likelihood, config.evaluators = "gaussian", ()
    train_until(config, tmp_path / name, 1, monkeypatch)
    train.train_and_evaluate(config, tmp_path / name)
    records[name] = [record for record in logs.stream(tmp_path / name) if "test/loss" in record]
  for split in ("test", "validation"):
    every, normal = ([record[f"{split}/loss"] for record in records[name]] for name in ("all", "normal"))
    assert len(every) == 2
    np.testing.assert_allclose(every, normal, rtol=1e-6)


def test_run_killed_before_its_first_checkpoint_starts_again(tiny, tmp_path, monkeypatch):
  tiny.checkpoint_every_epochs = 2
  train.train_and_evaluate(tiny, tmp_path / "straight")
  train_until(tiny, tmp_path / "broken", 1, monkeypatch)
  with pytest.raises(errors.UserError, match="no checkpoint yet"):
    ae_jax.load(tmp_path / "broken")
  train.train_and_evaluate(tiny, tmp_path / "broken")
  params_equal(tmp_path / "straight", tmp_path / "broken")


def test_remarks_about_the_data_are_printed_once(tiny, tmp_path, capsys, monkeypatch):
  load = data.load
  monkeypatch.setattr(data, "load", lambda **section: dataclasses.replace(load(**section), remarks=("one", "two")))
  tiny.epochs = 1
  train.train_and_evaluate(tiny, tmp_path)
  lines = capsys.readouterr().out.splitlines()
  assert lines[1:3] == ["one", "two"]
  assert (lines.count("one"), lines.count("two")) == (1, 1)


def test_finished_run_is_not_trained_again(trained, capsys):
  workdir, config, metrics = trained
  before = (workdir / "metrics.jsonl").read_bytes()
  assert train.train_and_evaluate(config, workdir) == metrics
  assert (workdir / "metrics.jsonl").read_bytes() == before
  assert "resuming after epoch 3 of 3" in capsys.readouterr().out


def test_logging_and_checkpoint_intervals_do_not_change_the_parameters(tiny, tmp_path):
  train.train_and_evaluate(tiny, tmp_path / "a")
  tiny.update({"log_every_steps": 1, "checkpoint_every_epochs": 2, "eval_every_epochs": 3})
  train.train_and_evaluate(tiny, tmp_path / "b")
  params_equal(tmp_path / "a", tmp_path / "b")
  records = logs.read(tmp_path / "b")
  assert [record["step"] for record in records] == list(range(1, 37))
  assert [record["epoch"] for record in records if "test/loss" in record] == [2, 3]
  assert sorted(path.name for path in (tmp_path / "b" / "checkpoints").glob("[0-9]*")) == ["24", "36"]


def test_run_folder_of_another_config_is_refused_and_unchanged(trained):
  workdir, config, _ = trained
  other = config.copy_and_resolve_references()
  other.epochs, other.model.widths = 4, (8, 8)
  before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  with pytest.raises(errors.UserError, match=r"differs in epochs \(3, now 4\), model.widths \(\[256\], now \[8, 8\]\)"):
    train.train_and_evaluate(other, workdir)
  assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
  ("likelihood", "value_range"), [("gaussian", "unit"), ("gaussian", "symmetric"), ("gaussian", "real")]
)
def test_every_value_range_trains_and_loads(tmp_path, likelihood, value_range):
  images = np.random.default_rng(0).integers(0, 256, (30, 9, 8, 3), np.uint8)
  np.savez(tmp_path / "x.npz", x_train=images)
  config = unstudied(config_of("dense", "npz"))
  config.data.path, config.data.range = str(tmp_path / "x.npz"), value_range
  config.objective.likelihood = likelihood
  config.update({"epochs": 2, "batch_size": 8, "model": {"latent": 2, "widths": (8,)}})
  metrics = train.train_and_evaluate(config, tmp_path / "run")
  assert ("test/nats" in metrics) == (value_range == "unit")
  np.testing.assert_allclose(metrics["test/loss"], metrics["test/squared_error"], rtol=1e-6)
  assert ae_jax.load(tmp_path / "run").reconstruct(images).shape == images.shape


def staged():
  """The config of two layerwise stages and a joint one, of two epochs each, on digits."""
  config = unstudied(config_of("stacked", "digits"))
  config.update({"epochs": 2, "batch_size": 128, "checkpoint_every_epochs": 1, "model": {"latent": 4, "widths": (16,)}})
  config.optimizer.schedule = "constant"
  config.stages = tuple({**stage, "epochs": 2} for stage in config.stages[:2])
  return config


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The folder of an uninterrupted run of `staged`."""
  workdir = tmp_path_factory.mktemp("staged") / "straight"
  train.train_and_evaluate(staged(), workdir)
  return workdir


@pytest.mark.parametrize("stop", [*(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 5)), 2, 3])
def test_resume_within_or_between_stages_equals_an_uninterrupted_run(straight, tmp_path, monkeypatch, stop):
  train_until(staged(), tmp_path / "broken", stop, monkeypatch)
  train.train_and_evaluate(staged(), tmp_path / "broken")
  params_equal(straight, tmp_path / "broken")
  evaluated = [[r for r in logs.read(run) if "test/loss" in r] for run in (tmp_path / "broken", straight)]
  assert [record["stage"] for record in evaluated[0]] == [0, 0, 1, 1, 2, 2]
  seconds = [record["compile_seconds"] for record in evaluated[1]]
  assert 0 < seconds[0] == seconds[1] < seconds[2] == seconds[3] < seconds[4] == seconds[5]  # of all stages so far


def test_stage_changes_its_layer_alone_with_a_new_optimizer_state(tmp_path, monkeypatch):
  """The momentum of Adam from stage 0 would otherwise still change layer 0 in stage 1."""
  ends = []
  for stop in (2, 4):
    train_until(staged(), tmp_path / str(stop), stop, monkeypatch)
    ends.append(ae_jax.load(tmp_path / str(stop)).params)
  one, two = ends
  for part, name in (("encoder", "hidden_0"), ("decoder", "logits")):
    np.testing.assert_array_equal(one[part][name]["kernel"], two[part][name]["kernel"])
  for part, name in (("encoder", "code"), ("decoder", "hidden_0")):
    assert (one[part][name]["kernel"] != two[part][name]["kernel"]).any()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_lowers_its_loss(file, tmp_path, request):
  if file.stem not in ("attention", "sequence", "unet", "vqvae"):  # compile too long for eight devices
    request.getfixturevalue("eight_devices")
  config = unstudied(config_of(file.stem, *([] if file.stem in ("sequence", "table") else ["digits"])))
  config.update({"epochs": 1, "batch_size": 32, "log_every_steps": 5})
  if file.stem == "stacked":
    config.model.widths = (32, 16)  # larger layers need more steps than digits have
  for stage in config.stages:
    stage["epochs"] = 1
  train.train_and_evaluate(config, tmp_path)
  records = logs.read(tmp_path)
  for stage in range(len(config.stages) + 1):
    losses = [record["train/loss"] for record in records if stage < record["epoch"] <= stage + 1]
    assert losses[-1] < (1.0 if file.stem == "auto" else 0.95) * losses[0]  # auto begins at PCA

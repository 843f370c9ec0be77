"""The automatic choice of a config, and the config `auto`."""

import shlex
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import config_of, run_command
from PIL import Image

import ae_jax
from ae_jax import cli, errors, fitting
from ae_jax import config as configs
from ae_jax.config import automatic
from ae_jax.data import decoding

pytestmark = pytest.mark.quick_compile


def problem(x, **changes):
  return fitting.problem(x, None, model="auto", validation=None, test=None, changes=changes)


@pytest.mark.parametrize("shape", [(1,), (13,), (28, 28, 1), (140, 1), (128, 128, 3)])
@pytest.mark.parametrize("count", [1, 30, 480, 4000, 60_000, 1_000_000])
def test_the_training_has_a_bounded_number_of_steps_and_valid_keys(shape, count):
  chosen = automatic.changes(shape, count, gain=1.0)
  steps = chosen["epochs"] * -(-count // chosen["batch_size"])
  assert 300 <= steps <= max(2 * 2000, 2 * -(-count // chosen["batch_size"]))
  assert 1 <= chosen["model.latent"] <= max(1, np.prod(shape))
  assert chosen["epochs"] / chosen["eval_every_epochs"] < 40


@pytest.mark.parametrize("epochs", [1, 2, 7, 100])
def test_the_other_lengths_follow_from_the_number_of_epochs_of_the_user(epochs):
  chosen = automatic.changes((8,), 60, gain=1.0, epochs=epochs, batch_size=16)
  assert (chosen["epochs"], chosen["batch_size"]) == (epochs, 16)
  assert 1 <= chosen["eval_every_epochs"] <= epochs


@pytest.mark.runs_optax
def test_epochs_without_a_model_are_trained():
  x = np.random.default_rng(0).normal(size=(50, 6))
  with jax.numpy_rank_promotion("allow"):
    run = ae_jax.fit(x, epochs=1, evaluators=(), verbose=False)
    sweep = ae_jax.fit_sweep(x, latents=(1, 2), epochs=1, evaluators=(), verbose=False)
  assert run.config.model.linear_path == "pca"
  assert run.metrics["epoch"] == 1
  assert sweep.table["status"].tolist() == ["done", "done"]


def test_fewer_examples_get_more_regularisation():
  rates = [automatic.changes((8,), count, gain=1.0)["model.dropout"] for count in (100, 5000, 50_000)]
  assert rates == sorted(rates, reverse=True)
  assert rates[0] > rates[-1] == 0


def curve_and_line(count):
  """Examples [N, 60] that are functions of one hidden variable with noise: a parabola, and a straight line."""
  rng = np.random.default_rng(0)
  hidden, noise = rng.normal(size=(count, 1)), 0.1 * rng.normal(size=(count, 60))
  return np.concatenate([hidden, hidden**2 / 2] * 30, 1) + noise, hidden * np.linspace(1, 3, 60) + noise


def test_the_nonlinear_gain_is_large_on_a_curve_and_small_on_a_line():
  curve, line = curve_and_line(500)
  assert automatic.nonlinear_gain(curve, 1) > 0.5
  assert automatic.nonlinear_gain(line, 1) < 0.01
  assert automatic.nonlinear_gain(curve.reshape(500, 4, 5, 3), 1) == automatic.nonlinear_gain(curve, 1)


@pytest.mark.parametrize("x", [np.ones((40, 3)), np.eye(3), np.ones((1, 5)), np.eye(6, 2)])
def test_examples_without_residuals_have_no_nonlinear_gain(x):
  assert automatic.nonlinear_gain(x, 2) == 0


def test_few_examples_that_pca_explains_as_well_get_the_most_regularisation():
  curve, line = curve_and_line(500)
  rates = [problem(x, **{"model.latent": 1})[0].model.dropout for x in (curve, line)]
  assert rates[0] < rates[1]
  assert automatic.changes((60,), 500, gain=0.0)["model.dropout"] == rates[1]
  assert automatic.changes((60,), 2000, gain=0.0)["model.dropout"] == rates[0]


@pytest.mark.parametrize("latent", [-1, 0])
def test_an_invalid_latent_size_is_refused(latent):
  with pytest.raises(errors.UserError, match=r"^config\.model\.latent="):
    ae_jax.fit(np.eye(8), latent=latent, verbose=False)


def test_an_argument_replaces_a_choice():
  x = np.random.default_rng(0).normal(size=(50, 6))
  config, dataset = problem(x, **{"epochs": 3, "model.dropout": 0.0})
  assert (config.epochs, config.model.dropout, config.model.latent) == (3, 0.0, 2)
  assert "config.model.latent=2" in dataset.remarks[0]
  assert "epochs=" not in dataset.remarks[0].replace("_epochs=", "")


def test_the_config_auto_is_that_of_the_printed_command(tmp_path, capsys):
  np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 12)))
  config = config_of("auto", str(tmp_path / "x.npy"))
  command = shlex.split(capsys.readouterr().out.removeprefix("auto: "))
  name, *flags = command[2:]
  expected = config_of("dense", name.rpartition(":")[2])
  values = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags)
  changed = {key: type(configs.flat(expected.to_dict())[key])(value) for key, value in values.items()}
  expected.update_from_flattened_dict(changed)
  assert expected.to_dict() == config.to_dict()
  assert config.data.scale == "standard"
  config.optimizer.learning_rate, config.data.one_class = "auto", "good"  # keys with values of several types
  configs.check(config)


@pytest.mark.parametrize("name", ["digits", "x.npz", "x.csv", "photos"])
def test_flags_that_jax_reads_when_it_starts_have_an_effect(tmp_path, name):
  """JAX starts with the first use of a device, so neither --gpu_memory nor --coordinator has an effect after it."""
  values = np.random.default_rng(0).random((20, 8, 8))
  np.savez(tmp_path / "x.npz", x_train=values)
  np.savetxt(tmp_path / "x.csv", values[:, 0], "%.3f", ",", header="a,b,c,d,e,f,g,h", comments="")
  for number in range(8 if name == "photos" else 0):
    decoding.write_png(tmp_path / "photos" / f"{number}.png", values[number, ..., None], 0.0, 1.0)
  path = name if name == "digits" else tmp_path / name
  status, output, complaints = run_command("describe", f"--config=auto:{path}", "--gpu_memory=0.5", "--nopreallocate")
  assert status == 0, complaints
  assert "auto: " in output


def test_the_choice_does_not_depend_on_the_budget_of_the_devices(tmp_path):
  np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 12)))
  config, (command,) = fitting.automatic_config(str(tmp_path / "x.npy"), lambda config: {})
  assert config.data.budget_gib == 0
  assert "budget" not in command


def test_data_that_do_not_exist_are_refused():
  with pytest.raises(errors.UserError, match="file or folder not found"):
    fitting.automatic_config("no/such/folder.npz", lambda config: {})


def test_missing_values_are_masked_unless_the_user_chooses(tmp_path):
  table = tmp_path / "table.csv"
  table.write_text("a,b,c,kind\n" + "".join(f"{n},{n * n if n % 7 else ''},{-n},x\n" for n in range(60)))
  command = ("describe", f"--config=auto:{table}", "--config.data.label", "kind", "--config.epochs=7")
  status, output, complaints = run_command(*command)
  assert status == 0, complaints
  line, note = [line for line in output.splitlines() if line.startswith("auto: ")]
  assert {"--config.data.missing=mask", "--config.data.label=kind", "--config.epochs=7"} <= {*shlex.split(line)}
  assert note == "auto: 9 missing values: --config.data.missing=mask"
  config, lines = fitting.automatic_config(str(table), lambda config: {"data.missing": "mean", "data.label": "kind"})
  assert (config.data.missing, len(lines)) == ("mean", 1)
  with pytest.raises(errors.UserError, match=r"set config\.data\.missing=mean or"):
    fitting.problem(str(table), "kind", model="dense", validation=None, test=None, changes={})


@pytest.mark.parametrize("ignored", [False, True])
def test_missing_values_of_arrays_and_frames_are_masked(ignored):
  x = np.random.default_rng(0).normal(size=(50, 4))
  x[3, 1] = np.nan
  frame = pd.DataFrame(x, columns=list("abcd"))
  changes = {"data.columns": ("b=ignore",)} if ignored else {}
  for given in [frame] if ignored else [frame, x]:
    config, dataset = problem(given, **changes)
    assert config.data.missing == ("error" if ignored else "mask")
    assert ("1 missing value: --config.data.missing=mask" in dataset.remarks) != ignored


def test_a_likely_column_of_labels_is_named(tmp_path):
  rows = "".join(f"{'MB'[n % 2]},{n / 7},{n * n}\n" for n in range(40))
  (tmp_path / "x.csv").write_text(f"diagnosis,b,c\n{rows}")
  _, (_, line) = fitting.automatic_config(str(tmp_path / "x.csv"), lambda config: {})
  assert line.startswith("labels: the column 'diagnosis' has 2 words")
  assert "--config.data.label=diagnosis" in line
  assert len(fitting.automatic_config(str(tmp_path / "x.csv"), lambda config: {"data.label": "diagnosis"})[1]) == 1


def test_anomalies_in_the_test_set_are_evaluated():
  x, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
  arguments = {"model": "auto", "validation": None, "test": None}
  config, _ = fitting.problem(x, labels, **arguments, changes={"data.one_class": 1})
  assert config.evaluators[-1] == "anomaly"
  changes = {"data.one_class": 1, "evaluators": ("latent",)}
  assert fitting.problem(x, labels, **arguments, changes=changes)[0].evaluators == ("latent",)
  assert "anomaly" not in fitting.problem(x, labels, **arguments, changes={})[0].evaluators


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["--config.data.label=2020", "--config.epochs", "7"], {"data.label": "2020", "epochs": 7}),
    (["--config.data.follow_links", "--quiet"], {"data.follow_links": True}),
    (["--noconfig.data.read_validation"], {"data.read_validation": False}),
    (["--config.data.read_validation=0"], {"data.read_validation": False}),
    (["--config.data.columns=a=ignore", "--config.data.columns=b=ignore"], {"data.columns": ("a=ignore", "b=ignore")}),
  ],
)
def test_flags_have_the_types_of_the_config(arguments, expected, monkeypatch):
  monkeypatch.setattr(sys, "argv", ["ae_jax", "--config", "auto:x.npz", "--latents=2,4", *arguments])
  assert cli._flags_of(config_of("dense")) == expected


def test_data_that_only_a_flag_makes_readable_are_detected(tmp_path):
  np.savez(tmp_path / "x.npz", foo=np.random.default_rng(0).normal(size=(50, 12)), bar=np.zeros(3))
  config, (command,) = fitting.automatic_config(str(tmp_path / "x.npz"), lambda config: {"data.x": "foo"})
  assert (config.data.x, config.data.scale, config.objective.likelihood) == ("foo", "standard", "gaussian")
  assert "--config.data.x=foo" in command


@pytest.mark.parametrize(
  ("key", "value", "shape"),
  [
    ("size", 16, (16, 16, 3)),
    ("size", (12, 16), (12, 16, 3)),
    ("kind", "images", (64, 64, 3)),
    ("channels", 1, (64, 64, 1)),
  ],
)
def test_a_folder_is_detected_with_the_keys_of_the_user(tmp_path, key, value, shape):
  for height in range(20, 30):  # of different sizes: without config.data.size they are resized to 64 x 64
    Image.fromarray(np.full((height, 24, 3), 8 * height, np.uint8)).save(tmp_path / f"{height}.png")
  assert problem(str(tmp_path), **{f"data.{key}": value})[1].shape == shape

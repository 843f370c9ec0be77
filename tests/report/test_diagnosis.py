"""Diagnosis of a run: each cause is named in its case with the config key to change, in made and in tiny real runs."""

import pathlib

import numpy as np
import pytest
from conftest import config_of
from test_messages import METRICS, NAN, SQUARED, description_of
from test_messages import VAE as GAUSSIAN

from ae_jax.report import measured, messages, run_report
from ae_jax.training import train

pytestmark = pytest.mark.quick_compile

BAD = METRICS | {"test/squared_error": 20.0}  # worse than PCA (10), better than the mean (50)
NOTHING = METRICS | {"test/squared_error": 60.0}
DENSE = {"optimizer.name": "adam", "model.widths": [256], "model.dropout": 0.0, "batch_size": 128, "epochs": 20}
VAE = GAUSSIAN | {"objective.name": "elbo"}
PENALTY = {"objective.name": "sparse", "objective.weight": 0.1}


def curve(*values):
  """Returns a learning curve with a value after each epoch."""
  return 1.0 + np.arange(len(values)), np.array(values, float)


FALLING = {"test/squared_error": curve(60, 50, 44, 40, 30, 28, 22, 20), "train/loss": curve(*range(90, 82, -1))}
FLAT = {"test/squared_error": curve(30, 25, 21, 20, 20, 20, 20, 20), "train/loss": curve(*range(90, 82, -1))}
ROSE = {"test/squared_error": curve(30, 15, 12, 13, 14, 15, 18, 20), "train/loss": curve(*range(90, 82, -1))}
STEADY = {"test/squared_error": curve(75.6, 76.5, 78, 79.4, 80.6), "train/loss": curve(6878, 6850, 6830, 6820, 6813)}

CASES = {  # name -> (metrics, config keys, learning curves, parts of the sentences)
  "underfit": (BAD, DENSE, FLAT, ("underfitting: the loss is 69.000 on", "config.model.widths (now 256)")),
  "linear path": (BAD, {"model.linear_path": "none"}, FLAT, ("underfitting", "config.model.linear_path=pca")),
  "linear path of a VAE": (
    *(BAD, VAE | {"model.linear_path": "none"}, FLAT),
    ("Lower config.objective.beta=100.0, or set config.model.linear_path=pca",),
  ),
  "linear path is set": (BAD, DENSE | {"model.linear_path": "pca"}, FLAT, ("Use a larger model",)),
  "VAE": (BAD, VAE, FLAT, ("underfitting", "Lower config.objective.beta=100.0.")),
  "penalty": (BAD, PENALTY, FLAT, ("underfitting", "Lower config.objective.weight=0.1")),
  "regularised": (
    *(BAD, DENSE | {"model.dropout": 0.3, "optimizer.weight_decay": 0.1, "model.linear_path": "pca"}, FLAT),
    ("underfitting", "Lower config.model.dropout=0.3 and config.optimizer.weight_decay=0.1."),
  ),
  "regularised by noise": (
    *(BAD, DENSE | {"objective.name": "denoising", "objective.level": 0.25, "model.linear_path": "none"}, FLAT),
    ("Lower config.objective.level=0.25, or set config.model.linear_path=pca",),
  ),
  "regularised VAE": (
    *(BAD, VAE | {"model.dropout": 0.1}, FLAT),
    ("Lower config.objective.beta=100.0 and config.model.dropout=0.1.",),
  ),
  "low rate": (BAD, DENSE | {"optimizer.learning_rate": 1e-5}, FLAT, ("Raise config.optimizer.learning_rate=1e-05",)),
  "no hidden layer": (BAD, DENSE | {"model.widths": []}, FLAT, ("Add a hidden layer",)),
  "high rate": (BAD, DENSE | {"optimizer.learning_rate": 10.0}, FLAT, ("is high for adam", "learning_rate=10.0 to")),
  "gap": (BAD | {"train/loss": 20.0}, DENSE, FLAT, ("overfitting: the loss is 70.000 on", "config.model.dropout=0.1")),
  "gap above the bound": (
    *(BAD | {"train/loss": 55.0}, {"objective.likelihood": "bernoulli"}, FLAT),
    ("overfitting: the loss is 70.000 on", "more training examples"),
  ),
  "rise": (BAD, DENSE, ROSE, ("test error rose from 12.000 after epoch 3 to 20.000", "of epoch 3", 'which="best"')),
  "rise between checkpoints": (
    *(BAD, DENSE | {"checkpoint_every_epochs": 20}, ROSE),
    ("rose from 12.000 after epoch 3", "Lower config.checkpoint_every_epochs=20"),
  ),
  "slow and steady rise": (BAD, DENSE, STEADY, ("test error rose from 75.600 after epoch 1 to 80.600",)),
  "slow and steady rise above the entropy": (
    *(BAD | {"test/nats_floor": 6400.0}, DENSE | {"objective.likelihood": "bernoulli"}, STEADY),
    ("overfitting", "of epoch 1"),
  ),
  "slow rise while the test loss falls": (BAD, DENSE, STEADY | {"test/loss": curve(9, 8, 7, 6, 5)}, ("underfitting",)),
  "slow rise while the training loss hardly falls": (
    *(BAD, DENSE, STEADY | {"train/loss": curve(6878, 6877, 6876, 6875, 6874)}),
    ("underfitting",),
  ),
  "slow rise by noise": (BAD, DENSE, STEADY | {"test/squared_error": curve(75, 78, 76, 79, 78)}, ("underfitting",)),
  "slow rise of one evaluation": (BAD, DENSE, STEADY | {"test/squared_error": curve(90, 75, 80)}, ("underfitting",)),
  "rise of a good model": (METRICS, DENSE, ROSE, ("50% of the PCA error", "overfitting", "of epoch 3")),
  "validation rise": (
    *(BAD, DENSE, ROSE | {"validation/squared_error": curve(9, 5, 6, 7, 8, 9, 10, 11)}),
    ("validation error rose from 5.000 after epoch 2 to 11.000",),
  ),
  "still falls": (
    *(BAD, DENSE, FALLING),
    ("fell by 50% in the last 4 epochs, 15.9% per epoch", "Raise config.epochs=20 to 40."),
  ),
  "falls, but not to PCA": (
    *(BAD, {"model.linear_path": "none"}, {"test/squared_error": curve(30, 26, 24, 23, 22, 21, 20.5, 20)}),
    ("underfitting", "config.model.linear_path=pca"),
  ),
  "falls, and was stopped": (
    *(BAD | {"epoch": 8.0}, DENSE | {"max_minutes": 1.0}, FALLING),
    ("fell by 50%", "Raise config.max_minutes=1.0, which stopped the training"),
  ),
  "no linear path for bounded latents": (
    *(BAD, {"model.linear_path": "none", "model.bottleneck": "sigmoid"}, FLAT),
    ("underfitting", "Use a larger model"),
  ),
  "few steps": (
    *(BAD | {"step": 100, "epoch": 20.0}, DENSE, FLAT),
    ("only 100 steps", "config.epochs=20 to 200, or lower config.batch_size=128 to 16"),
  ),
  "few steps without a curve": (BAD | {"step": 5, "epoch": 1.0}, {}, {}, ("only 5 steps", "Raise config.epochs=3")),
  "good but still falls": (METRICS, DENSE, FALLING, ("50% of the PCA error", "fell by 50%", "Raise config.epochs")),
  "one epoch": (
    *(BAD | {"epoch": 1.0}, {"epochs": 1}),
    {"test/squared_error": curve(20), "train/loss": (np.array([0.25, 0.5, 0.75, 1.0]), np.array([90.0, 60, 45, 40]))},
    ("training loss still fell by 33%", "Raise config.epochs=1 to"),
  ),
  "collapse": (NOTHING | {"test/active_units": 0}, VAE, FLAT, ("posterior collapse", "Lower config.objective.beta")),
  "collapse by the KL term": (NOTHING | {"train/kl": 1e-3}, VAE, FLAT, ("posterior collapse", "config.objective.beta")),
  "constant": (NOTHING | {"reconstruction/variance_ratio": 1e-9}, {}, FLAT, ("are nearly equal", "Lower")),
  "ignored": (BAD | {"latent/shuffle_ratio": 1.0}, {}, FLAT, ("ignores the latent code", "Lower config.optimizer")),
  "ignored by a VAE": (BAD | {"latent/shuffle_ratio": 1.001}, VAE, FLAT, ("ignores", "config.objective.beta=100")),
  "ignored beside skips": (
    *(METRICS | {"latent/shuffle_ratio": 1.0}, {"model.skips": "all"}, FLAT),
    ("skip connections", "ignores the latent code", "config.model.skips=none"),
  ),
  "saturated": (BAD | {"reconstruction/saturated": 0.4}, {}, FLAT, ("40% of its values", "Lower config.optimizer")),
  "dead": (BAD | {"latent/dead_units": 20}, {}, FLAT, ("20 of the 32 latent units are dead", "bottleneck=")),
  "dead by the penalty": (BAD | {"test/dead_units": 20}, PENALTY, FLAT, ("are dead", "config.objective.weight=0.1")),
  "dead codebook": (
    *(BAD | {"test/codebook_entries": 7}, {"model.codebook_size": 512, "model.revive_below": 0.03}, FLAT),
    ("Only 7 of the 512 codebook vectors", "Raise config.model.revive_below=0.03"),
  ),
}  # fmt: skip


def said(metrics, settings, curves, finished=True):
  """Returns the headline of the report."""
  return messages.headline(metrics, description_of(settings), curves, finished)


@pytest.mark.parametrize("name", CASES)
def test_each_cause_is_named_with_the_key_to_change(name):
  metrics, settings, curves, parts = CASES[name]
  closing = messages.closing(metrics, description_of(settings), pathlib.Path("runs/x"), curves)
  for text in (closing, said(metrics, settings, curves)):
    assert [part for part in parts if part not in text] == [], text
    assert "nan" not in text.lower()


# Two numbers, a category of 3 elements and a boolean with the likelihood mixed: at least 1.838 nats for the numbers.
MIXED = {"objective.likelihood": "mixed", "model.name": "table", "model.width": 0, "model.latent": 2}
GROUPS = {"shape": [6], "groups": [["category", 2, 5], ["boolean", 5, 6]]}
MIXED_LOSS = {"train/loss": 3.0, "test/loss": 3.2}


@pytest.mark.parametrize(
  ("metrics", "settings", "curves", "parts"),
  [
    (MIXED_LOSS, {}, FLAT, ("PCA minimises the squared error", "likelihood=gaussian to minimise the squared")),
    (MIXED_LOSS, VAE, FLAT, ("Lower config.objective.beta=100.0. Compare the errors of the columns",)),
    (MIXED_LOSS, {"model.width": 2048}, FLAT, ("PCA minimises the squared error", "Compare the errors of the columns")),
    (MIXED_LOSS | {"test/loss": 3.8}, {}, FLAT, ("overfitting: the loss is 3.800 on",)),  # 2.0 above 1.8 for 1.2
    (MIXED_LOSS, {}, ROSE | {"test/loss": curve(*range(9, 1, -1))}, ("PCA minimises the squared error",)),
    (MIXED_LOSS, {}, ROSE | {"test/loss": curve(9, 8, 7, 7, 7, 8, 9, 10)}, ("overfitting: the test error rose",)),
  ],
)
def test_mixed_likelihood_is_not_judged_by_the_squared_error_alone(metrics, settings, curves, parts):
  description = description_of(DENSE | MIXED | settings)
  description["data"] |= GROUPS
  text = messages.headline({**SQUARED, "test/squared_error": 20.0, **metrics}, description, curves)
  assert [part for part in parts if part not in text] == [], text
  assert "larger model" not in text


def test_loss_that_includes_anomalies_is_not_compared_with_the_training_loss():
  """Runs of earlier versions on one class have such a test loss; new runs measure it on the normal examples."""
  description = description_of(DENSE | {"data.one_class": 0})
  gap = BAD | {"train/loss": 20.0}
  earlier = messages.headline(gap, description, FLAT)
  assert "It is overfitting" not in earlier
  assert "70.000 on the test set (with anomalies)" in earlier
  description["data"]["test_anomalies"] = 5
  text = messages.headline(gap, description, FLAT)
  assert "overfitting: the loss is 70.000 on the test set (normal examples) and 20.000 on the training set" in text


@pytest.mark.parametrize("metrics", [BAD, NOTHING, METRICS])
def test_labelled_anomalies_explain_the_errors_of_windows_before_the_size_of_the_model(metrics):
  description = description_of(DENSE | {"data.window": 8})
  description["data"]["unset_anomalies"] = 3
  closing = messages.closing(metrics, description, pathlib.Path("runs/x"), FLAT)
  for text in (closing, messages.headline(metrics, description, FLAT)):
    assert "3 test windows have labels of rare classes" in text
    assert "Set config.data.one_class=0" in text
    assert "model.widths" not in text
    assert "smaller model" not in text
  description["data"]["usual_class"] = "good"
  assert "Set config.data.one_class=good" in messages.headline(metrics, description, FLAT)


def test_larger_model_is_not_advised_if_it_has_more_parameters_than_the_data_have_values():
  description = description_of(DENSE) | {"parameters": 10**6}
  assert "Use a larger model" not in (text := messages.headline(BAD, description, FLAT))
  assert "more parameters than the training set has values" in text
  assert "use more training examples" in text


@pytest.mark.parametrize(
  ("command", "settings", "text"),
  [
    ("ae_jax train", {"data.path": "a b.csv", "data.name": "csv"}, "Use '--config=auto:a b.csv', with the same"),
    ("ae_jax train", {"data.path": "", "data.name": "wine"}, "Use --config=auto:wine, with the same"),
    (None, {"data.name": "array"}, "Use ae_jax.fit(x) without `model`, with the same"),
  ],
)
def test_table_model_that_is_worse_than_pca_is_told_about_the_automatic_config(command, settings, text):
  description = description_of(DENSE | {"model.name": "table", "model.width": 0} | settings) | {"command": command}
  assert text in messages.headline(BAD, description, FLAT)


def test_regularisation_is_reduced_before_other_advice_for_underfitting():
  """Also if the model is large, or is the model of tables; targets replace the artificial noise of denoising."""
  strong = DENSE | {"model.dropout": 0.3, "optimizer.weight_decay": 0.3}
  large = description_of(strong) | {"parameters": 10**6}
  assert "training examples" not in messages.headline(BAD, large, FLAT).partition("Lower config.model.dropout=0.3")[2]
  of_table = description_of(strong | {"model.name": "table", "data.path": "a.csv"}) | {"command": "ae_jax train"}
  assert "weight_decay=0.3, or use --config=auto:a.csv, with the same" in messages.headline(BAD, of_table, FLAT)
  noise = description_of(DENSE | {"objective.name": "denoising", "objective.level": 0.25})
  text = messages.headline(BAD | {"test/input_squared_error": 30.0}, noise, FLAT)
  assert "objective.level" not in text


ADVICE = ("Lower config", "Raise config", "Set config", "Use ", "Add a ", "If the latent")


@pytest.mark.parametrize("name", CASES)
def test_one_cause_and_one_advice_are_given_and_no_advice_before_the_end(name):
  metrics, settings, curves, _ = CASES[name]
  assert 1 <= sum(said(metrics, settings, curves).count(part) for part in ADVICE) <= 2
  assert not any(part in said(metrics, settings, curves, finished=False) for part in ADVICE)


@pytest.mark.parametrize(
  ("metrics", "settings", "curves"),
  [
    (METRICS, DENSE, FLAT),
    (METRICS, DENSE, {}),
    (METRICS | {"train/loss": 68.0}, DENSE | {"objective.likelihood": "bernoulli"}, FLAT),
    (METRICS | {"latent/shuffle_ratio": 1.1, "latent/dead_units": 16, "reconstruction/variance_ratio": 0.9}, {}, FLAT),
    (METRICS | {"train/loss": 30.0}, DENSE | {"ema_decay": 0.999}, FLAT),  # averages lag behind the parameters
    (METRICS, {"model.linear_path": "none"}, FLAT),
    (METRICS | {"train/loss": 20.0}, DENSE, FLAT),  # a gap is usual for good models of few examples
    (METRICS, DENSE, {"test/squared_error": curve(5, 4, 5), "train/loss": curve(60, 61, 62)}),  # no overfitting
  ],
)  # fmt: skip
def test_a_good_run_gets_no_diagnosis(metrics, settings, curves):
  assert said(metrics, settings, curves).startswith(
    "Squared error 5.000 per test example (baseline: PCA with the same latent size, 10.000). The model's error is 50% "
    "of the PCA error. The cross-entropy"
  )


def test_the_lower_bound_of_the_losses_is_stated_beside_them():
  near, bernoulli = BAD | {"train/loss": 45.6, "test/loss": 45.9}, DENSE | {"objective.likelihood": "bernoulli"}
  assert "the test set; their lower bound is 45.500." in said(near, bernoulli, FLAT)
  assert "their lower bound" not in said(BAD, DENSE, FLAT)


def test_small_differences_of_the_losses_near_their_bound_are_no_overfitting():
  near = BAD | {"train/loss": 45.6, "test/loss": 45.9}
  settings = DENSE | {"objective.likelihood": "bernoulli"}
  assert "overfitting" not in said(near, settings, FLAT)
  assert "overfitting" in said(near | {"test/loss": 49.0}, settings, FLAT)


def test_verdict_needs_no_curve_and_no_key_of_newer_versions():
  old = {name: BAD[name] for name in ("step", "epoch", "test/squared_error", "test/pca_squared_error")}
  description = {"config": {"model": {"latent": 32}}, "data": {"shape": [8], "train": 99, "test": 9}}
  for curves in ({}, FALLING, ROSE, {"test/squared_error": curve(NAN, NAN), "train/loss": curve(NAN)}):
    text = messages.headline(old, description, curves)
    assert "The model is no better than PCA." in text
    assert "nan" not in text


def test_the_fall_is_that_of_the_second_half_of_the_main_stage():
  pretrained = {"test/squared_error": curve(100, 90, 20, 18, 10, 9)}
  for epochs, share in ((6, 0.55), (4, 0.5), (2, 0.1)):
    fell = measured.Result(METRICS, description_of({"epochs": epochs}), pretrained).fell
    assert fell.share == pytest.approx(share)
    assert (1 - fell.per_epoch) ** fell.epochs == pytest.approx(1 - share)
  assert measured.Result(METRICS, description_of({"epochs": 1}), {"test/squared_error": curve(3)}).fell is None


def test_faults_of_the_data_are_repeated_at_the_end():
  description = description_of()
  description["data"]["faults"] = ["config.data.name='npz': 5 of 45 test examples are equal to a training example"]
  for text in (
    messages.headline(METRICS, description, {}),
    messages.closing(METRICS, description, pathlib.Path("runs/x"), {}),
  ):
    assert "Check the data: config.data.name='npz': 5 of 45 test examples are equal to a training example." in text
  assert "Check the data" not in said(METRICS, {}, {})


def test_a_test_set_at_the_end_of_a_time_series_may_have_anomalies():
  description = description_of(DENSE)
  for rule, is_named in (("random", False), ("time", True)):
    description["data"]["split"] = {"rule": rule}
    text = messages.headline(BAD | {"train/loss": 20.0}, description, FLAT, True)
    assert "overfitting" in text
    assert ("anomalies or a drift: the loss is 70.000 on" in text) == is_named
    assert "config.model.dropout=0.1" in text
  for window, method in ((0, "run.score"), (50, "run.score_record of the recording")):
    description["config"]["data"]["window"] = window
    text = messages.headline(BAD | {"train/loss": 20.0}, description, FLAT, True)
    assert f"Look at {method} over time" in text
    assert ("Use config.data.stride=12 for more windows, config.model.dropout=0.1" in text) == bool(window)


def test_labelled_anomalies_of_a_run_on_one_class_do_not_explain_its_test_loss():
  description = description_of(DENSE)
  description["config"]["data"]["one_class"] = 0
  description["data"] |= {"split": {"rule": "time"}, "test_anomalies": 5}
  text = messages.headline(BAD | {"train/loss": 20.0}, description, FLAT, True)
  assert "has a drift: the loss is 70.000 on the test set (normal examples)" in text
  assert "anomalies" not in text


def examples(folder, train_count=20):
  """Writes uniform noise [N, 8, 8], which has no structure to learn, and returns the path."""
  noise = np.random.default_rng(0).uniform(size=(train_count + 40, 8, 8, 1)).astype(np.float32)
  np.savez(folder / "x.npz", x_train=noise[:train_count], x_test=noise[train_count:])
  return str(folder / "x.npz")


REAL = {  # name -> (config, changed keys, part of the headline)
  "overfit": ("dense", {"epochs": 300, "optimizer.learning_rate": 5e-3}, "It is overfitting"),
  "rate": ("dense", {"epochs": 20, "optimizer.learning_rate": 10.0}, "Lower config.optimizer.learning_rate=10.0"),
  "beta": ("vae", {"epochs": 250, "objective.beta": 1e4}, "Lower config.objective.beta=10000.0"),
  "epoch": ("dense", {"epochs": 1}, "only 1 step."),
}


@pytest.mark.runs_optax
@pytest.mark.parametrize("name", REAL)
def test_real_runs_are_diagnosed(tmp_path, name):
  family, changes, part = REAL[name]
  config = config_of(family, "npz")
  config.update_from_flattened_dict(
    {
      "data.path": examples(tmp_path),
      "model.latent": 4,
      "model.widths": (64,),
      "model.linear_path": "none",
      "checkpoint_every_epochs": 400,
      **changes,
    }
  )
  config.eval_every_epochs = max(1, changes["epochs"] // 20)
  config.evaluators = ("latent",)
  train.train_and_evaluate(config, tmp_path / "run")
  assert part in run_report.read(tmp_path / "run").answer

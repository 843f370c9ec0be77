"""Messages of a run: each sentence appears in its case and in no other."""

import pathlib
import re

import numpy as np
import pytest

from ae_jax.data import schema
from ae_jax.report import measured, messages
from ae_jax.runs import logs

METRICS = {
  "step": 6000,
  "epoch": 3.0,
  "train/loss": 69.0,
  "test/loss": 70.0,
  "test/squared_error": 5.0,
  "test/pca_squared_error": 10.0,
  "test/mean_predictor_squared_error": 50.0,
  "test/nats": 70.0,
  "test/nats_floor": 45.5,
  "images_per_second": 12345.6,
  "compile_seconds": 2.25,
}
SQUARED = {name: value for name, value in METRICS.items() if "nats" not in name}  # of gaussian likelihood
NAN, INF = float("nan"), float("inf")
VAE = {"model.bottleneck": "gaussian", "objective.beta": 100.0, "objective.free_bits": 0.0}

# sentence -> a part of it that occurs in no other sentence
SENTENCES = {
  "diverged": "Training diverged",
  "constant": "equals the mean training example",
  "mean": "no better than predicting the mean",
  "collapse": "posterior collapse",
  "nothing": "it has learned nothing",
  "overfit": "It is overfitting: the loss",
  "rank": "lie in a space of 32 dimensions or fewer",
  "large": "at least as large as an example",
  "percent": "% of the PCA error",
  "skips": "skip connections",
  "worse": "no better than PCA",
  "few": "latent units are active.",
  "levels": "more latent units or levels",
  "underfit": "It is underfitting",
  "skipped": "skipped because",
}


def description_of(changes=(), shape=(28, 28, 1), train=1000):
  """Returns the part of config.json that the sentences use, for a dense autoencoder with some dotted keys changed."""
  settings = {
    "epochs": 3,
    "model.name": "dense",
    "model.latent": 32,
    "model.bottleneck": "identity",
    "data.name": "digits",
    "objective.name": "reconstruction",
    "optimizer.learning_rate": 0.002,
    "optimizer.clip_norm": 0.0,
  } | dict(changes)
  nested = {}
  for key, value in settings.items():
    section, dot, name = key.partition(".")
    if dot:
      nested.setdefault(section, {})[name] = value
    else:
      nested[section] = value
  return {"config": nested, "data": {"shape": list(shape), "train": train, "test": 100}, "parameters": 7}


def both(metrics, settings=(), skipped=0, curves=(), **data):
  """Returns the closing lines and the headline, each as one line."""
  description = description_of(settings, **data)
  curves = dict(curves) | ({"train/skipped": (np.array([1.0]), np.array([skipped]))} if skipped else {})
  closing = messages.closing(metrics, description, pathlib.Path("runs/x"), curves)
  return closing.replace("\n", " "), messages.headline(metrics, description, curves)


@pytest.mark.parametrize(
  ("scale", "kind", "unit"),
  [
    ("standard", None, ", in squared standard deviations (baseline"),
    ("standard", "numeric", ", in squared standard deviations (baseline"),
    ("standard", "boolean", ", in squared standard deviations for numbers (baseline"),
    ("quantile", "numeric", ", in squared units of the quantile scale (baseline"),
    ("none", "numeric", " per test example (baseline"),
  ],
)
def test_squared_error_has_the_unit_of_the_scaled_data(scale, kind, unit):
  description = description_of({"data.scale": scale})
  if kind:
    description["data"]["schema"] = schema.Schema((schema.Column("a", kind),)).as_json()
  for text in (
    messages.headline(SQUARED, description, {}),
    messages.closing(SQUARED, description, pathlib.Path("x"), {}),
  ):
    assert unit in text


QUANTISED = "test/pca_quantised_squared_error"
CASES = [  # changed metrics, changed config keys, number of skipped steps, expected sentences
  ({}, {}, 0, {"percent"}),
  ({"test/squared_error": 0.0}, {}, 0, {"percent"}),
  ({}, {"model.skips": "all"}, 0, {"percent", "skips"}),
  ({}, {"model.skips": "none"}, 0, {"percent"}),
  ({"test/squared_error": 11.0}, {}, 0, {"worse", "underfit"}),
  ({"test/squared_error": 10.0}, {}, 0, {"worse", "underfit"}),
  ({"test/squared_error": 11.0}, {"model.skips": "all"}, 0, {"worse", "underfit"}),
  ({"test/squared_error": 11.0}, {"model.bottleneck": "fsq5"}, 0, {"worse", "underfit", "levels"}),
  ({"test/squared_error": 21.0, QUANTISED: 20.0}, {"model.bottleneck": "fsq5"}, 0, {"worse", "underfit", "levels"}),
  ({"test/squared_error": 19.0, QUANTISED: 20.0}, {"model.bottleneck": "fsq5"}, 0, {"percent"}),
  ({"test/squared_error": NAN}, {}, 0, {"diverged"}),
  ({"test/squared_error": INF}, {}, 0, {"diverged"}),
  ({"test/loss": NAN}, {}, 0, {"diverged"}),
  ({"test/nats": NAN}, {}, 0, {"diverged"}),
  ({"test/nats": 2e21, "test/loss": 2e21}, {}, 0, {"diverged"}),
  ({"test/nats": 9 * 784 * np.log(2)}, {}, 0, {"percent"}),
  ({"test/squared_error": 6e13}, {}, 0, {"mean", "nothing"}),  # happens if a model fails on almost constant data
  ({"test/squared_error": 5e3}, {}, 0, {"mean", "nothing"}),
  ({"test/squared_error": 50.0}, {}, 0, {"mean", "nothing"}),
  ({"test/squared_error": 49.9}, {}, 0, {"worse", "underfit"}),
  ({"test/squared_error": 60.0, "train/loss": 30.0}, {}, 0, {"mean", "overfit"}),
  ({"test/squared_error": 60.0, "train/loss": 69.0}, {}, 0, {"mean", "nothing"}),
  ({"train/loss": 30.0}, {}, 0, {"percent"}),
  ({"test/squared_error": 60.0, "train/loss": -30.0}, {}, 0, {"mean", "nothing"}),
  ({"test/squared_error": 60.0, "train/loss": NAN}, {}, 0, {"mean", "nothing"}),
  ({"test/squared_error": 1.0, "test/pca_squared_error": 0.0, "test/mean_predictor_squared_error": 0.0}, {}, 0,
   {"constant"}),
  ({"test/squared_error": 60.0, "test/active_units": 0}, VAE, 0, {"mean", "collapse"}),
  ({"test/squared_error": 48.0, "test/active_units": 0}, VAE, 0, {"collapse"}),
  ({"test/squared_error": 48.0, "latent/active_units": 0}, VAE, 0, {"collapse"}),
  ({"test/squared_error": 48.0, "latent/active_units": 0}, {}, 0, {"worse", "underfit"}),  # no posterior
  ({"test/squared_error": 60.0, "test/active_units": 29}, VAE, 0, {"mean", "nothing"}),
  ({"test/squared_error": 48.0, "test/active_units": 3}, VAE, 0, {"worse", "few"}),
  ({"test/squared_error": 48.0, "test/active_units": 4}, VAE, 0, {"worse", "underfit"}),
  ({"test/squared_error": 9.0, "test/active_units": 3}, VAE, 0, {"percent"}),
  ({"test/pca_squared_error": 1e-9}, {}, 0, {"rank"}),
  ({"test/pca_squared_error": 0.0, "test/squared_error": 0.0}, {}, 0, {"rank"}),
  ({"test/pca_squared_error": 1e-9}, {"model.latent": 784}, 0, {"large"}),
  ({"test/pca_squared_error": 1e-3}, {}, 0, {"worse", "underfit"}),  # much less than 5, but PCA is not exact
  ({"test/squared_error": 1e-9, "test/pca_squared_error": 1e-3}, {"model.latent": 784}, 0, {"percent"}),
  ({}, {}, 1, {"percent", "skipped"}),
  ({"test/squared_error": 11.0}, {}, 1, {"worse", "underfit", "skipped"}),
  ({"test/squared_error": 11.0}, {}, 3000, {"worse", "underfit", "skipped"}),
  ({"test/squared_error": 11.0}, {}, 3001, {"worse", "underfit", "skipped"}),  # the skipped steps are the reason
  ({"test/squared_error": NAN}, {}, 5999, {"diverged", "skipped"}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "settings", "skipped", "wanted"), CASES)
def test_each_sentence_appears_in_its_case_only(changes, settings, skipped, wanted):
  for said in both(METRICS | changes, settings, skipped):
    assert {name for name, part in SENTENCES.items() if part in said} == wanted, said


def test_every_sentence_is_covered_by_a_case():
  assert set.union(*(wanted for *_, wanted in CASES)) == SENTENCES.keys()


@pytest.mark.parametrize(("changes", "settings", "skipped", "wanted"), CASES)
def test_texts_contain_no_nan_inf_or_large_number_with_decimals(changes, settings, skipped, wanted):
  for said in both(METRICS | changes, settings, skipped):
    assert not re.search(r"\b(nan|inf)\b", said, re.IGNORECASE)
    assert not re.search(r"\d{7,}\.\d", said)


@pytest.mark.parametrize(
  ("changes", "settings", "keys"),
  [
    ({"test/squared_error": NAN}, {}, ("config.optimizer.learning_rate=0.002", "config.optimizer.clip_norm")),
    ({"test/squared_error": 60.0}, {}, ("config.optimizer.learning_rate (now 0.002)", "config.epochs (now 3)")),
    ({"test/active_units": 0}, VAE, ("config.objective.beta=100.0", "config.objective.free_bits", "config.schedules")),
    ({"test/squared_error": 12.0, "test/active_units": 1}, VAE, ("config.objective.beta=100.0", "Only 1 of the 32")),
    ({"test/active_units": 0}, {"model.bottleneck": "gaussian"}, ("config.optimizer.learning_rate (now 0.002)",)),
  ],
)
def test_advice_names_config_keys_and_their_values(changes, settings, keys):
  for said in both(METRICS | changes, settings):
    for key in keys:
      assert key in said


def test_advice_omits_clipping_if_it_is_set_and_beta_if_it_is_zero_or_missing():
  for said in both(METRICS | {"test/squared_error": NAN}, {"optimizer.clip_norm": 1.0}):
    assert "clip_norm" not in said
  for settings in ({"model.bottleneck": "gaussian"}, VAE | {"objective.beta": 0.0}):
    for said in both(METRICS | {"test/active_units": 0}, settings):
      assert "beta" not in said


def test_skipped_steps_are_summed_over_all_records_and_reported_once():
  records = [{"step": 50 * n, "epoch": float(n), "train/skipped": 20 * n} for n in (1, 2)]
  assert measured.Result(METRICS, description_of(), logs.curves(records)).skipped == 60
  assert measured.Result(METRICS, description_of()).skipped == 0
  for said in both(METRICS | {"test/squared_error": NAN, "step": 360}, skipped=359):
    assert "359 of 360 steps were skipped" in said
    assert said.count("Lower config.optimizer.learning_rate=0.002") == 1
  assert "1 of 6,000 steps was skipped" in both(METRICS, skipped=1)[0]


@pytest.mark.parametrize(("changes", "settings", "skipped", "wanted"), CASES)
def test_unfinished_run_gets_advice_only_if_it_diverged(changes, settings, skipped, wanted):
  said = messages.headline(METRICS | changes, description_of(settings), {}, finished=False)
  parts = ("Check config", "Lower config", "Use ", "Set config", "Raise config")
  assert any(part in said for part in parts) == ("diverged" in wanted)


def test_verdict_works_without_the_mean_predictor_of_newer_versions():
  old = {name: value for name, value in METRICS.items() if "mean" not in name}
  for changes, part in (
    ({}, "error is 50% of the PCA error"),
    ({"test/squared_error": 60.0}, "no better than PCA"),
    ({"test/pca_squared_error": 1e-9}, "32 dimensions or fewer"),
    ({"test/pca_squared_error": 0.0, "test/squared_error": 0.0}, "32 dimensions or fewer"),
  ):
    for said in both(old | changes):
      assert part in said
      assert "mean training example" not in said


def test_pca_baseline_has_at_most_the_possible_number_of_components():
  assert "(baseline: PCA with the same latent size, 10.000)" in both(METRICS)[0]
  assert "PCA with the same latent size" in both(METRICS, shape=(4, 8, 1))[0]
  assert "PCA with 9 components, the maximum for 10 training examples, 10.000" in both(METRICS, train=10)[0]
  assert "PCA with 16 components, the maximum for examples of 16 elements" in both(METRICS, shape=(4, 4, 1))[0]


@pytest.mark.parametrize(
  ("ratio", "text"),
  [(0, "0%"), (1e-9, "less than 1%"), (0.0099, "less than 1%"), (0.01, "1%"), (0.24, "24%"), (0.99, "99%"),
   (0.9901, "just under 100%"), (1 - 1e-9, "just under 100%")],
)  # fmt: skip
def test_percentage_is_not_rounded_to_0_or_100(ratio, text):
  assert measured.share(ratio) == text


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0.0, "0.000"),
    (5.0, "5.000"),
    (0.01, "0.010"),
    (0.0012345, "0.00123"),
    (123456.7, "123456.700"),
    (2.2e21, "2.2e+21"),
  ],
)
def test_number_uses_significant_digits_if_very_small_or_large(value, text):
  assert measured.number(value) == text


def test_closing_lines_contain_all_metrics_and_the_path_of_the_report():
  said = messages.closing(METRICS, description_of(), pathlib.Path("runs/x"), {})
  for part in ("3 epochs", "5.000", "10.000", "50%", "70.00", "45.50", "12,346", "2.2 s", "runs/x/report.html"):
    assert part in said
  assert "Cross-entropy" not in both(SQUARED)[0]
  assert "Cross-entropy" not in both(METRICS | {"test/nats": 2e21})[0]
  assert "After 1 epoch: " in both(METRICS | {"epoch": 1.0})[0]


def test_headline_has_cross_entropy_and_auroc_only_if_measured():
  assert "24.5 nats above its lower bound" in both(METRICS)[1]
  anomalies = {"test/auroc": 0.926, "test/pca_auroc": 0.54}
  assert all("AUROC 0.926 (PCA: 0.540)." in text for text in both(METRICS | anomalies))
  bounds = {"anomaly/auroc_low/squared_error": 0.8, "anomaly/auroc_high/squared_error": 0.97}
  for text in both(METRICS | anomalies | bounds):
    assert "AUROC 0.926 (95 % interval: 0.800 to 0.970; PCA: 0.540)." in text
  assert "AUROC 0.926." in both(METRICS | {"test/auroc": 0.926})[1]
  for changes in ({"test/auroc": NAN}, {}):
    assert "AUROC" not in both(METRICS | changes)[1]
  for metrics in (SQUARED, METRICS | {"test/nats": NAN}, METRICS | {"test/nats": 2e21}):
    assert "cross-entropy" not in both(metrics)[1]


def test_headline_before_the_first_evaluation():
  assert "Training has started" in messages.headline({"epoch": 0.1, "train/loss": 3.0}, description_of(), {})


@pytest.mark.parametrize(("of_input", "said"), [(6.0, "is less."), (4.0, "is not less."), (None, "")])
def test_the_error_of_the_input_is_compared_if_there_are_targets(of_input, said):
  metrics = METRICS if of_input is None else METRICS | {"test/input_squared_error": of_input}
  metrics = {name: value for name, value in metrics.items() if name != "test/psnr"}
  for text in (
    messages.closing(metrics, description_of(), pathlib.Path("runs/x"), {}),
    messages.headline(metrics, description_of(), {}),
  ):
    assert ("The input itself" in text) == bool(said)
    assert said in text
    assert "PSNR" not in text  # values without a fixed range have none


def test_the_psnr_of_pairs_stands_beside_that_of_the_input():
  metrics = METRICS | {"test/input_squared_error": 6.0, "test/psnr": 26.257, "test/input_psnr": 18.7}
  closing = messages.closing(metrics, description_of(), pathlib.Path("runs/x"), {})
  assert closing.splitlines()[1].startswith("PSNR 26.26 dB (input: 18.70 dB). The input itself")
  assert "PSNR 26.26 dB (input: 18.70 dB). " in messages.headline(metrics, description_of(), {})

"""Metrics, config and learning curves of a run, for the verdict and the diagnosis."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ae_jax import config as configs
from ae_jax.data import schema as schemas
from ae_jax.data import standardisation
from ae_jax.report import trends
from ae_jax.runs import metric_names

# A run has diverged if its cross-entropy exceeds this multiple of the cross-entropy of predicting 0.5 everywhere.
_DIVERGED_NATS = 10

ADAPTIVE = ("adam", "nadam", "rmsprop")  # optimizers with usual learning rates from 1e-4 to 1e-2
USUAL_RATE = 0.002  # learning rate of these optimizers
# objective -> config key of the weight of a term that makes reconstructions worse
_PENALTIES = {"elbo": "objective.beta", "sparse": "objective.weight", "contractive": "objective.weight"}
Metrics = Mapping[str, float | int]


@dataclasses.dataclass(frozen=True)
class Result:
  """Last value of each metric of a run, the contents of config.json, and the learning curves.

  Runs of earlier versions lack some metrics and config keys.
  """

  metrics: Metrics
  description: Mapping[str, Any]
  curves: trends.Curves = dataclasses.field(default_factory=dict)

  @property
  def skipped(self) -> int:
    """Number of steps that were skipped (config.on_nan=skip)."""
    return int(self.curves["train/skipped"][1].sum()) if "train/skipped" in self.curves else 0

  @property
  def halvings(self) -> int:
    """Number of times that the learning rate was halved (config.on_nan=halve)."""
    return int(self.curves["train/halved"][1].sum()) if "train/halved" in self.curves else 0

  @property
  def error(self) -> float | int:
    """Squared error per test example."""
    return self.metrics["test/squared_error"]

  @property
  def unit(self) -> str:
    """Unit of `error` and `pca`, such as "in squared standard deviations"; "" without scaling."""
    schema = schemas.from_json(self.description["data"].get("schema"))
    return standardisation.squared_unit(self.settings.get("data.scale"), schema)

  @property
  def pca(self) -> float | int:
    """Squared error per test example of the PCA baseline."""
    return self.metrics[metric_names.pca_key(self.metrics)]

  @property
  def pca_in_words(self) -> str:
    """Sentence that defines the PCA baseline of the run, see `evaluators.pca`; it has no full stop."""
    has_targets = "test/input_squared_error" in self.metrics  # a metric of runs with targets
    tested, fitted_to = ("input", "targets") if has_targets else ("example", "examples")
    gaps = ", with means in place of missing values," if "mask_fingerprint" in self.description["data"] else ""
    size = "quantised to as many bits as the latent code" if self.is_quantised else "as many as the latent size"
    return (
      f"baseline PCA: each test {tested}{gaps} is projected onto the principal components of the training {fitted_to}, "
      f"{size}{'; the result is compared with the target' if has_targets else ''}"
    )

  @property
  def is_quantised(self) -> bool:
    """True if the latent code is discrete. The PCA baseline is then quantised to the same number of bits."""
    return metric_names.pca_key(self.metrics) == metric_names.QUANTISED_PCA

  @property
  def mean_predictor(self) -> float | int | None:
    """Squared error per test example of predicting the mean training example; None for runs of earlier versions."""
    return self.metrics.get("test/mean_predictor_squared_error")

  @property
  def settings(self) -> dict[str, Any]:
    """Config as {dotted key: value}."""
    return configs.flat(self.description["config"])

  @property
  def latent(self) -> int:
    """Number of values in a latent code."""
    return self.description.get("code", {}).get("numbers", self.settings["model.latent"])

  @property
  def elements(self) -> int:
    """Number of values in an example."""
    return math.prod(self.description["data"]["shape"])

  @property
  def auroc_interval(self) -> str:
    """The interval of test/auroc as text; "" before the evaluator `anomaly` has measured it, after the training."""
    low, high = (self.metrics.get(f"anomaly/auroc_{end}/squared_error", math.nan) for end in ("low", "high"))
    return f"95 % interval: {low:.3f} to {high:.3f}" if math.isfinite(low) and math.isfinite(high) else ""

  @property
  def is_gaussian(self) -> bool:
    """True if the bottleneck is gaussian, as in a VAE."""
    return self.settings.get("model.bottleneck") == "gaussian"

  @property
  def has_skips(self) -> bool:
    """True if the decoder also uses skip connections."""
    return self.settings.get("model.skips", "none") != "none"

  @property
  def active_units(self) -> float | int | None:
    """Number of active units of a gaussian bottleneck; None for other bottlenecks or without a measurement."""
    if not self.is_gaussian:
      return None
    return self.metrics.get("test/active_units", self.metrics.get("latent/active_units"))

  @property
  def diverged(self) -> bool:
    """True if the test error, loss or cross-entropy is not finite, or the cross-entropy exceeds `_DIVERGED_NATS`."""
    measured = [self.metrics[name] for name in ("test/squared_error", "test/loss", "test/nats") if name in self.metrics]
    too_high = self.metrics.get("test/nats", 0.0) > _DIVERGED_NATS * self.elements * math.log(2.0)
    return too_high or not bool(np.isfinite(measured).all())

  @property
  def has_later_test_set(self) -> bool:
    """True if the test set is the last part of a time series, in which anomalies are usually looked for."""
    return (self.description["data"].get("split") or {}).get("rule") == "time"

  @property
  def losses(self) -> tuple[float | int, float | int]:
    """Training and test loss; NaN if they were not measured."""
    return self.metrics.get("train/loss", math.nan), self.metrics.get("test/loss", math.nan)

  @property
  def tested(self) -> str:
    """Name of a test example over which errors are averaged."""
    return tested(self.settings.get("data.one_class"))

  @property
  def test_set(self) -> str:
    """Name of the examples over which the test loss is averaged, for sentences."""
    return f"the test set ({self.loss_examples})" if self.loss_examples else "the test set"

  @property
  def loss_has_anomalies(self) -> bool:
    """True if the test loss includes anomalies, as in runs of earlier versions on one class.

    Its difference from the training loss is then no sign of overfitting.
    """
    return self.settings.get("data.one_class") is not None and "test_anomalies" not in self.description["data"]

  @property
  def loss_examples(self) -> str:
    """Name of the examples over which the test and validation loss are averaged; "" if these are all."""
    if self.loss_has_anomalies:
      return "with anomalies"
    return "" if self.settings.get("data.one_class") is None else "normal examples"

  @property
  def loss_floor(self) -> float | int:
    """Lower bound of the loss: that of the cross-entropy for bernoulli, of the Gaussian numbers for mixed, else 0."""
    if self.settings.get("objective.likelihood") == "bernoulli":
      return self.metrics.get("test/nats_floor", 0.0)
    if not self.groups or self.settings.get("data.missing") == "mask":  # the number of observed elements is not known
      return 0.0
    numbers = self.elements - sum(stop - start for _, start, stop in self.groups)
    return 0.5 * math.log(2 * math.pi) * numbers

  @property
  def groups(self) -> Sequence[Sequence[Any]]:
    """Elements of the categories and booleans of a table if the likelihood is mixed, see `losses.Groups`; else ()."""
    return self.description["data"].get("groups", ())

  @property
  def penalty(self) -> str:
    """Config key of the weight of a loss term that makes reconstructions worse, with its value; "" without one."""
    key = _PENALTIES.get(self.settings.get("objective.name", ""), "")
    return self.setting(key) if self.settings.get(key) else ""

  @property
  def regularisation(self) -> list[str]:
    """Config keys that limit how closely a model fits the training examples, with their values, if they are not 0.

    The level of artificial noise counts only without targets, which replace this noise.
    """
    has_noise = self.settings.get("objective.name") == "denoising" and "test/input_squared_error" not in self.metrics
    keys = ["model.dropout", "optimizer.weight_decay", *(["objective.level"] if has_noise else [])]
    return [self.setting(key) for key in keys if self.settings.get(key)]

  @property
  def fell(self) -> trends.Fall | None:
    """Decrease in error over the second half of the main training stage, see `trends.fall`; None if it is unknown."""
    return trends.fall(self.curves, self.settings.get("epochs", math.inf))

  @property
  def rose(self) -> trends.Rise | None:
    """Rise of the test or validation error while the training loss fell, see `trends.rise`; None without one.

    It is also None for the likelihood mixed if the test loss did not rise, because this loss is not the squared error.
    """
    found = trends.rise(self.curves, self.loss_floor)
    return None if found and self.groups and not found.test_loss_rose else found

  @property
  def best_checkpoint(self) -> float | None:
    """Epoch of the checkpoint with the smallest error; None if the last checkpoint is the best."""
    epochs, errors = self.curves[metric_names.selection_key(self.curves)]
    every = self.settings.get("checkpoint_every_epochs", 1)
    saved = [index for index, epoch in enumerate(epochs[:-1]) if epoch % every == 0 and np.isfinite(errors[index])]
    best = min([*saved, len(epochs) - 1], key=lambda index: errors[index])
    return None if best == len(epochs) - 1 else float(epochs[best])

  def setting(self, key: str) -> str:
    """Returns "config.KEY=VALUE", as on the command line."""
    return f"config.{key}={self._text_of(key)}" if key in self.settings else f"config.{key}"

  def present(self, key: str) -> str:
    """Returns "config.KEY (now VALUE)", for advice that leaves the new value to the user."""
    return f"config.{key} (now {self._text_of(key)})" if key in self.settings else f"config.{key}"

  def _text_of(self, key: str) -> str:
    value = self.settings[key]
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def tested(one_class: int | str | None) -> str:
  """Returns the name of a test example over which errors are averaged; `one_class` is `config.data.one_class`."""
  return "test example" if one_class is None else "normal test example"


def share(ratio: float | int) -> str:
  """Formats a ratio as a percentage; a ratio in (0, 1) is never shown as 0% or 100%."""
  if 0 < ratio < 0.01:
    return "less than 1%"
  return "just under 100%" if 0.99 < ratio < 1 else f"{ratio:.0%}"


def number(value: float | int) -> str:
  """Formats a number with three decimals, or with three significant digits if it is very small or very large."""
  return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e6 else f"{value:.3g}"

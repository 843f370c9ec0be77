"""Verdict on a run: compares its error with the baselines, or names a failure and the config keys that may fix it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ae_jax import config as configs
from ae_jax.runs import metric_names

# A PCA error below this fraction of the data variance is a rounding error. For runs of earlier versions, whose data
# variance is unknown, the model's error replaces the variance.
_EXACT = 1e-6
# A run has diverged if its cross-entropy exceeds this multiple of the cross-entropy of predicting 0.5 everywhere.
_DIVERGED_NATS = 10
_FEW_ACTIVE = 0.1  # a gaussian bottleneck with a smaller fraction of active units has nearly collapsed
_OVERFIT = 1.5  # a larger ratio of test loss to training loss means overfitting

Metrics = Mapping[str, float | int]
Judgement = tuple[str, str | None]  # (sentences of the verdict, advice); the advice is None if there is none


@dataclasses.dataclass(frozen=True)
class Result:
  """Last value of each metric of a run, and the contents of config.json."""

  metrics: Metrics
  description: Mapping[str, Any]
  skipped: int = 0  # number of skipped steps, see `skipped_steps`

  @property
  def error(self) -> float | int:
    """Squared error per test example."""
    return self.metrics["test/squared_error"]

  @property
  def pca(self) -> float | int:
    """Squared error per test example of the PCA baseline."""
    return self.metrics[metric_names.pca_key(self.metrics)]

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
  def active_units(self) -> float | int | None:
    """Number of active units of a gaussian bottleneck; None for other bottlenecks or without a measurement."""
    if self.settings.get("model.bottleneck") != "gaussian":
      return None
    return self.metrics.get("test/active_units", self.metrics.get("latent/active_units"))

  @property
  def diverged(self) -> bool:
    """True if the test error, loss or cross-entropy is not finite, or the cross-entropy exceeds `_DIVERGED_NATS`."""
    measured = [self.metrics[name] for name in ("test/squared_error", "test/loss", "test/nats") if name in self.metrics]
    too_high = self.metrics.get("test/nats", 0.0) > _DIVERGED_NATS * self.elements * math.log(2.0)
    return too_high or not bool(np.isfinite(measured).all())

  def setting(self, key: str) -> str:
    """Returns "config.KEY=VALUE", as on the command line."""
    settings = self.settings
    return f"config.{key}={settings[key]}" if key in settings else f"config.{key}"


def of(result: Result, finished: bool = True) -> str:
  """Returns the verdict of the first rule that applies, followed by the advice of this rule if it gives any.

  Before training has ended (`finished` is False), only a diverged run gets advice. If skipped steps explain the result,
  the advice is left out, because `of_skipped` gives it.
  """
  rules = (_diverged, _constant, _near_mean, _low_rank, _better_than_pca, _no_better_than_pca)
  judgement, advice = next(filter(None, (rule(result) for rule in rules)))
  advised = result.diverged or finished
  if result.skipped and (result.diverged or 2 * result.skipped > result.metrics["step"]):
    advised = False
  return f"{judgement} {advice}" if advice and advised else judgement


def skipped_steps(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> int:
  """Returns the number of steps that were skipped (config.on_nan=skip); `curves` is the result of `logs.curves`."""
  return int(curves["train/skipped"][1].sum()) if "train/skipped" in curves else 0


def of_skipped(result: Result) -> str:
  """Returns sentences that state the number of skipped steps and give advice; "" if no step was skipped."""
  if not result.skipped:
    return ""
  verb = "was" if result.skipped == 1 else "were"
  return (
    f"{result.skipped:,} of {result.metrics['step']:,.0f} steps {verb} skipped because the loss or a gradient was not "
    f"finite. {_advice_on_divergence(result)}"
  )


def _advice_on_divergence(result: Result) -> str:
  """Returns advice on how to avoid divergence."""
  clip = " or set config.optimizer.clip_norm above 0" if result.settings.get("optimizer.clip_norm") == 0 else ""
  return f"Lower {result.setting('optimizer.learning_rate')}{clip}."


def _advice_on_training(result: Result) -> str:
  return f"Check {result.setting('optimizer.learning_rate')} and {result.setting('epochs')}."


def _diverged(result: Result) -> Judgement | None:
  return ("Training diverged.", _advice_on_divergence(result)) if result.diverged else None


def _constant(result: Result) -> Judgement | None:
  if result.mean_predictor == 0:
    return "Each test example equals the mean training example, so the data has no variation to learn.", None
  return None


def _near_mean(result: Result) -> Judgement | None:
  """Rule for posterior collapse, and for models that are no better than predicting the mean training example."""
  mean = result.mean_predictor
  no_better = mean is not None and result.error >= mean
  judgement = (
    f"The model is no better than predicting the mean training example (error {number(mean)})" if no_better else ""
  )
  if result.active_units == 0:
    collapsed = f"None of the {result.latent:,} latent units is active (posterior collapse)."
    return f"{judgement}. {collapsed}" if no_better else collapsed, _advice_on_collapse(result)
  if not no_better:
    return None
  train, test = (result.metrics.get(f"{split}/loss", math.nan) for split in ("train", "test"))
  if 0 < _OVERFIT * train < test:
    losses = f"It is overfitting: the loss is {number(test)} on the test set and {number(train)} on the training set."
    return f"{judgement}. {losses}", "Use more training examples or a smaller model."
  return f"{judgement}: it has learned nothing that helps on test examples.", _advice_on_training(result)


def _advice_on_collapse(result: Result) -> str:
  """Returns advice on how to avoid posterior collapse."""
  if not result.settings.get("objective.beta"):
    return _advice_on_training(result)
  return (
    f"Lower {result.setting('objective.beta')}, warm it up with config.schedules, or raise config.objective.free_bits."
  )


def _low_rank(result: Result) -> Judgement | None:
  """Rule for data that PCA reconstructs exactly except for rounding errors; no model can be better on such data."""
  variance = result.mean_predictor or result.error
  if result.is_quantised or not result.pca <= _EXACT * variance:
    return None
  if result.latent >= result.elements:
    reason = "the latent code is at least as large as an example"
  else:
    reason = f"the test examples lie in a space of {result.latent:,} dimensions or fewer"
  relative = ""
  if result.mean_predictor:
    ratio = share(result.error / result.mean_predictor)
    relative = f" The model's error is {ratio} of the error of predicting the mean training example."
  return f"PCA is nearly exact, because {reason}.{relative}", None


def _better_than_pca(result: Result) -> Judgement | None:
  if result.error >= result.pca:
    return None
  skips = ", but the decoder also uses skip connections" if _has_skips(result) else ""
  return f"The model's error is {share(result.error / result.pca)} of the PCA error{skips}.", None


def _has_skips(result: Result) -> bool:
  return result.settings.get("model.skips", "none") != "none"


def _no_better_than_pca(result: Result) -> Judgement:
  """Fallback rule: returns the verdict for runs that no earlier rule matched."""
  judgement = "The model is no better than PCA"
  active = result.active_units
  if active is not None and active < _FEW_ACTIVE * result.latent:
    verb = "is" if active == 1 else "are"
    return f"{judgement}, and only {active:.0f} of the {result.latent:,} latent units {verb} active.", (
      _advice_on_collapse(result)
    )
  if result.is_quantised:
    return f"{judgement}.", "Train longer, change the learning rate, or use more latent units or levels."
  if str(result.settings.get("model.bottleneck")).startswith("fsq"):  # a run of an earlier version
    return (
      f"{judgement}.",
      "Use more latent units or levels. This PCA baseline is not quantised, unlike the latent code.",
    )
  return f"{judgement}.", "Train longer or change the learning rate."


def share(ratio: float | int) -> str:
  """Formats a ratio as a percentage; a ratio in (0, 1) is never shown as 0% or 100%."""
  if 0 < ratio < 0.01:
    return "less than 1%"
  return "just under 100%" if 0.99 < ratio < 1 else f"{ratio:.0%}"


def number(value: float | int) -> str:
  """Formats a number with three decimals, or with three significant digits if it is very small or very large."""
  return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e6 else f"{value:.3g}"

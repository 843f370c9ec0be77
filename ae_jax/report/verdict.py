"""The verdict on a run: its error beside that of the baselines, or what went wrong and which key may mend it."""

import dataclasses
import math

import numpy as np

from ae_jax import config as configs
from ae_jax.runs import metric_names

_EXACT = 1e-6  # share of the data's variance (or of the error) below which PCA's error is rounding
_ABSURD_NATS = 10  # times the cross-entropy of predicting 0.5 everywhere
_FEW = 0.1  # share of the latent units: with fewer active ones a gaussian bottleneck has nearly collapsed
_OVERFIT = 1.5  # times the training loss


@dataclasses.dataclass(frozen=True)
class Result:
  """The last metrics of a run, and what config.json says of it."""

  metrics: dict[str, float]
  description: dict
  skipped: int = 0  # steps, see `skipped_steps`

  @property
  def error(self) -> float:
    """Squared error per test example."""
    return self.metrics["test/squared_error"]

  @property
  def pca(self) -> float:
    """Squared error per test example of PCA."""
    return self.metrics[metric_names.pca_key(self.metrics)]

  @property
  def is_quantised(self) -> bool:
    """True if the latent code is discrete, and PCA has as many bits."""
    return metric_names.pca_key(self.metrics) == metric_names.QUANTISED_PCA

  @property
  def mean_predictor(self) -> float | None:
    """Squared error per test example of the mean training example; None in runs of earlier versions."""
    return self.metrics.get("test/mean_predictor_squared_error")

  @property
  def settings(self) -> dict:
    """The config by dotted keys."""
    return configs.flat(self.description["config"])

  @property
  def latent(self) -> int:
    """The numbers in a latent code."""
    return self.description.get("code", {}).get("numbers", self.settings["model.latent"])

  @property
  def elements(self) -> int:
    """The numbers in an example."""
    return math.prod(self.description["data"]["shape"])

  @property
  def active_units(self) -> float | None:
    """Active units of a gaussian bottleneck; None for other bottlenecks and where they were not counted."""
    if self.settings.get("model.bottleneck") != "gaussian":
      return None
    return self.metrics.get("test/active_units", self.metrics.get("latent/active_units"))

  @property
  def diverged(self) -> bool:
    """True if a test error or loss is not finite, or the cross-entropy is far above that of an untrained model."""
    measured = [self.metrics[name] for name in ("test/squared_error", "test/loss", "test/nats") if name in self.metrics]
    absurd = self.metrics.get("test/nats", 0.0) > _ABSURD_NATS * self.elements * math.log(2.0)
    return absurd or not np.isfinite(measured).all()

  def setting(self, key: str) -> str:
    """A key of the config and its value, as a flag of the command line has them."""
    settings = self.settings
    return f"config.{key}={settings[key]}" if key in settings else f"config.{key}"


def of(result: Result, finished: bool = True) -> str:
  """Returns the verdict as a clause, with advice where there is any.

  A run that is not `finished` gets advice only if it diverged. Where `of_skipped` gives the advice, this does not.
  """
  rules = (_diverged, _constant, _near_mean, _low_rank, _better_than_pca, _no_better_than_pca)
  judgement, advice = next(filter(None, (rule(result) for rule in rules)))
  advised = result.diverged or finished
  if result.skipped and (result.diverged or 2 * result.skipped > result.metrics["step"]):
    advised = False
  return f"{judgement}: {advice}" if advice and advised else judgement


def skipped_steps(curves: dict) -> int:
  """Returns how many steps were skipped (config.on_nan=skip), from what `logs.curves` gives."""
  return int(curves["train/skipped"][1].sum()) if "train/skipped" in curves else 0


def of_skipped(result: Result) -> str:
  """Returns a sentence on the skipped steps, "" where there are none."""
  if not result.skipped:
    return ""
  were = "was" if result.skipped == 1 else "were"
  return (
    f"{result.skipped:,} of {result.metrics['step']:,.0f} steps {were} skipped, because the loss or a gradient was not "
    f"finite: {_slower(result)}."
  )


def _slower(result):
  clip = " or set config.optimizer.clip_norm" if result.settings.get("optimizer.clip_norm") == 0 else ""
  return f"lower {result.setting('optimizer.learning_rate')}{clip}"


def _diverged(result):
  return ("the training diverged", _slower(result)) if result.diverged else None


def _constant(result):
  if result.mean_predictor == 0:
    return "each test example equals the mean training example, so there is nothing for a model to tell apart", None
  return None


def _near_mean(result):
  """A collapsed posterior, or an error that is not below that of the mean training example."""
  mean = result.mean_predictor
  no_better = mean is not None and result.error >= mean
  judgement = f"that is no better than the mean training example ({number(mean)})" if no_better else ""
  if result.active_units == 0:
    collapsed = f"none of the {result.latent:,} latent units is active (posterior collapse)"
    return f"{judgement}, and {collapsed}" if no_better else collapsed, _freer(result)
  if not no_better:
    return None
  train, test = (result.metrics.get(f"{half}/loss", math.nan) for half in ("train", "test"))
  if 0 < _OVERFIT * train < test:
    losses = f"the loss is {number(test)} on the test set and {number(train)} on the training set"
    return f"{judgement}, and {losses} (overfitting)", "use more training examples or a smaller model"
  advice = f"check {result.setting('optimizer.learning_rate')} and {result.setting('epochs')}"
  return f"{judgement}, so the model has learned nothing that helps on test examples", advice


def _freer(result):
  """Advice against posterior collapse."""
  if not result.settings.get("objective.beta"):
    return f"check {result.setting('optimizer.learning_rate')} and {result.setting('epochs')}"
  return (
    f"lower {result.setting('objective.beta')}, warm it up with config.schedules, or raise config.objective.free_bits"
  )


def _low_rank(result):
  """PCA's error is rounding: no model can do better, whatever its error is."""
  variance = result.mean_predictor or result.error
  if result.is_quantised or not result.pca <= _EXACT * variance:
    return None
  if result.latent >= result.elements:
    why = "the latent code is at least as large as an example"
  else:
    why = f"the test examples lie in a space of {result.latent:,} dimensions or fewer"
  beside = ""
  if result.mean_predictor:
    beside = f"; the error is {share(result.error / result.mean_predictor)} of the mean training example's"
  return f"PCA loses next to nothing, since {why}{beside}", None


def _better_than_pca(result):
  if result.error >= result.pca:
    return None
  skips = ", but the decoder also sees skip connections" if _has_skips(result) else ""
  return f"that is {share(result.error / result.pca)} of PCA's{skips}", None


def _has_skips(result):
  return result.settings.get("model.skips", "none") != "none"


def _no_better_than_pca(result):
  """The last rule, with advice on how to get below PCA's error."""
  judgement = "that is no better than PCA"
  active = result.active_units
  if active is not None and active < _FEW * result.latent:
    judgement += (
      f", and only {active:.0f} of the {result.latent:,} latent units {'is' if active == 1 else 'are'} active"
    )
    return judgement, _freer(result)
  if result.is_quantised:
    return judgement, "train longer or change the learning rate, or give the code more units or levels"
  if str(result.settings.get("model.bottleneck")).startswith("fsq"):  # a run of an earlier version
    return judgement, "give the code more units or levels, since PCA's numbers are not rounded to a few levels"
  return judgement, "train longer or change the learning rate"


def share(ratio: float) -> str:
  """Returns a ratio below 1 in per cent, without rounding to 0% or 100%."""
  if 0 < ratio < 0.01:
    return "less than 1%"
  return "just under 100%" if 0.99 < ratio < 1 else f"{ratio:.0%}"


def number(value: float) -> str:
  """Returns a number with three decimals, or with three significant digits where decimals would mislead."""
  return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e6 else f"{value:.3g}"

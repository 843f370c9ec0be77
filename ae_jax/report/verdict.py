"""Verdict on a run: compares its error with the baselines, or names a failure and the config keys that may fix it."""

from ae_jax.report import diagnosis, underfitting
from ae_jax.report.measured import Result, number, share

# A PCA error below this fraction of the data variance is a rounding error; columns in different units may lower a true
# error to 1e-8 of it. For runs of earlier versions, the variance is unknown, and the model's error is used instead.
_EXACT = 1e-9

Judgement = tuple[str, str | None]  # (sentences of the verdict, advice); the advice is None if there is none

# Rules of `diagnosis` that explain a bad result, in the order in which they are tried.
_EXPLAIN_BAD = (
  diagnosis.unset_anomalies,
  diagnosis.high_rate,
  diagnosis.saturated_outputs,
  diagnosis.overfitting,
  diagnosis.wide_gap,
  diagnosis.few_steps,  # before the rules for outputs and latents, because an untrained model does not use its latents
  diagnosis.constant_outputs,
  diagnosis.ignored_code,
  diagnosis.dead_units,
  diagnosis.still_falls,
)
_EXPLAIN_GOOD = (
  diagnosis.unset_anomalies,
  diagnosis.ignored_code,
  diagnosis.overfitting,
  diagnosis.falls_much,
  diagnosis.dead_units,
)


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


def of_skipped(result: Result) -> str:
  """Returns sentences that state the number of skipped steps and give advice; "" if no step was skipped."""
  if not result.skipped:
    return ""
  verb = "was" if result.skipped == 1 else "were"
  return (
    f"{result.skipped:,} of {result.metrics['step']:,.0f} steps {verb} skipped because the loss or a gradient was not "
    f"finite. {diagnosis.advice_on_divergence(result)}"
  )


def of_halvings(result: Result) -> str:
  """Returns sentences that state how many times the learning rate was halved; "" if it was not."""
  if not result.halvings:
    return ""
  count = "once" if result.halvings == 1 else f"{result.halvings} times"
  rate = result.settings["optimizer.learning_rate"] * 0.5**result.halvings
  last = "" if result.settings.get("stages") else f" to {rate:.3g}"
  return f"The learning rate was halved {count}{last}, because the training diverged; the steps were trained again."


def _diverged(result: Result) -> Judgement | None:
  return ("Training diverged.", diagnosis.advice_on_divergence(result)) if result.diverged else None


def _constant(result: Result) -> Judgement | None:
  if result.mean_predictor == 0:
    return "Each test example equals the mean training example, so the data has no variation to learn.", None
  return None


def _near_mean(result: Result) -> Judgement | None:
  """Returns a judgement if the posterior collapsed or the model is no better than the mean example; otherwise None."""
  mean = result.mean_predictor
  if mean is None or result.error < mean:
    return diagnosis.collapse(result)
  judgement = f"The model is no better than predicting the mean training example (error {number(mean)})"
  finding = diagnosis.first((diagnosis.collapse, *_EXPLAIN_BAD), result)
  if finding is None:
    return f"{judgement}: it has learned nothing that helps on test examples.", diagnosis.advice_on_training(result)
  return f"{judgement}. {finding[0]}", finding[1]


def _low_rank(result: Result) -> Judgement | None:
  """Returns a judgement if the PCA error is only a rounding error, so that no model can be better; otherwise None."""
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
  skips = ", but the decoder also uses skip connections" if result.has_skips else ""
  judgement = f"The model's error is {share(result.error / result.pca)} of the PCA error{skips}."
  finding = diagnosis.first(_EXPLAIN_GOOD, result)
  return (f"{judgement} {finding[0]}", finding[1]) if finding else (judgement, None)


def _no_better_than_pca(result: Result) -> Judgement:
  """Returns the judgement on runs to which no earlier rule applies."""
  finding, advice = diagnosis.first((diagnosis.few_active, *_EXPLAIN_BAD), result) or underfitting.finding(result)
  return f"The model is no better than PCA. {finding}", advice

"""Diagnosis of a run: rules that name the probable cause of a bad result, and the change most likely to help.

Each rule returns a `Finding`, or None if it does not apply. `_STILL_FALLS` was chosen on a dozen runs on digits, wine
and breast_cancer; the other thresholds are estimates.
"""

import math
from collections.abc import Callable, Sequence

from ae_jax.report.measured import ADAPTIVE, USUAL_RATE, Result, number, share
from ae_jax.report.trends import TEST_ERROR, Fall

_FEW_ACTIVE = 0.1  # a gaussian bottleneck with a smaller fraction of active units has nearly collapsed
_COLLAPSED_NATS = 0.01  # KL per latent unit below which the posterior has collapsed
_OVERFIT = 1.5  # ratio of test to training loss, both minus their lower bound, above which a model is overfitting
_OVERFIT_GAP = 0.02  # minimum difference of the losses, relative to the test loss; their lower bounds differ by less
_OVERLAPPING = 4  # advised number of windows that contain a step, if more windows are needed
_ROSE = 1.1  # ratio of the last error to the smallest error that means overfitting
_ROSE_STEADILY = 1.03  # the same if the error rose in most of several evaluations, and so did the test loss
_IGNORED = 1.02  # value of latent/shuffle_ratio below which the decoder ignores the latent code
_CONSTANT = 1e-4  # variance of reconstructions, relative to the data, below which the reconstructions are nearly equal
_SATURATED = 0.1  # fraction of outputs that are wrong and at an end of the data range, above which this is a fault
_MOSTLY = 0.5  # fraction of dead units above which this is a fault
_FEW_ENTRIES = 0.1  # fraction of codebook vectors in use below which this is a fault
_STILL_FALLS = 0.08  # relative decrease in error over the second half of training above which training was too short
_FALLS_MUCH = 0.25  # the same for a model that is better than PCA
_FEW_STEPS, _ENOUGH_STEPS = 200, 1000
_SMALL_BATCH = 16
_HIGH_RATE = 0.03  # learning rates above it are high for the optimizers in `ADAPTIVE`

Finding = tuple[str, str]  # (sentences, advice)
Rule = Callable[[Result], Finding | None]


def first(rules: Sequence[Rule], result: Result) -> Finding | None:
  """Returns the finding of the first rule that applies; None if none applies."""
  return next(filter(None, (rule(result) for rule in rules)), None)


def advice_on_divergence(result: Result) -> str:
  """Returns advice on how to avoid divergence."""
  clip = " or set config.optimizer.clip_norm above 0" if result.settings.get("optimizer.clip_norm") == 0 else ""
  return f"Lower {result.setting('optimizer.learning_rate')}{clip}."


def advice_on_training(result: Result) -> str:
  """Returns advice for models that learned nothing for an unknown reason."""
  return f"Check {result.present('optimizer.learning_rate')} and {result.present('epochs')}."


def advice_on_collapse(result: Result) -> str:
  """Returns advice on how to avoid posterior collapse."""
  if not result.settings.get("objective.beta"):
    return advice_on_training(result)
  return (
    f"Lower {result.setting('objective.beta')}, warm it up with config.schedules, or raise config.objective.free_bits."
  )


def collapse(result: Result) -> Finding | None:
  """Returns a finding if the posterior has collapsed; otherwise None.

  In posterior collapse, no latent unit is active or, if this was not measured, the KL divergence is nearly 0.
  """
  kl = result.metrics.get("train/kl", math.inf)
  if result.active_units == 0:
    sentence = f"None of the {result.latent:,} latent units is active (posterior collapse)."
  elif result.is_gaussian and result.active_units is None and kl < _COLLAPSED_NATS * result.latent:
    sentence = f"The KL divergence is {number(kl)} nats, so the latent units carry nothing (posterior collapse)."
  else:
    return None
  return sentence, advice_on_collapse(result)


def few_active(result: Result) -> Finding | None:
  """Returns a finding if only few units of a gaussian bottleneck are active; otherwise None."""
  active = result.active_units
  if active is None or active >= _FEW_ACTIVE * result.latent:
    return None
  verb = "is" if active == 1 else "are"
  sentence = f"Only {active:.0f} of the {result.latent:,} latent units {verb} active."
  return sentence, advice_on_collapse(result)


def unset_anomalies(result: Result) -> Finding | None:
  """Returns a finding if test windows have labels of rare classes, but config.data.one_class is not set.

  Their errors count in the comparison with PCA, so it says little about the size of the model.
  """
  count = result.description["data"].get("unset_anomalies", 0)
  if not count:
    return None
  windows = "1 test window has" if count == 1 else f"{count:,} test windows have"
  normal = result.description["data"].get("usual_class", "0")  # earlier versions know only the labels 0 and 1
  return (
    f"{windows} labels of rare classes, such as anomalies, and count in both errors.",
    f"Set config.data.one_class={normal}, so that training and errors are of the normal windows.",
  )


def constant_outputs(result: Result) -> Finding | None:
  """Returns a finding if all reconstructions are nearly equal; otherwise None."""
  if not result.metrics.get("reconstruction/variance_ratio", math.inf) < _CONSTANT:
    return None
  return "All reconstructions are nearly equal.", advice_on_divergence(result)


def ignored_code(result: Result) -> Finding | None:
  """Returns a finding if the latent codes of other examples give nearly the same error; otherwise None."""
  if not result.metrics.get("latent/shuffle_ratio", math.inf) < _IGNORED:
    return None
  sentence = "The decoder ignores the latent code: latent codes of other examples give the same error."
  if result.has_skips:
    return sentence, "If the latent code is needed, set config.model.skips=none."
  return sentence, advice_on_collapse(result) if result.is_gaussian else advice_on_divergence(result)


def saturated_outputs(result: Result) -> Finding | None:
  """Returns a finding if many outputs are wrong and at an end of the data range; otherwise None."""
  wrong = result.metrics.get("reconstruction/saturated", 0.0)
  if not wrong > _SATURATED:
    return None
  return f"The output is saturated: {share(wrong)} of its values are wrong and at an end of the data range.", (
    advice_on_divergence(result)
  )


def dead_units(result: Result) -> Finding | None:
  """Returns a finding if most latent units, or nearly all codebook vectors, are not used; otherwise None."""
  used = result.metrics.get("test/codebook_entries")
  size = result.settings.get("model.codebook_size")
  if used is not None and size and used < _FEW_ENTRIES * size:
    sentence = f"Only {used:,.0f} of the {size:,} codebook vectors are used."
    return sentence, f"Raise {result.setting('model.revive_below')} or lower {result.setting('model.codebook_size')}."
  dead = result.metrics.get("test/dead_units", result.metrics.get("latent/dead_units", 0))
  if result.is_quantised or result.is_gaussian or not dead > _MOSTLY * result.latent:
    return None
  sentence = f"{dead:,.0f} of the {result.latent:,} latent units are dead: no test example activates them."
  if result.penalty:
    return sentence, f"Lower {result.penalty}."
  return sentence, f"Lower {result.setting('optimizer.learning_rate')} or set config.model.bottleneck=identity."


def overfitting(result: Result) -> Finding | None:
  """Returns a finding if the test or validation error has risen from its minimum; otherwise None."""
  rose = result.rose
  if not rose:
    return None
  limit = _ROSE_STEADILY if rose.is_steady and rose.test_loss_rose else _ROSE
  if rose.last <= limit * rose.smallest:
    return None
  sentence = (
    f"It is overfitting: the {rose.split} error rose from {number(rose.smallest)} after epoch {rose.epoch:g} to "
    f"{number(rose.last)}, while the training loss fell."
  )
  return sentence, _advice_on_rise(result)


def wide_gap(result: Result) -> Finding | None:
  """Returns a finding if the test loss is far above the training loss; otherwise None.

  Only bad results need this rule: a large gap is usual even for good models that are trained on few examples.
  """
  train, test = result.losses
  is_mostly_penalty = bool(result.penalty) and test > 2 * result.metrics.get("test/nats", math.inf)
  if is_mostly_penalty or result.loss_has_anomalies:
    return None
  above = train - result.loss_floor
  is_wide = 0 < _OVERFIT * above < test - result.loss_floor and test - train > _OVERFIT_GAP * abs(test)
  if result.settings.get("ema_decay") or not is_wide:  # averaged parameters lag behind, so their test loss is higher
    return None
  losses = f"the loss is {number(test)} on {result.test_set} and {number(train)} on the training set."
  if result.has_later_test_set:
    causes = "a drift" if result.loss_examples else "anomalies or a drift"  # labelled anomalies are not in the loss
    text = f"It is overfitting, or the test set, the end of the time series, has {causes}"
    scores = "run.score_record of the recording" if result.settings.get("data.window") else "run.score"
    return f"{text}: {losses}", f"Look at {scores} over time first. {_advice_on_gap(result)}"
  return f"It is overfitting: {losses}", _advice_on_gap(result)


def _advice_on_rise(result: Result) -> str:
  epoch = result.best_checkpoint
  if epoch is None:
    return f'Lower {result.setting("checkpoint_every_epochs")}, and load the checkpoint with which="best".'
  return f'Use the best checkpoint, of epoch {epoch:g}: ae_jax.load(..., which="best"). {_advice_on_gap(result)}'


def _advice_on_gap(result: Result) -> str:
  dropout = ", config.model.dropout=0.1" if result.settings.get("model.dropout") == 0 else ""
  window = result.settings.get("data.window") or 0
  stride, few = window // _OVERLAPPING, result.settings.get("data.stride") or window
  more = f"config.data.stride={stride} for more windows" if 0 < stride < few else "more training examples"
  return f"Use {more}{dropout} or a smaller model."


def high_rate(result: Result) -> Finding | None:
  """Returns a finding if the learning rate is unusually high for an adaptive optimizer; otherwise None."""
  rate, name = result.settings.get("optimizer.learning_rate", 0.0), result.settings.get("optimizer.name")
  if name not in ADAPTIVE or rate <= _HIGH_RATE:
    return None
  return (
    f"The learning rate is high for {name}.",
    f"Lower {result.setting('optimizer.learning_rate')} to {USUAL_RATE}.",
  )


def few_steps(result: Result) -> Finding | None:
  """Returns a finding if the run had too few training steps to change the model much; otherwise None."""
  if result.metrics["step"] >= _FEW_STEPS:
    return None
  falls = [_on_fall(result.fell)] if result.fell and result.fell.share > _STILL_FALLS else []
  return " ".join([*falls, _on_steps(result)]), _advice_on_length(result)


def still_falls(result: Result) -> Finding | None:
  """Returns a finding if the error still falls and longer training would reach the PCA error; otherwise None."""
  if result.fell is None or result.fell.share <= _STILL_FALLS or not _would_reach_pca(result):
    return None
  steps = [_on_steps(result)] if result.metrics["step"] < _ENOUGH_STEPS else []
  return " ".join([_on_fall(result.fell), *steps]), _advice_on_length(result)


def _would_reach_pca(result: Result) -> bool:
  """Returns whether training twice as long would reach the PCA error if the test error fell by the same ratio again.

  The result is True if there is only one evaluation, because `fell` then describes the training loss.
  """
  return result.fell.name != TEST_ERROR or result.error * (1 - result.fell.share) <= result.pca


def falls_much(result: Result) -> Finding | None:
  """Returns a finding if the error of a good model still fell fast at the end of training; otherwise None."""
  if result.fell is None or result.fell.share <= _FALLS_MUCH:
    return None
  return _on_fall(result.fell), _advice_on_length(result)


def _on_steps(result: Result) -> str:
  steps = result.metrics["step"]
  return f"It was trained for only {steps:,.0f} step{'' if steps == 1 else 's'}."


def _on_fall(fell: Fall) -> str:
  epochs = "epoch" if fell.epochs == 1 else f"{fell.epochs:.3g} epochs"
  rate = f", {fell.per_epoch:.1%} per epoch" if fell.epochs > 1 else ""
  return f"The {fell.name} still fell by {share(fell.share)} in the last {epochs}{rate}."


def _advice_on_length(result: Result) -> str:
  """Returns advice to train longer: the number of epochs or, if an epoch has few steps, a smaller batch size."""
  epochs, batch_size = (result.settings.get(key) for key in ("epochs", "batch_size"))
  if not epochs:
    return f"Raise {result.setting('epochs')}."
  for limit, key in (("max_minutes", "max_minutes"), ("early_stopping.metric", "early_stopping.patience")):
    if result.settings.get(limit) and result.metrics["epoch"] < epochs:
      return f"Raise {result.setting(key)}, which stopped the training."
  per_epoch = max(1.0, result.metrics["step"] / max(1.0, result.metrics["epoch"]))
  wanted = max(2 * epochs, 10 * math.ceil(_ENOUGH_STEPS / per_epoch / 10))
  smaller = ""
  if result.metrics["step"] < _ENOUGH_STEPS and batch_size and batch_size > _SMALL_BATCH:
    smaller = f", or lower {result.setting('batch_size')} to {_SMALL_BATCH} for more steps per epoch"
  return f"Raise {result.setting('epochs')} to {wanted}{smaller}."

"""Finding and advice for a model that is no better than PCA if no rule of `diagnosis` explains it."""

import math

from ae_jax.models import linear_paths
from ae_jax.report.diagnosis import Finding
from ae_jax.report.measured import ADAPTIVE, USUAL_RATE, Result, number
from ae_jax.system import paths

_LOW_RATE = 3e-4  # learning rates below it are low for the optimizers in `ADAPTIVE`
_OTHER_LOSS = (
  "PCA minimises the squared error; the loss with config.objective.likelihood=mixed is the cross-entropy of categories "
  "and booleans, which can be small although this error is not."
)
_BY_COLUMN = (
  "Compare the errors of the columns in the report, or set config.objective.likelihood=gaussian to minimise the "
  "squared error."
)


def finding(result: Result) -> Finding:
  """Returns the finding for a model that is worse than PCA if no other rule explains the result."""
  if result.groups:
    return _OTHER_LOSS, f"Lower {result.penalty}. {_BY_COLUMN}" if result.penalty else _BY_COLUMN
  train, test = result.losses
  is_measured = math.isfinite(train) and math.isfinite(test)
  losses = f": the loss is {number(train)} on the training set and {number(test)} on {result.test_set}"
  losses += f"; their lower bound is {number(result.loss_floor)}" if result.loss_floor else ""
  return f"It is underfitting{losses if is_measured else ''}.", _advice(result)


def _advice(result: Result) -> str:
  settings = result.settings
  if result.is_quantised and not result.regularisation:
    return "Use more latent units or levels, or a larger model."
  if str(settings.get("model.bottleneck")).startswith("fsq"):  # a run of an earlier version
    return "Use more latent units or levels. This PCA baseline is not quantised, unlike the latent code."
  limits = [*([result.penalty] if result.penalty else []), *result.regularisation]
  path = "set config.model.linear_path=pca, which starts the training at PCA" if _can_have_linear_path(result) else ""
  changes = [f"lower {_listed(limits)}"] if limits else []
  changes += [path] if path else []
  if result.regularisation and not path and result.settings.get("model.name") == "table":
    changes.append(_automatic(result))
  if changes:
    text = ", or ".join(changes)
    return f"{text[0].upper()}{text[1:]}."
  if settings.get("optimizer.name") in ADAPTIVE and settings.get("optimizer.learning_rate", 1.0) < _LOW_RATE:
    return f"Raise {result.setting('optimizer.learning_rate')} to {USUAL_RATE}."
  return _advice_on_size(result)


def _can_have_linear_path(result: Result) -> bool:
  """Returns whether the model has no linear path but can have one (see the config key `model.linear_path`)."""
  options = result.description["config"]["model"]
  return (
    options.get("linear_path") == "none"
    and linear_paths.resolved({**options, "linear_path": "auto"})["linear_path"] == "pca"
  )


def _advice_on_size(result: Result) -> str:
  """Returns advice to use a larger model, with the config key of its size, or more examples if it is large already."""
  key = next((key for key in ("model.widths", "model.channels", "model.width") if key in result.settings), None)
  if key == "model.widths" and not result.settings[key]:
    return "Add a hidden layer: config.model.widths=256."
  if result.settings.get("model.name") == "table":
    text = _automatic(result)
    return f"{text[0].upper()}{text[1:]}."
  if result.description.get("parameters", 0) > result.description["data"]["train"] * result.elements:
    few = "The model has more parameters than the training set has values, so a larger one will hardly help"
    return f"{few}: use more training examples, or change {result.present('optimizer.learning_rate')}."
  if key is None:
    return "Use a larger model, or change the learning rate."
  if not result.settings[key]:  # chosen from the data
    return f"Use a larger model, such as config.{key}=512, or change {result.present('optimizer.learning_rate')}."
  return f"Use a larger model: increase {result.present(key)}, or change {result.present('optimizer.learning_rate')}."


def _automatic(result: Result) -> str:
  """Returns how to train with the automatic config: the flag, or the Python call for a run of `ae_jax.fit`."""
  if result.description.get("command"):
    source = result.settings.get("data.path") or result.settings["data.name"]
    call = paths.command_line([f"--config=auto:{source}"])
  else:
    call = "ae_jax.fit(x) without `model`"
  return f"use {call}, with the same keys of config.data and config.model.latent: it starts at PCA"


def _listed(settings: list[str]) -> str:
  """Returns settings as a list in words: "a, b and c"."""
  *first, last = settings
  return f"{', '.join(first)} and {last}" if first else last

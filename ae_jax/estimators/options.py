"""Checks the config keys that a user passes to an estimator; keys without effect in a fit in memory raise UserError."""

from collections.abc import Mapping
from typing import Any

from ae_jax import config as configs
from ae_jax import errors, overrides
from ae_jax.config.keys import AUTO

# `shorten` is off, because it measures the speed of training with a run folder
FIXED = {"data.range": "real", "data.scale": "none", "data.kind": "table", "evaluators": (), "shorten": False}
# partial_fit uses no schedules, because each call would restart them
PARTIAL = {"optimizer.schedule": "constant", "optimizer.warmup_epochs": 0.0, "schedules": ()}
_OF_DATA = ("data.placement", "data.budget_gib")  # keys of the section `data` that have an effect
_UNMEASURED = "a fit of an estimator evaluates, logs and saves nothing while it trains; remove it, or use ae_jax.fit"
_REFUSED = {  # key or section -> why it has no effect, and the fix
  "data": "the estimators train on all rows of X as they are; remove it, and select or change rows before the fit",
  "early_stopping": _UNMEASURED,
  "eval_every_epochs": _UNMEASURED,
  "checkpoint_every_epochs": _UNMEASURED,
  "evaluators": _UNMEASURED,
  "trackers": _UNMEASURED,
  "seed": "the seed of the estimators is random_state; set that",
  "shorten": "the estimators do not measure the speed of a fit; remove it, and set fewer epochs for a shorter training",
}


def changes(options: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {dotted config key: value} for the keys that the user sets.

  Args:
    options: The argument `options` of an estimator.
    arguments: {dotted config key: value} from the other arguments of the estimator; a value of None means not set.

  Raises:
    UserError: A key has no effect in a fit in memory, or is given twice.
  """
  of_options = overrides.dotted(options or {})
  for key, value in configs.flat(of_options).items():
    _check(key, value)
  overrides.check_once((key for key, value in arguments.items() if value is not None), configs.flat(of_options))
  return overrides.with_keys(arguments, of_options)


def check_partial(of_user: Mapping[str, Any]) -> None:
  """Raises UserError if a key in `PARTIAL` has another value in `of_user`, a result of `changes`."""
  given = configs.flat(of_user)
  for key, value in PARTIAL.items():
    if given.get(key, value) != value:
      raise errors.UserError(
        f"{_format(key, given[key])}: partial_fit trains with {_format(key, value)}, because each call would start a "
        "schedule again; remove it, or use fit"
      )


def _check(key: str, value: Any) -> None:
  """Raises UserError if a config key, or this value of it, has no effect in a fit in memory."""
  if key == "optimizer.learning_rate" and value == AUTO:
    raise errors.UserError(
      f"{_format(key, value)}: the estimators do not run a range test; pass a number, or use ae_jax.fit"
    )
  if key in _OF_DATA:
    return
  for refused, reason in _REFUSED.items():
    if f"{key}.".startswith(f"{refused}."):
      raise errors.UserError(f"{_format(key, value)}: {reason}")


def _format(key: str, value: Any) -> str:
  return f"{overrides.argument(key)}={errors.format_value(value)}"

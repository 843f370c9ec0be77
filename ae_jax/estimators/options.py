"""Options of the estimators: values of config keys, without the keys that cannot act in a fit in memory."""

from collections.abc import Mapping
from typing import Any

from ae_jax import config as configs
from ae_jax import errors, fitting, overrides
from ae_jax.config.keys import AUTO

# `shorten` would measure the speed of a run with a folder
FIXED = {"data.range": "real", "data.scale": "none", "data.kind": "table", "evaluators": (), "shorten": False}
# each call of partial_fit would start a schedule again
PARTIAL = {"optimizer.schedule": "constant", "optimizer.warmup_epochs": 0.0, "schedules": ()}
_OF_DATA = ("data.placement", "data.budget_gib")  # keys of the section that act
_UNMEASURED = "a fit of an estimator evaluates, logs and saves nothing while it trains; remove it, or use ae_jax.fit"
_REFUSED = {  # key or section -> why it cannot act, and what to do
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
  """Returns the values of dotted config keys that the user sets.

  Args:
    options: The argument `options` of an estimator.
    arguments: {dotted config key: value} of the other arguments; None for those that are not set.

  Raises:
    UserError: A key cannot act, or is given twice.
  """
  of_options = overrides.dotted(options or {})
  for key, value in configs.flat(of_options).items():
    _check(key, value)
  fitting.check_once((key for key, value in arguments.items() if value is not None), configs.flat(of_options))
  return fitting.with_keys(arguments, of_options)


def check_partial(of_user: Mapping[str, Any]) -> None:
  """Raises UserError if a value of `changes` differs from that of `PARTIAL`."""
  given = configs.flat(of_user)
  for key, value in PARTIAL.items():
    if given.get(key, value) != value:
      raise errors.UserError(
        f"{_format(key, given[key])}: partial_fit trains with {_format(key, value)}, because each call would start a "
        "schedule again; remove it, or use fit"
      )


def _check(key: str, value: Any) -> None:
  """Raises UserError if a config key, or its value, cannot act in a fit in memory."""
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

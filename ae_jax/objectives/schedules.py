"""Schedules: numeric options of the objective as functions of the training step."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from ae_jax import errors
from ae_jax.types import AnyArray, Number

# Name -> function of t >= 0, the elapsed fraction of the schedule. The result 0 gives the value `start`, and the result
# 1 gives the value in the config.
SHAPES: dict[str, Callable] = {
  "constant": jnp.zeros_like,  # `start` until the schedule ends
  "linear": lambda t: t,
  "cosine": lambda t: 0.5 - 0.5 * jnp.cos(math.pi * t),
  "cyclic": lambda t: jnp.minimum(2.0 * (t % 1.0), 1.0),  # Fu et al. (2019), section 3.2, with R = 0.5
}

_KEYS = {"key", "name", "start"}


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Changes a value from `start` to the value in the config over `steps` steps, beginning at step `first`.

  "cyclic" repeats with a period of `steps` until training ends: the value changes linearly in the first half of a
  period and is constant in the second half. From step `first + steps` on, all other schedules return the value in the
  config.
  """

  name: str  # a key of SHAPES
  start: float
  steps: int
  first: int = 0

  def __call__(self, step: Any, stop: Number) -> Float[AnyArray, "..."]:
    """Returns the value at `step` (int32 scalar); `stop` is the value in the config."""
    t = (step - self.first).astype(jnp.float32) / self.steps
    fraction = SHAPES[self.name](t)
    fraction = fraction if self.name == "cyclic" else jnp.where(t < 1.0, fraction, 1.0)
    return self.start + (stop - self.start) * fraction


def build(entries: Sequence[Any], first: int, steps_per_epoch: int, last: int) -> tuple[tuple[str, Schedule], ...]:
  """Returns pairs (name of a numeric option of the objective, schedule) for the entries of `config.schedules`.

  Args:
    entries: Entries of `config.schedules`: dicts {"key": "objective.beta", "name": "linear", "start": 0.0, "epochs":
      10}, or with "steps" instead of "epochs".
    first: Step at which the training stage begins.
    steps_per_epoch: Number of steps per epoch.
    last: Step at which the training stage ends. A schedule, or one period of a cyclic schedule, must end by this step.

  Raises:
    UserError: If an entry is invalid.
  """
  schedules = {}
  for number, options in enumerate(entries):
    where = f"schedules[{number}]"
    unit = _check(where, options)
    name = options["key"].removeprefix("objective.")
    errors.check(
      name not in schedules,
      f"{where}.key",
      options["key"],
      "an option that no earlier entry of config.schedules names; keep one entry per option",
    )
    steps = round(options[unit] * (steps_per_epoch if unit == "epochs" else 1))
    most = last - first
    wanted = f"from 1 step to {most} steps ({most / steps_per_epoch:g} epochs), the length of the training stage"
    errors.check(1 <= steps <= most, f"{where}.{unit}", options[unit], wanted)
    schedules[name] = Schedule(options["name"], float(options["start"]), steps, first)
  return tuple(schedules.items())


def _check(where: str, options: Any) -> str:
  """Returns the unit of a schedule, "epochs" or "steps"; raises UserError if its options are invalid."""
  example = '{"key": "objective.beta", "name": "linear", "start": 0.0, "epochs": 10}'
  units = {"epochs", "steps"} & options.keys() if isinstance(options, dict) else set()
  valid = len(units) == 1 and options.keys() == _KEYS | units
  errors.check(valid, where, options, f'a dict such as {example}, or with "steps": 1000 instead of "epochs": 10')
  (unit,) = units
  in_objective = isinstance(options["key"], str) and options["key"].startswith("objective.")
  errors.check(in_objective, f"{where}.key", options["key"], "an option of config.objective, such as 'objective.beta'")
  errors.choose(SHAPES, options["name"], f"{where}.name")
  errors.check(errors.is_number(options["start"]), f"{where}.start", options["start"], "a number")
  errors.check(errors.is_number(options[unit]), f"{where}.{unit}", options[unit], "a number")
  return unit

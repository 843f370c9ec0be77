"""Schedules: numbers of the objective as functions of the training step."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ae_jax import errors

# name -> how much of the way from `start` to the config's number is done at a fraction t >= 0 of the schedule
SHAPES: dict[str, Callable] = {
  "constant": lambda t: jnp.zeros_like(t),  # `start`, then at once the config's number
  "linear": lambda t: t,
  "cosine": lambda t: 0.5 - 0.5 * jnp.cos(math.pi * t),
  "cyclic": lambda t: jnp.minimum(2.0 * (t % 1.0), 1.0),  # Fu et al. (2019), section 3.2, with R = 0.5
}

_KEYS = {"key", "name", "start"}


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A number's way from `start` to its value in the config over `steps` steps, counted from step `first`.

  "cyclic" repeats it until the end of the training: each period rises linearly in its first half and stays in its
  second. The other shapes end with the config's value.
  """

  name: str  # a key of SHAPES
  start: float
  steps: int
  first: int = 0

  def __call__(self, step: jax.Array, stop: float | jax.Array) -> jax.Array:
    """Returns the number at a step int32 [], float32 []."""
    t = (step - self.first).astype(jnp.float32) / self.steps
    done = SHAPES[self.name](t)
    done = done if self.name == "cyclic" else jnp.where(t < 1.0, done, 1.0)
    return self.start + (stop - self.start) * done


def build(described, first: int, steps_per_epoch: int, last: int) -> tuple[tuple[str, Schedule], ...]:
  """Returns the (name of the objective's number, schedule) that `config.schedules` describes; UserError.

  Args:
    described: dicts {"key": "objective.beta", "name": "linear", "start": 0.0, "epochs": 10}, or with "steps".
    first: the step at which the objective's stage of training begins.
    steps_per_epoch: steps of an epoch.
    last: the step at which the training ends; a schedule must end before, a cyclic one have a whole period.
  """
  built = {}
  for number, options in enumerate(described):
    where = f"schedules[{number}]"
    unit = _check(where, options)
    name = options["key"].removeprefix("objective.")
    errors.check(name not in built, f"{where}.key", options["key"], "a number that no other schedule names")
    steps = round(options[unit] * (steps_per_epoch if unit == "epochs" else 1))
    most = last - first
    errors.check(1 <= steps <= most, f"{where}.{unit}", options[unit], f"from 1 to all of the {most} steps of training")
    built[name] = Schedule(options["name"], float(options["start"]), steps, first)
  return tuple(built.items())


def _check(where, options):
  """Returns "epochs" or "steps", whichever the options of a schedule have; UserError."""
  example = '{"key": "objective.beta", "name": "linear", "start": 0.0, "epochs": 10}'
  units = {"epochs", "steps"} & options.keys() if isinstance(options, dict) else ()
  good = len(units) == 1 and options.keys() == _KEYS | units
  errors.check(good, where, options, f'a dict such as {example}, or with "steps"')
  (unit,) = units
  named = isinstance(options["key"], str) and options["key"].startswith("objective.")
  errors.check(named, f"{where}.key", options["key"], "a number of config.objective, such as 'objective.beta'")
  errors.choose(SHAPES, options["name"], f"{where}.name")
  errors.check(errors.is_number(options["start"]), f"{where}.start", options["start"], "a number")
  errors.check(errors.is_number(options[unit]), f"{where}.{unit}", options[unit], "a number")
  return unit

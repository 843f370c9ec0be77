"""Members of a sweep: one experiment per combination of values, and groups of members that can share a program."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import data, errors
from ae_jax.training import setup

_FIXED_KEYS = ("data", "parallel", "parallel_state", "compute_dtype", "on_nan", "checkpoint_every_epochs")
_EXAMPLES = {"latents": "--latents=2,4,8", "grid": "--grid optimizer.learning_rate=1e-3,3e-3"}


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep, named after its values, such as "latent=8,seed=1"; its run folder has the same name."""

  name: str
  axes: dict[str, Any]  # config key -> value
  experiment: setup.Experiment

  @property
  def latent(self) -> int:
    """The latent size."""
    return self.experiment.config.model.latent


def parse_axis(flag: str, text: str) -> tuple[str, list[int | float]]:
  """Parses KEY=NUMBER,NUMBER,... into (config key, values).

  Args:
    flag: Flag that the numbers come from, "latents" or "grid", for error messages.
    text: The text to parse.

  Raises:
    UserError: If the values are not distinct numbers.
  """
  key, _, values = text.partition("=")
  argument = f"--latents={values}" if flag == "latents" else f"--{flag} {text}"
  try:
    numbers = [int(value) if value.strip().lstrip("+-").isdecimal() else float(value) for value in values.split(",")]
  except ValueError:
    numbers = []
  check_numbers(argument, numbers, f"comma-separated numbers, such as {_EXAMPLES[flag]}")
  return key.removeprefix("config."), numbers


def check_numbers(argument: str, numbers: Sequence[Any], wanted: str) -> None:
  """Raises UserError unless the values of an axis are one or more distinct numbers."""
  if not numbers or not all(map(errors.is_number, numbers)):
    raise errors.UserError(f"{argument}: must be {wanted}")
  repeated = [number for number in numbers if numbers.count(number) > 1]
  if repeated:
    raise errors.UserError(f"{argument}: lists the number {repeated[0]} twice; list each number once")


def members(
  config: ConfigDict, keys: Sequence[str], points: Iterable[Sequence[Any]], dataset: data.Dataset | None = None
) -> list[Member]:
  """Returns one member for each combination of values.

  Args:
    config: Config of all members, except for the values of `keys`.
    keys: Dotted config keys in which the members differ.
    points: Values of `keys` for each member.
    dataset: The data set of the config; None to load it.

  Raises:
    UserError: If a key cannot vary within a sweep, occurs twice or has an invalid value, or if two members have the
      same values.
  """
  for key in keys:
    if keys.count(key) > 1:
      raise errors.UserError(
        f"--grid {key}: is already an axis of the sweep; give each key once, with all its values (--seeds sets seed, "
        "--latents sets model.latent)"
      )
  short_keys = _short_keys(keys)
  grid_members = []
  for values in points:
    member_config = ConfigDict(config.to_dict())
    texts = [_text(_set(member_config, key, value)) for key, value in zip(keys, values, strict=True)]
    experiment = setup.build_experiment(member_config.lock(), 1, dataset)
    dataset = experiment.dataset
    _check_on_device(dataset)
    name = ",".join(f"{short}={text}" for short, text in zip(short_keys, texts, strict=True))
    if any(member.name == name for member in grid_members):
      raise errors.UserError(
        f"--grid {name}: two grid points are equal after conversion to the types of the config; list each value once"
      )
    grid_members.append(Member(name, dict(zip(keys, values, strict=True)), experiment))
  return grid_members


def _check_on_device(dataset: data.Dataset) -> None:
  if dataset.streams:
    raise errors.UserError(
      "config.data.placement: a sweep keeps the data on the device, but this data set would be streamed; set "
      "config.data.placement to 'memory', or to 'auto' with a larger config.data.budget_gib"
    )


def packs(grid_members: Iterable[Member]) -> list[list[Member]]:
  """Groups members that can share a compiled program: they differ only in seed, latent size and numeric options.

  Members with different latent sizes share a program only if the latent code can be padded
  (`models.CodeSpec.size_axis`).
  """
  groups: dict[str, list[Member]] = {}
  for member in grid_members:
    groups.setdefault(_program(member.experiment), []).append(member)
  return list(groups.values())


def widest(members: Sequence[Member]) -> Member:
  """Returns the member with the largest latent size; smaller members are padded to its shapes."""
  return max(members, key=lambda member: member.latent)


def numbers(experiment: setup.Experiment) -> list[dict[str, dict[str, float]]]:
  """Returns the hyperparameters that a compiled program takes as arguments, for each training stage.

  Each list element is {"objective": {name: value}, "optimizer": {name: value}}.
  """
  stages = experiment.stages
  return [
    {"objective": stage.objective.numbers(), "optimizer": dict(stage.optimizer_factory.numbers)} for stage in stages
  ]


def _program(experiment: setup.Experiment) -> str:
  """Returns a string key of the compiled program; experiments with equal keys can share one program.

  The key omits the hyperparameters that the program takes as arguments (`numbers`). It includes the microbatch count,
  which can depend on one of them: for example, the ELBO needs the whole batch if free_bits is not 0.
  """
  config = configs.as_json(experiment.config)
  config["seed"] = None
  if experiment.model.code.size_axis is not None:
    config["model"]["latent"] = None
  config["optimizer"] |= dict.fromkeys(dict(experiment.stages[-1].optimizer_factory.numbers))
  *pretraining, last = [stage.objective.numbers() for stage in experiment.stages]
  for stage, floats in zip([*config["stages"], config], [*pretraining, last], strict=True):
    stage["objective"] |= dict.fromkeys(floats)
  config["microbatches"] = [stage.microbatches for stage in experiment.stages]
  return json.dumps(config, sort_keys=True)


def _set(config: ConfigDict, key: str, value: int | float) -> int | float:
  """Sets a numeric config key and returns the value, converted to the type of the previous value.

  Raises:
    UserError: If the key is not numeric or must not vary within a sweep, or if its previous value is an integer and
      `value` is not.
  """
  section, path = config, key.split(".")
  for name in path[:-1]:
    section = section.get(name) if isinstance(section, ConfigDict) else None
  current = section.get(path[-1]) if isinstance(section, ConfigDict) else None
  if path[0] in _FIXED_KEYS:
    raise errors.UserError(f"--grid {key}: must be the same for all members; run one sweep for each value")
  if not errors.is_number(current):
    raise errors.UserError(
      f"--grid {key}: is not a numeric config key; {errors.list_known(key, _numeric_keys(config))}"
    )
  if isinstance(current, int) and value != int(value):
    raise errors.UserError(f"--grid {key}={value}: must be an integer")
  section[path[-1]] = int(value) if isinstance(current, int) else float(value)
  return section[path[-1]]


def _text(value: int | float) -> str:
  """Formats a number for member names; different numbers of the same type get different texts.

  A float is written with at most nine significant digits if this is exact ("0.001", "2", "1e-05"), otherwise with as
  many digits as needed. The limit of nine digits keeps the folder names of earlier sweeps.
  """
  short = f"{value:.9g}"
  return str(value) if isinstance(value, int) or float(short) != value else short


def _numeric_keys(config: ConfigDict, prefix: str = "") -> list[str]:
  """Returns the dotted numeric config keys that can vary within a sweep."""
  keys = []
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      keys += _numeric_keys(value, f"{prefix}{key}.")
    elif errors.is_number(value) and f"{prefix}{key}".split(".")[0] not in _FIXED_KEYS:
      keys.append(f"{prefix}{key}")
  return keys


def _short_keys(keys: Sequence[str]) -> list[str]:
  """Returns the last part of each dotted key, or the whole key if another key has the same last part."""
  last_parts = [key.rpartition(".")[2] for key in keys]
  return [short if last_parts.count(short) == 1 else key for key, short in zip(keys, last_parts, strict=True)]

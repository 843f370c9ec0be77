"""The members of a sweep: a config for each point of a grid, and which of them can share a compiled program."""

import dataclasses
import json

from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.training import setup

_OF_THE_SWEEP = ("data", "parallel", "parallel_state", "compute_dtype", "on_nan", "checkpoint_every_epochs")
_EXAMPLES = {"latents": "--latents=2,4,8", "grid": "--grid optimizer.learning_rate=1e-3,3e-3"}


@dataclasses.dataclass(frozen=True)
class Member:
  """A run of the sweep; its folder has its name, such as "latent=8,seed=1"."""

  name: str
  axes: dict  # key of the config -> value
  experiment: setup.Experiment

  @property
  def latent(self):
    """How many numbers its code has."""
    return self.experiment.config.model.latent


def axis(flag, text):
  """(key, values) of a flag's KEY=NUMBER,NUMBER,...; UserError for anything else."""
  key, _, values = text.partition("=")
  try:
    numbers = [int(value) if value.strip().lstrip("+-").isdecimal() else float(value) for value in values.split(",")]
  except ValueError:
    numbers = []
  if not numbers or not all(map(errors.is_number, numbers)):
    raise errors.UserError(f"--{flag} {text}: must be numbers with commas between them, as in {_EXAMPLES[flag]}")
  if len(set(numbers)) < len(numbers):
    raise errors.UserError(f"--{flag} {text}: names a number twice")
  return key.removeprefix("config."), numbers


def members(config, keys, points):
  """The `Member`s whose keys of the config have these values, a tuple for each; UserError if one of them is amiss."""
  for key in keys:
    if keys.count(key) > 1:
      raise errors.UserError(f"--grid {key}: is an axis already")
  names = _short(keys)
  made, dataset = [], None
  for values in points:
    own = ConfigDict(config.to_dict())
    texts = [_text(_set(own, key, value)) for key, value in zip(keys, values, strict=True)]
    experiment = setup.of(own.lock(), 1, dataset)
    dataset = experiment.dataset
    if dataset.streams:
      raise errors.UserError(
        "config.data.placement: a sweep keeps the data on the device, and these would be streamed; give it a larger "
        "--config.data.budget_gib"
      )
    name = ",".join(f"{short}={text}" for short, text in zip(names, texts, strict=True))
    if any(member.name == name for member in made):
      raise errors.UserError(f"--grid {name}: is named twice; name each number once")
    made.append(Member(name, dict(zip(keys, values, strict=True)), experiment))
  return made


def packs(made):
  """Returns the members in groups that can share a program: they differ only in seed, latent size and numbers.

  Latent sizes share a program only if the code can be padded (`models.CodeSpec.size_axis`).
  """
  groups = {}
  for member in made:
    groups.setdefault(_program(member.experiment), []).append(member)
  return list(groups.values())


def numbers(experiment):
  """What a program takes as numbers beside its data: for each stage those of the objective and of the optimizer."""
  stages = experiment.stages
  return [
    {"objective": stage.objective.numbers(), "optimizer": dict(stage.optimizer_factory.numbers)} for stage in stages
  ]


def _program(experiment):
  """Returns as a text all that is compiled into the program of an experiment: two with the same text can share one.

  The numbers that a program takes as arguments (`numbers`) are left out. The microbatches are added, as no key of the
  config gives their count: it depends on whether the objective is a mean over examples, which a number decides.
  """
  config = configs.as_json(experiment.config)
  config["seed"] = None
  if experiment.model.code.size_axis is not None:
    config["model"]["latent"] = None
  config["optimizer"] |= dict.fromkeys(dict(experiment.stages[-1].optimizer_factory.numbers))
  *before, last = [stage.objective.numbers() for stage in experiment.stages]
  for stage, floats in zip([*config["stages"], config], [*before, last], strict=True):
    stage["objective"] |= dict.fromkeys(floats)
  config["microbatches"] = [stage.microbatches for stage in experiment.stages]
  return json.dumps(config, sort_keys=True)


def _set(config, key, value):
  """Sets a number in a config and returns it, with the type that the config has; UserError where there is none."""
  section, where = config, key.split(".")
  for name in where[:-1]:
    section = section.get(name) if isinstance(section, ConfigDict) else None
  there = section.get(where[-1]) if isinstance(section, ConfigDict) else None
  if where[0] in _OF_THE_SWEEP:
    raise errors.UserError(f"--grid {key}: is the same for a whole sweep; make a sweep for each")
  if not errors.is_number(there):
    raise errors.UserError(f"--grid {key}: is no number of the config; {errors.nearest(key, _numeric(config))}")
  if isinstance(there, int) and value != int(value):
    raise errors.UserError(f"--grid {key}={value}: must be an integer")
  section[where[-1]] = int(value) if isinstance(there, int) else float(value)
  return section[where[-1]]


def _text(value):
  """Returns a number as names have it: no two numbers of a type have the same text.

  A float has at most nine digits where these are exact ("0.001", "2", "1e-05"), so that the folders of earlier sweeps
  keep their names, and else as many as it needs.
  """
  short = f"{value:.9g}"
  return str(value) if isinstance(value, int) or float(short) != value else short


def _numeric(config, prefix=""):
  """The keys of a config that are numbers, dotted."""
  found = []
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      found += _numeric(value, f"{prefix}{key}.")
    elif errors.is_number(value) and f"{prefix}{key}".split(".")[0] not in _OF_THE_SWEEP:
      found.append(f"{prefix}{key}")
  return found


def _short(keys):
  """The last part of each key, or the whole key where two have the same."""
  last = [key.rpartition(".")[2] for key in keys]
  return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]

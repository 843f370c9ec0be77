"""Values that are chosen at the start of a run: the latent size, the learning rate, and fewer epochs for a time limit.

config.json of the run stores the config with the chosen values, and the replaced values under "chosen". Therefore a
resumed or loaded run has the same chosen values.
"""

import math
import pathlib
import time
from collections.abc import Collection, Sequence

import jax
from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import data, errors, objectives, overrides
from ae_jax.config.keys import AUTO
from ae_jax.runs import run_folder
from ae_jax.system import distributed
from ae_jax.training import range_test, setup, time_budget

_LATENT = "model.latent"
Chosen = dict[str, tuple]  # config key -> (value in the config, chosen value)


def build(
  config: ConfigDict,
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
  dataset: data.Dataset | None,
  defaults: Collection[str] = (),
) -> tuple[setup.Experiment, Chosen, list[str]]:
  """Builds and checks the experiment of a run with the values that are chosen at its start.

  Args:
    config: The config.
    workdir: The run folder. If it already contains the run, the values that were chosen for this run are used.
    mesh: The devices.
    dataset: The data set of the config; None to load it.
    defaults: Config keys that the user has not set. If they contain model.latent, a latent size that is larger than
      an example is reduced.

  Returns:
    The experiment, the chosen values, and a message for the user about each choice.

  Raises:
    UserError: The config is invalid, or its training does not fit in memory.
  """
  start_time = time.monotonic()
  configs.check(config)
  begun = not distributed.all_processes(not (workdir / "config.json").exists())
  chosen: Chosen = run_folder.chosen(workdir) if begun else {}
  values = configs.flat(configs.as_json(config))
  chosen = {key: pair for key, pair in chosen.items() if values.get(key) == pair[0]}
  if not (config.shorten and config.max_minutes):
    chosen.pop("epochs", None)  # without a limit, the run is extended to the epochs of the config
  if _LATENT not in defaults:
    chosen.pop(_LATENT, None)
  config = overrides.apply(config, {key: value for key, (_, value) in chosen.items()})
  lines = [f"config.{key}={value!r}: as chosen at the start of the run" for key, (_, value) in chosen.items()]
  if _LATENT in defaults:
    dataset = data.load(**config.data) if dataset is None else dataset
    config, narrower, line = _with_narrower_latent(config, dataset.shape)
    chosen |= narrower
    lines += line
  if config.optimizer.learning_rate == AUTO:
    if begun:
      raise errors.UserError(
        f"config.optimizer.learning_rate={AUTO!r}: the run in {workdir} began with a given rate; set that rate to "
        "resume it, or use another folder"
      )
    rate, line, dataset = range_test.choose(config, dataset)
    chosen["optimizer.learning_rate"] = (AUTO, rate)
    config = overrides.apply(config, {"optimizer.learning_rate": rate})
    lines.append(line)
  experiment = setup.build_experiment(config, mesh.size, dataset)
  setup.check_memory(experiment, mesh.size)
  if config.shorten and config.max_minutes and not begun:
    shorter = time_budget.shorter(experiment, mesh, workdir, 60 * config.max_minutes, start_time)
    if shorter:
      chosen |= {key: (values[key], value) for key, value in shorter.items()}
      experiment = setup.build_experiment(overrides.apply(config, shorter), mesh.size, experiment.dataset)
      lines.append(time_budget.sentence(shorter, config))
  return experiment, chosen, lines


def _with_narrower_latent(config: ConfigDict, shape: Sequence[int]) -> tuple[ConfigDict, Chosen, list[str]]:
  """Returns the config with a latent size for examples of a shape, and the choice and its message if it is reduced."""
  latent = config.model.latent
  narrower = objectives.narrower_latent(config.objective.name, latent, shape)
  if narrower is None:
    return config, {}, []
  line = (
    f"config.{_LATENT}={narrower}: chosen, because the default of {latent} is larger than the {math.prod(shape)} "
    "elements of an example"
  )
  return overrides.apply(config, {_LATENT: narrower}), {_LATENT: (latent, narrower)}, [line]

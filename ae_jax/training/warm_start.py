"""Starts a training from the arrays of a trained run (`config.init_from`)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ae_jax import api, errors
from ae_jax.exporting import hub
from ae_jax.models import Variables, variable_names
from ae_jax.runs import checkpoints
from ae_jax.system import distributed, paths
from ae_jax.trained_run import Run
from ae_jax.training.setup import Experiment
from ae_jax.training.state import TrainState


def check(experiment: Experiment) -> list[str]:
  """Checks the config keys of a warm start, and returns messages about the arrays that are taken, new or not used.

  Raises:
    UserError: `config.init_from` is not a run with a checkpoint, or none of its arrays has the name and shape of an
      array of this model.
  """
  config = experiment.config
  if not config.init_from:
    errors.check(not config.init_only, "init_only", config.init_only, "'' unless config.init_from is set")
    return []
  run, abstract = _load(config.init_from), experiment.model.abstract_variables()
  wanted, found = variable_names.named(abstract), variable_names.named(run.variables)
  if config.init_only:
    variable_names.check_pattern("init_only", config.init_only, abstract)
  taken = _taken(run, experiment)
  where = f"config.init_from={config.init_from!r}"
  if not taken:
    raise errors.UserError(
      f"{where}: no array has the name and shape of an array of this model, which has {_listed(wanted, wanted)}; the "
      f"run has {_listed(found, found)}. Set config.model as in the run, or choose another run"
    )
  lines = [f"{where}: {len(taken)} of the {len(wanted)} arrays of the model are taken from the run at step {run.step}"]
  new, unused = ([name for name in side if name not in taken] for side in (wanted, found))
  lines += [f"{where}: initialised anew: {_listed(new, wanted)}"] if new else []
  lines += [f"{where}: not used: {_listed(unused, found)}"] if unused else []
  if (run.standardisation, run.config.data.range) != (experiment.dataset.standardisation, experiment.config.data.range):
    lines.append(f"{where}: the examples are scaled as the new training data require, not as in the run")
  return lines


def applied(state: TrainState, experiment: Experiment) -> TrainState:
  """Returns an initial state in which arrays are replaced by arrays of the run `config.init_from`, if it is set."""
  if not experiment.config.init_from:
    return state
  taken = _taken(_load(experiment.config.init_from), experiment)
  return started_from(state, variable_names.replaced(state.variables, taken))


def started_from(state: TrainState, variables: Variables) -> TrainState:
  """Returns an initial state with the given variables; the moving averages start from the given parameters."""
  place = lambda new, old: old if new is old else distributed.put(new, old.sharding)
  params, model_state = jax.tree.map(place, variables, state.variables)
  averages = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
  return dataclasses.replace(state, params=params, model_state=model_state, ema_params=averages)


def _load(init_from: str) -> Run:
  try:
    is_local = not init_from.startswith(hub.SCHEME)
    folder = paths.local_path("config.init_from", init_from) / "checkpoints" if is_local else None
    return _loaded(init_from, folder and checkpoints.newest_step(folder))
  except errors.UserError as error:
    raise errors.UserError(f"config.init_from: {error}") from None


@functools.lru_cache(maxsize=1)
def _loaded(init_from: str, step: int | None) -> Run:
  """Loads a run; `step`, the step of its newest checkpoint, makes the cache reload a run that was trained further."""
  del step
  return api.load(init_from)


def _taken(run: Run, experiment: Experiment) -> dict[str, Any]:
  """Returns the arrays of a run that have the name and shape of an array of the model and match `config.init_only`."""
  wanted = variable_names.named(experiment.model.abstract_variables())
  return {
    name: array
    for name, array in variable_names.named(run.variables).items()
    if name in wanted
    and array.shape == wanted[name].shape
    and variable_names.matches(experiment.config.init_only, name)
  }


def _listed(names: Any, arrays: dict[str, Any]) -> str:
  return ", ".join(f"{name} {arrays[name].shape}" for name in names)

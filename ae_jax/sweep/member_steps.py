"""Training and evaluation functions mapped over sweep members, and masks for members of different latent sizes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ae_jax import models, objectives
from ae_jax.models import masking
from ae_jax.sweep import grid
from ae_jax.training import evaluation, optimizers, steps
from ae_jax.training.state import TrainState
from ae_jax.types import Columns


def latent_masks(members: Sequence[grid.Member], widest: grid.Member) -> dict[str, Any]:
  """Returns masks of the latent units ("latent_mask") and of the parameters ("mask") that each member uses.

  The masks have a leading member axis; see `masking.MaskedModel`. `widest` is the member with the largest latent size.
  The result is {} if the latent code cannot be padded, because then all members have the same latent size.
  """
  config, model = widest.experiment.config, widest.experiment.model
  if model.code.size_axis is None:
    return {}
  wider = models.build(
    shape=model.shape, labels=model.labels, masked=model.masked, **{**config.model, "latent": config.model.latent + 1}
  )
  abstract, abstract_wider = model.abstract_variables().params, wider.abstract_variables().params
  pairs = zip(jax.tree.leaves(abstract), jax.tree.leaves(abstract_wider), strict=True)
  size_dependent = [leaf.shape != wider_leaf.shape for leaf, wider_leaf in pairs]
  masks = []
  for member in members:
    abstract_params = member.experiment.model.abstract_variables().params
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), abstract_params)
    masks.append(jax.tree.leaves(masking.pad(ones, abstract, member.latent)))
  by_leaf = zip(size_dependent, zip(*masks, strict=True), strict=True)
  units = np.arange(config.model.latent) < np.array([[member.latent] for member in members])
  return {
    "latent_mask": units.astype(np.float32),
    "mask": [np.stack(leaf_masks) if is_masked else None for is_masked, leaf_masks in by_leaf],
  }


def train_chunk(  # noqa: PLR0917 (the arrays of a compiled function are positional)
  state: TrainState,
  examples: Columns,
  rows: jax.Array,
  weights: jax.Array,
  keys: jax.Array,
  masks: Mapping[str, Any],
  numbers: Mapping[str, Mapping[str, jax.Array]],
  *,
  over: Callable[[Callable], Callable],
  model: models.Model,
  objective: objectives.Objective,
  optimizer_factory: optimizers.OptimizerFactory,
  **static: Any,
) -> tuple[TrainState, Mapping[str, jax.Array], jax.Array]:
  """Applies `steps.train_chunk` to each member.

  All arrays except `examples` and `state.step` have a leading member axis. `masks` is the result of `latent_masks`.
  `numbers` holds the stacked hyperparameters of a training stage (`grid.numbers`). `over` is a value of
  `compiled_pack.WAYS`.
  """

  def chunk(member_state, rows, weights, key, masks, numbers):
    arguments = _member_arguments(model, objective, masks, numbers)
    arguments["optimizer"] = optimizer_factory(**numbers["optimizer"])
    member_state = dataclasses.replace(member_state, step=state.step)
    new, terms, finite = steps.train_chunk(member_state, examples, rows, weights, key, **arguments, **static)
    return without_step(new), terms, finite

  new, terms, finite = over(chunk)(without_step(state), rows, weights, keys, masks, numbers)
  return dataclasses.replace(new, step=state.step + rows.shape[1]), terms, finite


def evaluate(  # noqa: PLR0917
  variables: models.Variables,
  step: jax.Array,
  examples: Columns,
  indices: jax.Array,
  weights: jax.Array,
  keys: jax.Array,
  masks: Mapping[str, Any],
  numbers: Mapping[str, Mapping[str, jax.Array]],
  *,
  over: Callable[[Callable], Callable],
  model: models.Model,
  objective: objectives.Objective,
  **static: Any,
) -> tuple[jax.Array, Mapping[str, jax.Array]]:
  """Applies `evaluation.evaluate` to each member; see `train_chunk` for the arguments."""

  def evaluate_member(variables, key, masks, numbers):
    arguments = _member_arguments(model, objective, masks, numbers)
    return evaluation.evaluate(variables, step, examples, indices, weights, key, **arguments, **static)

  return over(evaluate_member)(variables, keys, masks, numbers)


def without_step(state: TrainState) -> TrainState:
  """Returns a state without its step, which is the same for all members, so that all its arrays can be stacked."""
  return dataclasses.replace(state, step=None)


def _member_arguments(
  model: models.Model,
  objective: objectives.Objective,
  masks: Mapping[str, Any],
  numbers: Mapping[str, Mapping[str, jax.Array]],
) -> dict[str, Any]:
  """Returns {"model", "objective"} of one member, with its masks and hyperparameters."""
  objective = dataclasses.replace(objective, **numbers["objective"])
  model = model if model.code.size_axis is None else masking.mask_model(model, **masks)
  return {"model": model, "objective": objective}

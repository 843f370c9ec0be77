"""The training state: parameters, optimizer state, model state and averaged parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from ae_jax import models
from ae_jax.types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training carries from step to step; randomness and data order are functions of `step` instead."""

  step: Any  # int32 [], the number of steps so far; `Any` since trees of shapes or shardings have this form too
  params: Params
  opt_state: PyTree
  model_state: PyTree = dataclasses.field(default_factory=dict)  # `models.Variables.state`
  ema_params: Params = None  # moving averages of the parameters; None without `config.ema_decay`

  @property
  def variables(self) -> models.Variables:
    """The variables that are trained."""
    return models.Variables(self.params, self.model_state)

  @property
  def evaluated(self) -> models.Variables:
    """The variables that are evaluated: the averaged parameters if there are any."""
    return models.Variables(self.params if self.ema_params is None else self.ema_params, self.model_state)


def init_state(
  key: Key[Array, ""], *, model: models.Model, optimizer: optax.GradientTransformation, ema: bool = False
) -> TrainState:
  """Returns the state before the first step, a function of the key alone; `ema` adds averages of the parameters."""
  params, model_state = model.init(key)
  averages = jax.tree.map(jnp.copy, params) if ema else None
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), model_state, averages)


def restart_optimizer(state: TrainState, *, optimizer: optax.GradientTransformation) -> TrainState:
  """Returns the state with a new optimizer state, for a new stage of training."""
  return dataclasses.replace(state, opt_state=optimizer.init(state.params))

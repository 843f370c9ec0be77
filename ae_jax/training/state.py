"""The training state: parameters, optimizer state, model state and averaged parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ae_jax import models


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training carries from step to step; randomness and data order are functions of `step` instead."""

  step: jax.Array  # int32 []
  params: Any
  opt_state: Any
  model_state: Any = dataclasses.field(default_factory=dict)  # `models.Variables.state`
  ema_params: Any = None  # moving averages of the parameters; None without `config.ema_decay`

  @property
  def variables(self) -> models.Variables:
    """The variables that are trained."""
    return models.Variables(self.params, self.model_state)

  @property
  def evaluated(self) -> models.Variables:
    """The variables that are evaluated: the averaged parameters if there are any."""
    return models.Variables(self.params if self.ema_params is None else self.ema_params, self.model_state)


def init_state(key, *, model, optimizer, ema=False):
  """Returns the state before the first step, a function of the key alone; `ema` adds averages of the parameters."""
  params, model_state = model.init(key)
  averages = jax.tree.map(jnp.copy, params) if ema else None
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), model_state, averages)


def restart_optimizer(state, *, optimizer):
  """Returns the state with the optimizer at its beginning, for a new stage of training."""
  return dataclasses.replace(state, opt_state=optimizer.init(state.params))

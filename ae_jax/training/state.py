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
  """The values that training updates; randomness and data order are not stored but derived from the seed and `step`."""

  step: Any  # int32 [], number of completed steps; `Any` because trees of shapes or shardings use this class, too
  params: Params
  opt_state: PyTree
  model_state: PyTree = dataclasses.field(default_factory=dict)  # `models.Variables.state`
  ema_params: Params = None  # moving averages of the parameters; None without `config.ema_decay`

  @property
  def variables(self) -> models.Variables:
    """The model variables with the trained parameters."""
    return models.Variables(self.params, self.model_state)

  @property
  def evaluated(self) -> models.Variables:
    """The model variables to evaluate, with the averaged parameters if they exist."""
    return models.Variables(self.params if self.ema_params is None else self.ema_params, self.model_state)


def init_state(
  key: Key[Array, ""], *, model: models.Model, optimizer: optax.GradientTransformation, ema: bool = False
) -> TrainState:
  """Returns the initial state, which depends only on `key`; `ema` adds moving averages of the parameters."""
  params, model_state = model.init(key)
  averages = jax.tree.map(jnp.copy, params) if ema else None
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), model_state, averages)


def restart_optimizer(state: TrainState, *, optimizer: optax.GradientTransformation) -> TrainState:
  """Returns the state with a new optimizer state, for the start of a training stage."""
  return dataclasses.replace(state, opt_state=optimizer.init(state.params))

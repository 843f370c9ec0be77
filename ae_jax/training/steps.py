"""The functions that are compiled for the training: a training step and a chunk of training steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from ae_jax import models, objectives
from ae_jax.data import ranges
from ae_jax.data.columns import SHAPED
from ae_jax.ops import randomness
from ae_jax.system.data_parallel import SINGLE_DEVICE, DataParallel
from ae_jax.training import freezing, guard
from ae_jax.training.state import TrainState
from ae_jax.types import LEAST_WEIGHT, AnyArray, Batch, Columns, Keys, Params, Scalar, Step

Terms = dict[str, Array]  # terms of the loss by name
Augmentation = Callable[[Array, Keys], Array]  # (x [B, ...], keys [B]) -> x [B, ...]


def train_step(
  state: TrainState,
  batch: Batch,
  key: Key[Array, ""],
  *,
  model: models.Model,
  objective: objectives.Objective,
  optimizer: optax.GradientTransformationExtraArgs,
  microbatches: int,
  ema_decay: float = 0.0,
  freeze: str = "",
  data_parallel: DataParallel = SINGLE_DEVICE,
  augment: Augmentation | None = None,
) -> tuple[TrainState, Terms, Bool[Array, ""]]:
  """Trains on one batch.

  All randomness is a function of the key, the step and the position of an example in the batch.

  Args:
    state: The state before the step; if it is sharded, each device passes its shard.
    batch: A batch, as described in `ae_jax.objectives`; each device passes its shard.
    key: The noise key of the run.
    model: The model.
    objective: The objective; its schedules are not yet evaluated.
    optimizer: The optimizer; its `update` function takes the norm of the gradient as `norm`.
    microbatches: Number of microbatches that each device computes one after the other.
    ema_decay: Decay of the moving averages `TrainState.ema_params`; 0.0 for no averages.
    freeze: Pattern of the names of arrays that do not change; see `freezing`.
    data_parallel: The devices that share the batch.
    augment: Augmentation of the examples, or None.

  Returns:
    The next state, the scalars to log, and whether the loss and the gradient are finite. The scalars are
    {"loss": [], NAME: [], ...}, where NAME is the name of a loss term or of a scheduled value.
  """
  objective = objective.at(state.step)
  (loss, (terms, statistics)), gradient = _at_state(
    state,
    batch,
    key,
    model=model,
    objective=objective,
    microbatches=microbatches,
    data_parallel=data_parallel,
    augment=augment,
  )
  gradient = freezing.without_frozen(gradient, freeze)
  norm = data_parallel.norm(gradient)
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, norm=norm)
  params = optax.apply_updates(state.params, updates)
  if model.has_projection:
    params = data_parallel.own_part(model.project(data_parallel.all_gather_params(params)))
  model_state = model.update_state(state.model_state, statistics)
  params, model_state = freezing.with_frozen(models.Variables(params, model_state), state.variables, freeze)
  ema_params = average(state.ema_params, params, state.step, ema_decay) if ema_decay else None
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  scheduled = {name: getattr(objective, name) for name, _ in objective.schedules}
  next_state = TrainState(state.step + 1, params, opt_state, model_state, ema_params)
  return next_state, {"loss": loss, **terms} | scheduled, finite


def _at_state(
  state: TrainState,
  batch: Batch,
  key: Key[Array, ""],
  *,
  data_parallel: DataParallel,
  augment: Augmentation | None,
  **static: Any,
) -> tuple[tuple[Scalar, objectives.Aux], Params]:
  """Returns `value_and_gradient` with the noise and the augmentation of the step that follows `state`."""
  rows = len(batch["weight"])
  positions = data_parallel.first_row(rows) + jnp.arange(rows)  # positions in the batch of all devices
  keys = randomness.example_keys(jax.random.fold_in(key, state.step), positions)
  batch = augmented(batch, keys, augment)
  return value_and_gradient(state.variables, batch, keys, data_parallel=data_parallel, **static)


def average(averages: Params, params: Params, step: Step, decay: float) -> Params:
  """Returns the exponential moving average of the parameters after a step.

  The decay of step t is min(decay, (1 + t) / (10 + t)), so the influence of the initialisation vanishes quickly.
  """
  t = step.astype(jnp.float32)
  decay = jnp.minimum(jnp.float32(decay), (1.0 + t) / (10.0 + t))
  return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, averages, params)


def augmented(batch: Batch, keys: Keys, augment: Augmentation | None) -> Batch:
  """Returns the batch with augmented examples, targets and masks, or the batch itself if `augment` is None.

  The same keys are used for examples, targets and masks, so that e.g. a shift moves all of them equally.
  """
  return batch | {name: augment(batch[name], keys) for name in SHAPED if name in batch} if augment else batch


def value_and_gradient(
  variables: models.Variables,
  batch: Batch,
  keys: Keys,
  *,
  model: models.Model,
  objective: objectives.Objective,
  microbatches: int,
  data_parallel: DataParallel = SINGLE_DEVICE,
) -> tuple[tuple[Scalar, objectives.Aux], Params]:
  """Returns ((loss, aux), gradient) of the objective on a batch; the gradient is with respect to the parameters.

  Each device passes its shard of the batch and of the parameters, and receives its shard of the gradient. The loss and
  its terms are reduced over the whole batch, so they are equal on all devices. `aux.statistics` are sums over the
  examples of all devices, not means, as `Model.update_state` requires.
  """
  weight = batch["weight"].sum()
  if data_parallel.size == 1:
    (loss, aux), gradient = accumulate_gradients(
      variables, batch, keys, model=model, objective=objective, microbatches=microbatches
    )
    return (loss, aux._replace(statistics=jax.tree.map(lambda mean: mean * weight, aux.statistics))), gradient
  if objective.needs_whole_batch:
    objective = functools.partial(objective, mean=data_parallel.mean)
  variables = variables._replace(params=data_parallel.all_gather_params(variables.params))
  loss_and_aux, gradient = accumulate_gradients(
    variables, batch, keys, model=model, objective=objective, microbatches=microbatches
  )
  gradient, (sums, total_weight) = data_parallel.reduce_gradients(
    *jax.tree.map(lambda leaf: weight * leaf, (gradient, (loss_and_aux, jnp.ones(()))))
  )
  (loss, aux), gradient = jax.tree.map(lambda leaf: leaf / total_weight, (sums, gradient))
  _, sum_of_aux = sums
  return (loss, aux._replace(statistics=sum_of_aux.statistics)), gradient


def accumulate_gradients(
  variables: models.Variables,
  batch: Batch,
  keys: Keys,
  *,
  model: models.Model,
  objective: Callable[..., tuple[Scalar, objectives.Aux]],
  microbatches: int,
) -> tuple[tuple[Scalar, objectives.Aux], Params]:
  """Returns ((loss, aux), gradient) of the objective on a batch, computed one microbatch after the other.

  Microbatch i consists of the rows i, i + microbatches, ..., and its results are weighted by the sum of its example
  weights. If the loss is a mean over examples, the result equals that of the whole batch up to rounding. `microbatches`
  must divide the number of rows.
  """
  params, model_state = variables

  def loss(params, batch, keys):
    return objective(model, models.Variables(params, model_state), batch, keys, train=True)

  value_and_grad = jax.value_and_grad(loss, has_aux=True)
  if microbatches == 1:
    return value_and_grad(params, batch, keys)
  split = jax.tree.map(lambda rows: rows.reshape(-1, microbatches, *rows.shape[1:]).swapaxes(0, 1), (batch, keys))
  shares = split[0]["weight"].sum(1) / jnp.maximum(batch["weight"].sum(), LEAST_WEIGHT)

  def add(total, microbatch):
    share, (rows, row_keys) = microbatch
    result = value_and_grad(params, rows, row_keys)
    return jax.tree.map(lambda a, b: a + share * b, total, result), None

  shapes = jax.eval_shape(value_and_grad, params, batch, keys)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return lax.scan(add, zeros, (shares, split))[0]


def read_batch(
  rows: Int[AnyArray, " batch"] | Columns,
  weights: Float[AnyArray, " batch"],
  *,
  examples: Columns | None,
  model: models.Model,
  value_range: str,
) -> Batch:
  """Returns a batch: normalised examples `x` (float32 [B, *shape]), `weight` [B], and the other data columns.

  Targets have the same shape, dtype and normalisation as `x`. Masks are 1.0 for observed elements and 0.0 for others.

  Args:
    rows: Indices of the examples. If `examples` is None, the columns of the batch: {"x": [B, elements], ...}.
    weights: 1 for an example, 0 for padding. They are multiplied by the column "weight", if there is one.
    examples: Columns of the data set, {"x": [N, elements], ...}.
    model: The model; the examples are reshaped to its input shape.
    value_range: Range of the data, a key of `ranges.SPANS`.
  """
  columns = rows if examples is None else jax.tree.map(lambda column: column[rows], examples)
  shaped = {name: columns[name] for name in SHAPED if name in columns}
  floats = {
    name: column.astype(np.float32) if name == "mask" else ranges.normalise(column, value_range)
    for name, column in shaped.items()
  }
  batch = {**columns, **{name: rows.reshape(-1, *model.shape) for name, rows in floats.items()}}
  return batch | {"weight": weights * columns["weight"] if "weight" in columns else weights}


def train_chunk(
  state: TrainState,
  examples: Columns | None,
  rows: Int[AnyArray, "steps batch"] | Columns,
  weights: Float[AnyArray, "steps batch"],
  key: Key[Array, ""],
  *,
  model: models.Model,
  value_range: str,
  on_nan: str | None = None,
  data_parallel: DataParallel = SINGLE_DEVICE,
  **static: Any,
) -> tuple[TrainState, Terms, Bool[Array, " steps"]]:
  """Trains on several batches (a chunk), one step per batch; one compiled call runs all steps.

  Args:
    state: The state before the chunk.
    examples: See `read_batch`.
    rows: The `rows` of `read_batch` for each step, [steps, B].
    weights: The `weights` of `read_batch` for each step, [steps, B].
    key: The noise key of the run.
    model: The model.
    value_range: Range of the data.
    on_nan: Handling of a step with a non-finite loss or gradient. "skip": the step only increments the step count.
      "stop": this step and all later steps leave the state unchanged. None or "halve": the step updates the state as
      usual. With "skip" or "stop", a step of a small model takes about 10 % longer.
    data_parallel: The devices that share each step.
    **static: Further arguments of `train_step`.

  Returns:
    The state after the chunk, the scalars to log as {name: values [steps]}, and a boolean array `finite` [steps].
    `finite` is True for steps with a finite loss and a finite gradient. If `on_nan` is None, it is True for steps with
    a finite loss, and the last entry is True only if the parameters after the chunk are finite, too. If `on_nan` is
    "halve", the last entry is True only if the state after the chunk also meets the conditions of `guard.with_level`.
  """

  def body(carry, batch):
    state, updating = carry
    batch = read_batch(*batch, examples=examples, model=model, value_range=value_range)
    new, terms, finite = train_step(state, batch, key, model=model, data_parallel=data_parallel, **static)
    if on_nan in {None, "halve"}:
      return (new, updating), (terms, jnp.isfinite(terms["loss"]))
    updating = finite & updating if on_nan == "stop" else finite
    guarded = jax.tree.map(lambda new, old: jnp.where(updating, new, old), new, state)
    step = guarded.step if on_nan == "stop" else new.step
    return (dataclasses.replace(guarded, step=step), updating), (terms, finite)

  (state, _), (terms, finite) = lax.scan(body, (state, jnp.bool_(True)), (rows, weights))
  if on_nan in {None, "halve"}:
    finite = finite.at[-1].set(finite[-1] & jnp.isfinite(data_parallel.norm(state.params)))
  if on_nan == "halve":
    last = jax.tree.map(lambda part: part[-1], (rows, weights))
    batch = read_batch(*last, examples=examples, model=model, value_range=value_range)
    loss = _loss_at_state(state, batch, key, model=model, data_parallel=data_parallel, **static)
    state, is_low = guard.with_level(state, jnp.append(terms["loss"], loss), finite.all())
    finite = finite.at[-1].set(finite[-1] & is_low)
  return state, terms, finite


def _loss_at_state(
  state: TrainState,
  batch: Batch,
  key: Key[Array, ""],
  *,
  objective: objectives.Objective,
  microbatches: int,
  augment: Augmentation | None = None,
  data_parallel: DataParallel,
  model: models.Model,
  **_: Any,
) -> Scalar:
  """Returns the loss of the step that follows `state`; the compiler removes the computation of the gradient."""
  static = {"model": model, "microbatches": microbatches, "augment": augment, "data_parallel": data_parallel}
  (loss, _), _ = _at_state(state, batch, key, objective=objective.at(state.step), **static)
  return loss

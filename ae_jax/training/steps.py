"""The training step, the compiled chunk of steps, and the compiled pass over a test set: pure, and jitted only here."""

import collections
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ae_jax import models, objectives
from ae_jax.data import ranges
from ae_jax.ops import randomness
from ae_jax.system import distributed, malloc
from ae_jax.training.state import TrainState


def train_step(
  state,
  batch,
  key,
  *,
  model,
  objective,
  optimizer,
  microbatches,
  ema_decay=0.0,
  data_parallel=distributed.SINGLE_DEVICE,
  augment=None,
):
  """Trains on a batch (see `ae_jax.objectives`): (state, batch, key) -> (state, {"loss": [], **terms}, finite []).

  Each device of a data_parallel receives its part of the batch. `finite` says whether loss and gradient are. `augment` is the
  `augmentation.Augment` of the batch, or None; `ema_decay` is the decay of `TrainState.ema_params`, 0.0 for none.
  """
  rows = len(batch["weight"])
  numbers = data_parallel.first_row(rows) + jnp.arange(rows)
  keys = randomness.example_keys(jax.random.fold_in(key, state.step), numbers)
  batch = augmented(batch, keys, augment)
  objective = objective.at(state.step)
  (loss, (terms, statistics)), gradient = value_and_gradient(
    state.variables,
    batch,
    keys,
    model=model,
    objective=objective,
    microbatches=microbatches,
    data_parallel=data_parallel,
  )
  norm = data_parallel.norm(gradient)
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, norm=norm)
  params = optax.apply_updates(state.params, updates)
  if model.has_projection:
    params = data_parallel.own_part(model.project(data_parallel.all_gather_params(params)))
  model_state = model.update_state(state.model_state, statistics)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  terms = {"loss": loss, **terms} | {name: getattr(objective, name) for name, _ in objective.schedules}
  averages = average(state.ema_params, params, state.step, ema_decay) if ema_decay else None
  return TrainState(state.step + 1, params, opt_state, model_state, averages), terms, finite


def average(averages, params, step, decay):
  """Returns the exponential moving average of the parameters after a step.

  The decay of step t is min(decay, (1 + t) / (10 + t)), so that the initialisation is soon forgotten.
  """
  t = step.astype(jnp.float32)
  decay = jnp.minimum(jnp.float32(decay), (1.0 + t) / (10.0 + t))
  return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, averages, params)


def augmented(batch, keys, augment):
  """Returns the batch with its examples augmented by an `augmentation.Augment`; the batch itself for None."""
  return batch | {"x": augment(batch["x"], keys)} if augment else batch


def value_and_gradient(
  variables, batch, keys, *, model, objective, microbatches, data_parallel=distributed.SINGLE_DEVICE
):
  """Returns ((loss, aux), gradient) of the objective on the batch of a data_parallel; each device gets its part of the gradient.

  The gradient is that of the parameters. Of the `objectives.Aux` the model's statistics are sums over the examples of
  all devices here, which the one reduction of the data_parallel gives.
  """
  here = batch["weight"].sum()
  if data_parallel.size == 1:
    (loss, aux), gradient = accumulate_gradients(
      variables, batch, keys, model=model, objective=objective, microbatches=microbatches
    )
    return (loss, aux._replace(statistics=jax.tree.map(lambda mean: mean * here, aux.statistics))), gradient
  if objective.needs_whole_batch:
    objective = functools.partial(objective, mean=data_parallel.mean)
  variables = variables._replace(params=data_parallel.all_gather_params(variables.params))
  found, gradient = accumulate_gradients(
    variables, batch, keys, model=model, objective=objective, microbatches=microbatches
  )
  gradient, (found, weight) = data_parallel.reduce_gradients(
    *jax.tree.map(lambda leaf: here * leaf, (gradient, (found, jnp.ones(()))))
  )
  (loss, aux), gradient = jax.tree.map(lambda leaf: leaf / weight, (found, gradient))
  return (loss, aux._replace(statistics=found[1].statistics)), gradient


def accumulate_gradients(variables, batch, keys, *, model, objective, microbatches):
  """Returns ((loss, aux), gradient) of the objective on a batch, computed over `microbatches` of it one after the other.

  The microbatches take every `microbatches`-th row and count by their weight, so that the result is that of the whole batch to
  rounding, for an objective whose loss is a mean over examples. `microbatches` divides the batch.
  """
  params, model_state = variables

  def loss(params, batch, keys):
    return objective(model, models.Variables(params, model_state), batch, keys, train=True)

  differentiate = jax.value_and_grad(loss, has_aux=True)
  if microbatches == 1:
    return differentiate(params, batch, keys)
  cut = jax.tree.map(lambda rows: rows.reshape(-1, microbatches, *rows.shape[1:]).swapaxes(0, 1), (batch, keys))
  shares = cut[0]["weight"].sum(1) / jnp.maximum(batch["weight"].sum(), 1.0)

  def add(total, part):
    share, (rows, row_keys) = part
    result = differentiate(params, rows, row_keys)
    return jax.tree.map(lambda a, b: a + share * b, total, result), None

  shapes = jax.eval_shape(differentiate, params, batch, keys)
  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return lax.scan(add, zero, (shares, cut))[0]


def read_batch(rows, weights, *, examples, model, value_range):
  """Returns a batch: `x` float32 [B, ...] normalised, `weight` float32 [B], and the other columns of the examples.

  `rows` are int32 [B], indices of the columns of the examples, {"x": [N, elements], ...}; if these are None, `rows` are
  such columns themselves, {"x": [B, elements], ...}.
  """
  columns = rows if examples is None else jax.tree.map(lambda column: column[rows], examples)
  x = ranges.normalise(columns["x"], value_range)
  return {**columns, "x": x.reshape(-1, *model.shape), "weight": weights}


def train_chunk(
  state,
  examples,
  rows,
  weights,
  key,
  *,
  model,
  value_range,
  on_nan=None,
  data_parallel=distributed.SINGLE_DEVICE,
  **static,
):
  """Trains on batches given by rows [steps, B] and weights [steps, B]: -> (state, {name: [steps]}, finite [steps]).

  See `read_batch` for the examples and rows. With `on_nan` a step whose loss or gradient is not finite changes no
  parameters, which costs a tenth of a small model's step; with "stop" neither do those after it, and the state remains
  the one before it. Without, `finite` tells of the losses, and its last entry of the parameters too.
  """

  def body(carry, batch):
    state, going = carry
    batch = read_batch(*batch, examples=examples, model=model, value_range=value_range)
    new, terms, finite = train_step(state, batch, key, model=model, data_parallel=data_parallel, **static)
    if on_nan is None:
      return (new, going), (terms, jnp.isfinite(terms["loss"]))
    going = finite & going if on_nan == "stop" else finite
    kept = jax.tree.map(lambda new, old: jnp.where(going, new, old), new, state)
    step = kept.step if on_nan == "stop" else new.step
    return (dataclasses.replace(kept, step=step), going), (terms, finite)

  (state, _), (terms, finite) = lax.scan(body, (state, jnp.bool_(True)), (rows, weights))
  if on_nan is None:
    finite = finite.at[-1].set(finite[-1] & jnp.isfinite(data_parallel.norm(state.params)))
  return state, terms, finite


def evaluate(
  variables,
  step,
  examples,
  indices,
  weights,
  key,
  *,
  model,
  objective,
  statistics,
  value_range,
  data_parallel=distributed.SINGLE_DEVICE,
):
  """Returns the objective's loss [] over the test set, and statistics per example {name: [batches, B, ...]}.

  `statistics` maps (model, variables, batch, keys) to {name: [B, ...]}. The loss combines the means over the whole set,
  and an example's key depends on its row alone, so that nothing depends on how the set is cut into batches.
  Scheduled numbers of the objective are those of `step`, as in training.
  """
  objective = objective.at(step)
  variables = (
    variables._replace(params=data_parallel.all_gather_params(variables.params))
    if data_parallel.size > 1
    else variables
  )

  def body(_, rows):
    batch = read_batch(*rows, examples=examples, model=model, value_range=value_range)
    keys = randomness.example_keys(key, rows[0])
    values, penalties, _ = objective.statistics(model, variables, batch, keys)
    sums = objectives.batch_sum((values, penalties), batch["weight"])
    return None, (sums, data_parallel.all_gather(statistics(model, variables, batch, keys)))

  sums, values = lax.scan(body, None, (indices, weights))[1]
  sums, count = data_parallel.total((jax.tree.map(lambda leaf: leaf.sum(0), sums), weights.sum()))
  loss, _ = objective.loss(model, *jax.tree.map(lambda leaf: leaf / count, sums))
  return loss, values


def compiled(function, arguments, results, *, mode=distributed.jit, donate=(), **static):
  """`function` compiled once for arguments of these shapes and placements; any other shape is then an error.

  Other keyword arguments are static. `donate` gives the positions of the arguments whose memory the result may take,
  `results` the placements of what it returns; `mode` is one of `distributed.MODES`.
  """
  program = mode(functools.partial(function, **static), arguments, results, donate)
  malloc.give_back()
  return program


def compilations():
  """How many programs this thread has compiled, or taken from the cache of compiled programs, since the first call."""
  return _compilations()[threading.get_ident()]


@functools.cache
def _compilations():
  counter = collections.Counter()

  def listen(event, seconds, **_):
    counter[threading.get_ident()] += event == "/jax/core/compile/backend_compile_duration"

  jax.monitoring.register_event_duration_secs_listener(listen)
  return counter

"""The training step, the compiled chunk of steps, and the compiled pass over a test set: pure, and jitted only here."""

import collections
import dataclasses
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ae_jax.data import ranges


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training carries from step to step; randomness and data order are functions of `step` instead."""

  step: jax.Array  # int32 []
  params: Any
  opt_state: Any


def init(key, *, model, optimizer):
  """The state before the first step, a function of the key alone."""
  params = model.init(key)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def restart(state, *, optimizer):
  """The state with the optimizer at its beginning, for a new stage of training."""
  return TrainState(state.step, state.params, optimizer.init(state.params))


def example_keys(key, numbers):
  """A key for each number: [] and int32 [B] -> keys [B]."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def train_step(state, batch, key, *, model, objective, optimizer, blocks):
  """One step on a batch (see `ae_jax.objectives`): (state, batch, key) -> (state, {"loss": [], **terms})."""
  keys = example_keys(jax.random.fold_in(key, state.step), jnp.arange(len(batch["weight"])))
  (loss, terms), gradient = value_and_gradient(
    state.params, batch, keys, model=model, objective=objective, blocks=blocks
  )
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, opt_state), {"loss": loss, **terms}


def value_and_gradient(params, batch, keys, *, model, objective, blocks):
  """((loss, terms), gradient) of the objective on a batch, computed over `blocks` parts of it one after the other.

  The parts take every `blocks`-th row and count by their weight, so that the result is that of the whole batch to
  rounding, for an objective whose loss is a mean over examples. `blocks` divides the batch.
  """
  differentiate = jax.value_and_grad(functools.partial(objective, model), has_aux=True)
  if blocks == 1:
    return differentiate(params, batch, keys)
  parts = jax.tree.map(lambda rows: rows.reshape(-1, blocks, *rows.shape[1:]).swapaxes(0, 1), (batch, keys))
  shares = parts[0]["weight"].sum(1) / batch["weight"].sum()

  def add(total, part):
    share, (rows, row_keys) = part
    result = differentiate(params, rows, row_keys)
    return jax.tree.map(lambda a, b: a + share * b, total, result), None

  shapes = jax.eval_shape(differentiate, params, batch, keys)
  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return lax.scan(add, zero, (shares, parts))[0]


def read_batch(examples, indices, weights, *, model, value_range):
  """Rows of the flat examples [N, elements] as a batch: `x` float32 [B, ...] normalised, `weight` float32 [B]."""
  x = ranges.normalise(examples[indices], value_range)
  return {"x": x.reshape(-1, *model.shape), "weight": weights}


def train_chunk(state, examples, indices, weights, key, *, model, objective, optimizer, value_range, blocks):
  """Trains on batches given by rows [steps, B] and weights [steps, B]: -> (state, {name: [steps]})."""

  def body(state, rows):
    batch = read_batch(examples, *rows, model=model, value_range=value_range)
    return train_step(state, batch, key, model=model, objective=objective, optimizer=optimizer, blocks=blocks)

  return lax.scan(body, state, (indices, weights))


def evaluate(params, examples, indices, weights, key, *, model, objective, statistics, value_range):
  """Over the test set, the objective's loss per batch and statistics per example: [batches], {name: [batches, B, ...]}.

  `statistics` maps (model, params, batch, keys) to {name: [B, ...]}. An example's key depends on its row alone, so that
  nothing random depends on how the set is cut into batches.
  """

  def body(_, rows):
    batch = read_batch(examples, *rows, model=model, value_range=value_range)
    keys = example_keys(key, rows[0])
    loss, _ = objective(model, params, batch, keys)
    return None, (loss, statistics(model, params, batch, keys))

  return lax.scan(body, None, (indices, weights))[1]


def compiled(function, arguments, *, out_shardings, donate=(), **static):
  """`function` compiled once for arguments of these shapes and placements; any other shape is then an error.

  Keyword arguments are static. `donate` gives the positions of the arguments whose memory the result may take.
  """
  jitted = jax.jit(functools.partial(function, **static), donate_argnums=donate, out_shardings=out_shardings)
  return jitted.lower(*arguments).compile()


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

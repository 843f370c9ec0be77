"""The training step, the compiled chunk of steps, and the compiled pass over a test set: pure, and jitted only here."""

import dataclasses
import functools
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


def train_step(state, batch, key, *, model, objective, optimizer, blocks):
  """One step on a batch (see `ae_jax.objectives`): (state, batch, key) -> (state, {"loss": [], **terms})."""
  rng = jax.random.fold_in(key, state.step)
  (loss, terms), gradient = value_and_gradient(
    state.params, batch, rng, model=model, objective=objective, blocks=blocks
  )
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, opt_state), {"loss": loss, **terms}


def value_and_gradient(params, batch, rng, *, model, objective, blocks):
  """((loss, terms), gradient) of the objective on a batch, computed over `blocks` parts of it one after the other.

  The parts take every `blocks`-th row and count by their weight, so that the result is that of the whole batch to
  rounding, for an objective whose loss is a mean over examples. `blocks` divides the batch.
  """
  differentiate = jax.value_and_grad(functools.partial(objective, model), has_aux=True)
  if blocks == 1:
    return differentiate(params, batch, rng)
  parts = jax.tree.map(lambda rows: rows.reshape(-1, blocks, *rows.shape[1:]).swapaxes(0, 1), batch)
  shares = parts["weight"].sum(1) / batch["weight"].sum()

  def add(total, part):
    share, number, rows = part
    result = differentiate(params, rows, jax.random.fold_in(rng, number))
    return jax.tree.map(lambda a, b: a + share * b, total, result), None

  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(differentiate, params, batch, rng))
  return lax.scan(add, zero, (shares, jnp.arange(blocks), parts))[0]


def read_batch(images, indices, weights, *, model, value_range):
  """Rows of the flat images [N, H * W * C] as a batch: `x` float32 [B, H, W, C] normalised, `weight` float32 [B]."""
  x = ranges.normalise(images[indices], value_range)
  return {"x": x.reshape(-1, *model.shape), "weight": weights}


def train_chunk(state, images, indices, weights, key, *, model, objective, optimizer, value_range, blocks):
  """Trains on batches given by rows [steps, B] and weights [steps, B]: -> (state, {name: [steps]})."""

  def body(state, rows):
    batch = read_batch(images, *rows, model=model, value_range=value_range)
    return train_step(state, batch, key, model=model, objective=objective, optimizer=optimizer, blocks=blocks)

  return lax.scan(body, state, (indices, weights))


def evaluate(params, images, indices, weights, key, *, model, objective, statistics, value_range):
  """Sums over the test set, one per batch and not yet divided: -> {name: [batches]}.

  `statistics` maps (model, params, batch) to {name: [B]}. The objective's loss is summed beside them as "loss", on a
  key that depends on the batch alone.
  """

  def body(number, rows):
    batch = read_batch(images, *rows, model=model, value_range=value_range)
    sums = {name: (values * batch["weight"]).sum() for name, values in statistics(model, params, batch).items()}
    loss, _ = objective(model, params, batch, jax.random.fold_in(key, number))
    return number + 1, {"loss": loss * batch["weight"].sum(), **sums}

  return lax.scan(body, jnp.zeros((), jnp.int32), (indices, weights))[1]


def compiled(function, arguments, *, out_shardings, donate=(), **static):
  """`function` compiled once for arguments of these shapes and placements; any other shape is then an error.

  Keyword arguments are static. `donate` gives the positions of the arguments whose memory the result may take.
  """
  jitted = jax.jit(functools.partial(function, **static), donate_argnums=donate, out_shardings=out_shardings)
  return jitted.lower(*arguments).compile()

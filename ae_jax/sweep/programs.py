"""What a pack of members computes with: one program for all of them, their states stacked along a first axis.

A member is the same, bit for bit, whatever the others are. They are cut between the devices; on one device they are
computed side by side (`jax.vmap`) or one after the other (`jax.lax.map`), whichever is faster there.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import cost, evaluators, models, parallel, steps
from ae_jax.data import epochs
from ae_jax.models import narrowed
from ae_jax.steps import TrainState
from ae_jax.sweep import grid


def _in_turn(function):
  return lambda *args: jax.lax.map(lambda each: function(*each), args)


# How the members of one device are computed.
WAYS = {"side by side": jax.vmap, "in turn": _in_turn}


@dataclasses.dataclass(frozen=True)
class Placed:
  """The data of a pack on the devices; what belongs to members has one for each along the first axis."""

  train: jax.Array  # [N, elements], as test
  test: jax.Array
  test_rows: tuple[jax.Array, jax.Array]  # indices and weights of the batches of the test set, [batches, B]
  test_weights: np.ndarray
  noise_keys: jax.Array  # [members]
  widths: dict  # what `narrowed.narrow` takes, [members, ...]
  everywhere: jax.sharding.Sharding
  by_member: jax.sharding.Sharding


@dataclasses.dataclass(frozen=True)
class Programs:
  """The compiled functions of a stage of a pack, their data in place."""

  restart: Callable  # (state) -> state, its optimizers at the beginning
  train_chunk: Callable  # (state, rows, weights) -> (state, {name: [members, chunk]}, finite [members, chunk])
  evaluate: Callable  # (state) -> the losses of the members [members], {name: [members, batches, B, ...]}
  compile_seconds: float
  peak_bytes: int  # of each device, data and states included, as the compiler foretells it


def filled(members, mesh):
  """The members, the last one again and again behind them, so that each device has as many."""
  return members + members[-1:] * (-len(members) % mesh.size)


def likely(mesh):
  """The way that is faster as a rule: on CPU, where batched products are slower than single ones, one after the other.

  Measured on 2 cores by experiments/sweep: dense members side by side at 0.8 of the speed in turn, CNNs at 0.7.
  """
  return "in turn" if mesh.devices.flat[0].platform == "cpu" else "side by side"


def widest(members):
  """The member with the largest code, whose program they share."""
  return max(members, key=lambda member: member.latent)


def place(members, mesh):
  """Puts the data of the members, `filled`, on the devices."""
  everywhere, by_member = parallel.replicated(mesh), parallel.split(mesh, axis=0)
  described = widest(members).described
  dataset = described.dataset
  train, test = (parallel.put(half.reshape(len(half), -1), everywhere) for half in (dataset.train, dataset.test))
  cut = epochs.in_order(len(dataset.test), described.plan.batch_size, 1)
  return Placed(
    train,
    test,
    tuple(parallel.put(part, everywhere) for part in cut),
    cut[1],
    parallel.put(jax.random.wrap_key_data(np.stack([jax.random.key_data(_keys(m)[1]) for m in members])), by_member),
    parallel.put(_widths(members), by_member),
    everywhere,
    by_member,
  )


def start(members, placed):
  """The state of all before the first step: each initialised as it is alone, then widened with zeros."""
  described = widest(members).described
  like = described.model.abstract_params()
  inits = {member.latent: jax.jit(member.described.model.init) for member in members}
  own = [jax.tree.map(np.asarray, inits[member.latent](_keys(member)[0])) for member in members]
  wide = [narrowed.widen(params, like, member.latent) for params, member in zip(own, members, strict=True)]
  params = parallel.put(_stacked(wide), placed.by_member)
  return restart(described.stages[0], placed)(TrainState(jnp.zeros((), jnp.int32), params, ()))


def places(placed):
  """The placements of the state."""
  return TrainState(placed.everywhere, placed.by_member, placed.by_member)


def restart(stage, placed):
  """A function (state) -> state with the optimizers of a stage at their beginning."""

  def function(state):
    return dataclasses.replace(state, opt_state=jax.vmap(stage.optimizer.init)(state.params))

  return jax.jit(function, out_shardings=places(placed))


def build(members, placed, number, state, way):
  """The `Programs` of a stage, given by its number, for states like `state`; `way` is one of WAYS."""
  started = time.perf_counter()
  described = widest(members).described
  stage, plan = described.stages[number], described.plan
  static = {"model": described.model, "value_range": described.dataset.value_range, "objective": stage.objective}
  options = parallel.put(_stacked([grid.numbers(member.described)[number] for member in members]), placed.by_member)
  shape = (len(members), plan.chunk, plan.slots)
  rows, weights = (jax.ShapeDtypeStruct(shape, kind, sharding=placed.by_member) for kind in (np.int32, np.float32))
  results = (places(placed), placed.by_member, placed.by_member)
  own = (placed.noise_keys, placed.widths, options)
  on_nan = "skip" if described.config.on_nan == "skip" else None
  train_chunk = steps.compiled(
    _train_chunk,
    (state, placed.train, rows, weights, *own),
    results,
    donate=(0,),
    over=WAYS[way],
    recipe=stage.recipe,
    parts=stage.parts,
    on_nan=on_nan,
    augment=described.augment,
    **static,
  )
  evaluate = steps.compiled(
    _evaluate,
    (state.params, state.step, placed.test, *placed.test_rows, *own),
    placed.by_member,
    over=WAYS[way],
    statistics=evaluators.statistics(described.measures, described.dataset.value_range, described.dataset.span),
    **static,
  )

  def train(state, rows, weights):
    batches = (parallel.put(part, placed.by_member) for part in (rows, weights))
    return train_chunk(state, placed.train, *batches, *own)

  peaks = [_peak_bytes(train_chunk) + placed.test.nbytes, _peak_bytes(evaluate) + placed.train.nbytes]
  size = placed.everywhere.mesh.size
  peaks[1] += cost.bytes_of(jax.tree.leaves(state.opt_state)) // size
  return Programs(
    restart(stage, placed),
    train,
    lambda state: evaluate(state.params, state.step, placed.test, *placed.test_rows, *own),
    time.perf_counter() - started,
    max(peaks) + (state_bytes(widest(members)) * len(members) if size > 1 else 0),  # the first holds what is saved
  )


def _peak_bytes(compiled):
  """The memory of a device that a compiled function takes, its arguments included."""
  sizes = compiled.memory_analysis()
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + results


def joined(members, states, placed):
  """Joins the states of single members, all of the same step, to that of a pack; the inverse of `own_states`."""
  described = widest(members).described
  like = _abstract(described)
  wide = [
    narrowed.widen(jax.tree.map(np.asarray, (own.params, own.opt_state)), (like.params, like.opt_state), member.latent)
    for own, member in zip(states, members, strict=True)
  ]
  return _spread(states[0].step, _stacked(wide), placed)


def to_save(state, count):
  """The state of the first `count` members, on one device: as it is saved, whatever the devices of another day are."""
  first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  trim = lambda leaf: jax.device_put(leaf, first)[:count]
  return TrainState(jax.device_put(state.step, first), *jax.tree.map(trim, (state.params, state.opt_state)))


def from_saved(state, placed):
  """Puts a saved state on all devices; the inverse of `to_save`."""
  return _spread(state.step, (state.params, state.opt_state), placed)


def _spread(step, trees, placed):
  """Returns the `TrainState` of (params, opt_state) [members, ...] on the devices, padded like the members by `filled`.

  A sharded axis must be a multiple of the devices.
  """
  more = -len(jax.tree.leaves(trees)[0]) % placed.everywhere.mesh.size
  pad = lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], more, 0)])
  padded = jax.tree.map(lambda leaf: pad(np.asarray(leaf)), trees)
  return TrainState(parallel.put(step, placed.everywhere), *parallel.put(padded, placed.by_member))


def own_states(members, state):
  """Generates the state of each member, at its own size, NumPy arrays."""
  whole = jax.tree.map(np.asarray, (state.params, state.opt_state))
  for index, member in enumerate(members):
    like = _abstract(member.described)
    own = jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), whole)
    cut = narrowed.cut(own, (like.params, like.opt_state), member.latent)
    yield TrainState(np.asarray(state.step), *cut)


def own_values(member, values):
  """What `evaluate` found of one member, {name: [batches, B, ...]}, without the units that its code does not have."""
  described = member.described
  shapes = _shapes(described.model, described.measures, described.dataset.value_range, described.dataset.span)
  like = {name: jax.ShapeDtypeStruct(rows.shape[:2] + shapes[name], rows.dtype) for name, rows in values.items()}
  return narrowed.cut(values, like, member.latent)


def state_bytes(member):
  """The bytes of parameters and optimizer state of a member, at its own size."""
  like = _abstract(member.described)
  return cost.bytes_of(jax.tree.leaves((like.params, like.opt_state)))


def own_like(member):
  """What `own_states` gives of a member, in the abstract, on the first device."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = _abstract(member.described)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like)


def _abstract(described):
  """The shapes and types of a member's state at the end."""
  params = described.model.abstract_params()
  opt_state = jax.eval_shape(described.stages[-1].optimizer.init, params)
  return TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)


@functools.lru_cache(maxsize=1024)
def _shapes(model, measures, value_range, span):
  """The shapes of what the evaluators compute of an example."""
  x, weight = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, *model.shape), (1,)))
  keys = jax.random.split(jax.random.key(0), 1)
  statistics = functools.partial(evaluators.statistics(measures, value_range, span), model)
  found = jax.eval_shape(statistics, model.abstract_params(), {"x": x, "weight": weight}, keys)
  return {name: rows.shape[1:] for name, rows in found.items()}


def _train_chunk(state, examples, rows, weights, keys, widths, options, *, over, model, objective, recipe, **static):
  """`steps.train_chunk` of each member: the state's step is that of all, whatever else has a first axis of members."""

  def chunk(params, opt_state, rows, weights, key, widths, options):
    new, terms, finite = steps.train_chunk(
      TrainState(state.step, params, opt_state),
      examples,
      rows,
      weights,
      key,
      model=narrowed.narrow(model, **widths),
      objective=dataclasses.replace(objective, **options["objective"]),
      optimizer=recipe(**options["optimizer"]),
      **static,
    )
    return (new.params, new.opt_state), terms, finite

  new, terms, finite = over(chunk)(state.params, state.opt_state, rows, weights, keys, widths, options)
  return TrainState(state.step + rows.shape[1], *new), terms, finite


def _evaluate(params, step, examples, indices, row_weights, keys, widths, options, *, over, model, objective, **static):
  """`steps.evaluate` of each member."""

  def evaluate(params, key, widths, options):
    own = dataclasses.replace(objective, **options["objective"])
    of_member = {"model": narrowed.narrow(model, **widths), "objective": own}
    return steps.evaluate(params, step, examples, indices, row_weights, key, **of_member, **static)

  return over(evaluate)(params, keys, widths, options)


def _widths(members):
  """Which units of the widest code each member has, and which of the parameters: see `narrowed.Narrowed`."""
  described = widest(members).described
  config, shape = described.config, described.dataset.shape
  wider = models.build(shape=shape, **{**config.model, "latent": config.model.latent + 1})
  abstract = [model.abstract_params() for model in (described.model, wider)]
  depends = [one.shape != other.shape for one, other in zip(*map(jax.tree.leaves, abstract), strict=True)]
  masks = []
  for member in members:
    own = member.described.model.abstract_params()
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), own)
    masks.append(jax.tree.leaves(narrowed.widen(ones, abstract[0], member.latent)))
  mask = [np.stack(leaves) if uses else None for uses, leaves in zip(depends, zip(*masks, strict=True), strict=True)]
  units = np.arange(config.model.latent) < np.array([[member.latent] for member in members])
  return {"units": units.astype(np.float32), "mask": mask}


def _keys(member):
  """The keys of the initialisation and of the noise: those of a run with this seed."""
  return jax.random.split(jax.random.key(member.described.config.seed))


def _stacked(trees):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

"""Compiled functions of a pack of sweep members, whose states are stacked along a first axis.

A member's results do not depend on the other members, bit for bit. The devices share the members; one device computes
its members side by side (`jax.vmap`) or in turn (`jax.lax.map`), whichever is faster there.
"""

import dataclasses
import functools
import time

import jax
import numpy as np
import optax

from ae_jax import evaluators, models
from ae_jax.data import batch_schedule
from ae_jax.models import cost, masking
from ae_jax.sweep import grid
from ae_jax.system import distributed
from ae_jax.training import compiled_stage, steps
from ae_jax.training.compiled_stage import CompiledStage, DeviceData
from ae_jax.training.state import TrainState, init_state


def _in_turn(function):
  return lambda *args: jax.lax.map(lambda each: function(*each), args)


# How the members of one device are computed.
WAYS = {"side by side": jax.vmap, "in turn": _in_turn}


def filled(members, mesh):
  """Returns the members, the last one repeated until every device has equally many."""
  return members + members[-1:] * (-len(members) % mesh.size)


def likely(mesh):
  """Returns the way that is usually faster: in turn on CPU, whose batched products are slower than single ones.

  Measured on 2 cores by experiments/sweep: dense members side by side at 0.8 of the speed in turn, CNNs at 0.7.
  """
  return "in turn" if mesh.devices.flat[0].platform == "cpu" else "side by side"


def widest(members):
  """Returns the member with the largest latent size, whose program the others share."""
  return max(members, key=lambda member: member.latent)


def place(members, mesh) -> DeviceData:
  """Puts the data of the members, `filled`, on the devices."""
  experiment, by_member = widest(members).experiment, distributed.split(mesh, axis=0)
  cut = batch_schedule.in_order(len(experiment.dataset.test), experiment.batch_schedule.batch_size, 1)
  noise_keys = [compiled_stage.keys(member.experiment.config.seed)[1] for member in members]
  noise_keys = jax.random.wrap_key_data(np.stack([jax.random.key_data(key) for key in noise_keys]))
  own = distributed.put((noise_keys, _widths(members)), by_member)
  return compiled_stage.place(experiment, cut, distributed.replicated(mesh), own, by_member)


def feed(members, first, last):
  """Generates the chunks from `first` up to `last`: rows and weights [members, chunk, slots]; see `compiled_stage.feed`."""
  of_seeds = {member.experiment.batch_schedule.seed: member.experiment for member in members}
  feeds = [compiled_stage.feed(experiment, slice(None), first, last) for experiment in of_seeds.values()]
  for chunks in zip(*feeds, strict=True):
    of_seed = dict(zip(of_seeds, chunks, strict=True))
    own = [of_seed[member.experiment.batch_schedule.seed] for member in members]
    yield tuple(np.stack(part) for part in zip(*own, strict=True))


def start(members, device_data):
  """Returns the state before the first step: each member is initialised at its own size, then widened with zeros."""
  experiment = widest(members).experiment
  init, ema = jax.jit(_init, static_argnames=("model", "ema")), experiment.config.ema_decay > 0
  keys = [compiled_stage.keys(member.experiment.config.seed)[0] for member in members]
  own = [init(key, member.experiment.model, ema) for key, member in zip(keys, members, strict=True)]
  return restart(experiment.stages[0], device_data)(_join(own, _abstract(experiment.model, ema), members, device_data))


def restart(stage, device_data):
  """Returns a function (state) -> state with new optimizer states for a stage."""

  def function(state):
    return dataclasses.replace(state, opt_state=jax.vmap(stage.optimizer.init)(state.params))

  return jax.jit(function, out_shardings=_places(device_data))


def build(members, device_data, number, state, way) -> CompiledStage:
  """Compiles the functions of a stage, given by its number, for states like `state`; `way` is one of WAYS."""
  begun = time.perf_counter()
  experiment = widest(members).experiment
  stage, schedule, on_nan = experiment.stages[number], experiment.batch_schedule, experiment.config.on_nan
  fixed = {"model": experiment.model, "value_range": experiment.dataset.value_range, "objective": stage.objective}
  options = distributed.put(
    _stacked([grid.numbers(member.experiment)[number] for member in members]), device_data.split
  )
  own, shape = (*device_data.own, options), (len(members), schedule.chunk, schedule.padded_batch_size)
  batches = [jax.ShapeDtypeStruct(shape, kind, sharding=device_data.split) for kind in (np.int32, np.float32)]
  arguments = compiled_stage.chunk_arguments(device_data, own, state, *batches)
  fixed |= {"over": WAYS[way]}
  trained = {
    "optimizer_factory": stage.optimizer_factory,
    "microbatches": stage.microbatches,
    "ema_decay": experiment.config.ema_decay,
    **fixed,
  }
  trained |= {"on_nan": "skip" if on_nan == "skip" else None, "augment": experiment.augment}
  results = (_places(device_data), device_data.split, device_data.split)
  train_chunk = steps.compiled(_train_chunk, arguments, results, donate=(0,), **trained)
  fixed["statistics"] = evaluators.statistics(
    experiment.evaluators, experiment.dataset.value_range, experiment.dataset.span
  )
  evaluate = steps.compiled(
    _evaluate, compiled_stage.test_arguments(device_data, own, state), device_data.split, **fixed
  )
  train, tested = compiled_stage.bound(device_data, own, schedule.padded_batch_size, train_chunk, evaluate)
  return CompiledStage(
    restart=restart(stage, device_data),
    train_chunk=train,
    evaluate=tested,
    compile_seconds=time.perf_counter() - begun,
    peak_bytes=_peak_bytes(members, device_data, state, train_chunk, evaluate),
  )


def _peak_bytes(members, device_data, state, train_chunk, evaluate):
  """Returns the memory that each device needs, data and states included, as the compiler predicts it."""
  size, rest = device_data.split.mesh.size, dataclasses.replace(state, step=None, params=None)
  training = _bytes_of_program(train_chunk) + _bytes(device_data.test)
  evaluating = _bytes_of_program(evaluate) + _bytes(device_data.train) + _bytes(rest) // size
  saved = state_bytes(widest(members)) * len(members) if size > 1 else 0  # on the first device
  return max(training, evaluating) + saved


def _bytes_of_program(compiled):
  """Returns the memory of a device that a compiled function needs, its arguments included."""
  sizes = compiled.memory_analysis()
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + results


def _bytes(tree):
  return cost.bytes_of(jax.tree.leaves(tree))


def joined(members, states, device_data):
  """Joins the states of single members, all of the same step, to that of a pack; the inverse of `own_states`."""
  return _join(states, _at_the_end(widest(members).experiment), members, device_data)


def _join(states, like, members, device_data):
  """Widens the states of members to the shapes of `like`, stacks them, and puts them on the devices."""
  pairs = zip(states, members, strict=True)
  wide = [masking.pad(jax.tree.map(np.asarray, own), like, member.latent) for own, member in pairs]
  return from_saved(dataclasses.replace(_stacked(wide), step=states[0].step), device_data)


def to_save(state, count):
  """Returns the state of the first `count` members on one device, so that any number of devices can restore it."""
  first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  trimmed = jax.tree.map(lambda leaf: jax.device_put(leaf, first)[:count], _of_members(state))
  return dataclasses.replace(trimmed, step=jax.device_put(state.step, first))


def from_saved(state, device_data):
  """Puts a saved state on all devices, padded like the members by `filled`; the inverse of `to_save`.

  A sharded axis must be a multiple of the devices.
  """
  own = jax.tree.map(np.asarray, _of_members(state))
  more = -len(jax.tree.leaves(own)[0]) % device_data.split.mesh.size
  padded = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], more, 0)]), own)
  return dataclasses.replace(
    distributed.put(padded, device_data.split), step=distributed.put(state.step, device_data.everywhere)
  )


def own_states(members, state):
  """Generates the state of each member, at its own size, NumPy arrays."""
  whole = jax.tree.map(np.asarray, _of_members(state))
  for index, member in enumerate(members):
    own = jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), whole)
    cut = masking.unpad(own, _of_members(_at_the_end(member.experiment)), member.latent)
    yield dataclasses.replace(cut, step=np.asarray(state.step))


def own_values(member, values):
  """Returns what `evaluate` computed for a member, {name: [batches, B, ...]}, without the units that it lacks."""
  experiment = member.experiment
  shapes = _shapes(experiment.model, experiment.evaluators, experiment.dataset.value_range, experiment.dataset.span)
  like = {name: jax.ShapeDtypeStruct(rows.shape[:2] + shapes[name], rows.dtype) for name, rows in values.items()}
  return masking.unpad(values, like, member.latent)


def state_bytes(member):
  """Returns the bytes of the state of a member, but for the step, at its own size."""
  return _bytes(_of_members(_at_the_end(member.experiment)))


def own_like(member):
  """Returns the shapes and types of the state of a member, at its own size, on the first device."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = _at_the_end(member.experiment)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like)


def _of_members(state):
  """Returns a state without its step: all that remains has a first axis of members."""
  return dataclasses.replace(state, step=None)


def _places(device_data):
  """Returns the shardings of the state of a pack: members are split over the devices, the step is replicated."""
  split = {field.name: device_data.split for field in dataclasses.fields(TrainState)}
  return TrainState(**split | {"step": device_data.everywhere})


def _init(key, model, ema):
  """Returns the state of a member before the first step, without that of an optimizer."""
  return init_state(key, model=model, optimizer=optax.identity(), ema=ema)


@functools.lru_cache(maxsize=1024)
def _abstract(model, ema):
  return jax.eval_shape(functools.partial(_init, model=model, ema=ema), jax.random.key(0))


def _at_the_end(experiment):
  """Returns the shapes and types of a member's state in the last stage."""
  abstract = _abstract(experiment.model, experiment.config.ema_decay > 0)
  opt_state = jax.eval_shape(experiment.stages[-1].optimizer.init, abstract.params)
  return dataclasses.replace(abstract, opt_state=opt_state)


@functools.lru_cache(maxsize=1024)
def _shapes(model, measures, value_range, span):
  """Returns the shapes of what the evaluators compute of an example."""
  statistics = functools.partial(evaluators.statistics(measures, value_range, span), model)
  found = jax.eval_shape(statistics, model.abstract_variables(), *cost.abstract_batch(model, 1))
  return {name: rows.shape[1:] for name, rows in found.items()}


def _train_chunk(
  state, examples, rows, weights, keys, widths, options, *, over, model, objective, optimizer_factory, **static
):
  """Applies `steps.train_chunk` to each member; all arguments but examples and step have a first axis of members."""

  def chunk(own, rows, weights, key, widths, options):
    of_member = _of_member(model, objective, widths, options) | {"optimizer": optimizer_factory(**options["optimizer"])}
    own = dataclasses.replace(own, step=state.step)
    new, terms, finite = steps.train_chunk(own, examples, rows, weights, key, **of_member, **static)
    return _of_members(new), terms, finite

  new, terms, finite = over(chunk)(_of_members(state), rows, weights, keys, widths, options)
  return dataclasses.replace(new, step=state.step + rows.shape[1]), terms, finite


def _evaluate(variables, step, examples, indices, weights, keys, widths, options, *, over, model, objective, **static):
  """Applies `steps.evaluate` to each member."""

  def evaluate(variables, key, widths, options):
    of_member = _of_member(model, objective, widths, options)
    return steps.evaluate(variables, step, examples, indices, weights, key, **of_member, **static)

  return over(evaluate)(variables, keys, widths, options)


def _of_member(model, objective, widths, options):
  objective = dataclasses.replace(objective, **options["objective"])
  model = model if model.code.size_axis is None else masking.mask_model(model, **widths)
  return {"model": model, "objective": objective}


def _widths(members):
  """Returns which units of the widest latent each member has, and which parameters: see `masking.MaskedModel`.

  The members of a pack have one latent size if the code cannot be padded: {}.
  """
  experiment = widest(members).experiment
  config, model = experiment.config, experiment.model
  if model.code.size_axis is None:
    return {}
  longer = {**config.model, "latent": config.model.latent + 1}
  wider = models.build(shape=model.shape, labels=model.labels, **longer)
  abstract = [each.abstract_variables().params for each in (model, wider)]
  depends = [one.shape != other.shape for one, other in zip(*map(jax.tree.leaves, abstract), strict=True)]
  masks = []
  for member in members:
    own = member.experiment.model.abstract_variables().params
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), own)
    masks.append(jax.tree.leaves(masking.pad(ones, abstract[0], member.latent)))
  mask = [np.stack(leaves) if uses else None for uses, leaves in zip(depends, zip(*masks, strict=True), strict=True)]
  units = np.arange(config.model.latent) < np.array([[member.latent] for member in members])
  return {"latent_mask": units.astype(np.float32), "mask": mask}


def _stacked(trees):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

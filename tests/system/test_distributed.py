"""Data parallelism over virtual devices agrees with one device, and processes agree with each other."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES, config_of
from jax.sharding import PartitionSpec

from ae_jax import models, objectives
from ae_jax.data import augmentation, batch_schedule, ranges
from ae_jax.system import distributed
from ae_jax.system.data_parallel import SINGLE_DEVICE, DataParallel
from ae_jax.training import optimizers, programs, steps
from ae_jax.training.state import init_state

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)


@functools.cache
def initial(model, optimizer, ema):
  """Returns the initial state as NumPy arrays: one program for all device counts."""
  init = jax.jit(functools.partial(init_state, model=model, optimizer=optimizer, ema=ema))
  return jax.tree.map(np.asarray, init(jax.random.key(0)))


@functools.cache
def trained(
  name,
  devices=1,
  mode="jit",
  kind="replicated",
  batch_size=13,
  accumulate=1,
  dropout=0.0,
  ema=0.0,
  augment=None,
  **optimizer,
):
  """Trains an epoch; returns the state, the terms and the compiled chunk. No device count divides the batch size."""
  options, objective = FAMILIES[name]
  options = {**options, "dropout": dropout}
  config = config_of(name, *(["digits"] if name != "sequence" else []))
  shape = (64, 1) if name == "sequence" else (8, 8, 1)
  model = models.build(shape=shape, **{**config.model, **options})
  mesh = distributed.mesh(jax.devices()[:devices])
  schedule = batch_schedule.BatchSchedule(48, batch_size, devices * accumulate, seed=0)
  optimizer = {**config.optimizer, "name": "momentum", "learning_rate": 1e-3, "warmup_epochs": 0.0, **optimizer}
  static = {
    "model": model,
    "objective": objectives.build(model=model, value_range="unit", likelihood="bernoulli", **objective),
    "optimizer": optimizers.optimizer_factory(**optimizer, epochs=1, steps_per_epoch=schedule.steps)(),
  }
  everywhere, cut = distributed.replicated(mesh), distributed.sharded(mesh, axis=1)
  key = distributed.put(jax.random.key(0), everywhere)
  state = initial(model, static["optimizer"], ema > 0)
  places = distributed.state_shardings(mesh, state, kind)
  state = jax.device_put(state, places)
  rows = [distributed.put(part, cut) for part in schedule.batches(0)]
  arguments = (state, distributed.put({"x": IMAGES}, everywhere), *rows, key)
  data_parallel = distributed.build_data_parallel(mesh, state.params, kind)
  results = (places, everywhere, everywhere)
  more = {
    "value_range": "unit",
    "microbatches": accumulate,
    "data_parallel": data_parallel,
    "augment": augment,
    "ema_decay": ema,
  }
  chunk = programs.compile_program(
    steps.train_chunk, arguments, results, mode=distributed.MODES[mode], **static, **more
  )
  state, terms, finite = chunk(*arguments)
  assert np.asarray(finite).all()
  return state, terms, chunk


# Family -> (number of devices, config.parallel, config.parallel_state).
WAYS = {name: [(2, "jit", "sharded")] for name in FAMILIES}
WAYS["cnn"] += [(4, "jit", "replicated")]
WAYS["sparse"] += [(4, "pmap", "replicated")]
WAYS["dense"] += [(4, "jit", "replicated"), (8, "jit", "replicated"), (8, "jit", "sharded"), (4, "pmap", "replicated")]
HEAVY = ("unet", "attention", "sequence")  # compile longest; their gradient is an array per parameter as any other's


@pytest.mark.parametrize(
  ("name", "way"),
  [pytest.param(name, way, marks=pytest.mark.slow if name in HEAVY else ()) for name in FAMILIES for way in WAYS[name]],
  ids=str,
)
def test_devices_agree_with_one_device(name, way):
  """Losses, terms and parameters agree to rounding for every model family and mode of data parallelism."""
  state, terms, _ = trained(name)
  others, other_terms, _ = trained(name, *way)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other_terms, terms)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), others.params, state.params)


EVERYTHING = {"dropout": 0.2, "ema": 0.9}


@pytest.mark.parametrize("way", [(1,), (2, "jit", "sharded"), (4, "pmap"), (8, "jit", "sharded")], ids=str)
def test_codebook_dropout_and_averages_do_not_depend_on_the_split_of_the_batch(way):
  """The batch is split over devices, and the examples of a device into four microbatches."""
  state, terms, _ = trained("vqvae", **EVERYTHING)
  others, other_terms, _ = trained("vqvae", *way, accumulate=1 if way[0] == 8 else 4, **EVERYTHING)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other_terms, terms)
  for part in ("params", "model_state", "ema_params"):
    pair = (getattr(result, part) for result in (others, state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-6), *pair)
  assert float(state.model_state["examples"]) == 12
  undropped, _, _ = trained("vqvae")
  pairs = zip(*map(jax.tree.leaves, (state.params, undropped.params)), strict=True)
  assert max(np.abs(a - b).max() for a, b in pairs) > 1e-5
  averages = zip(*map(jax.tree.leaves, (state.ema_params, state.params)), strict=True)
  assert max(np.abs(a - b).max() for a, b in averages) > 1e-6


@pytest.mark.parametrize(("way", "accumulate"), [((1, "jit", "replicated"), 3), ((4, "jit", "sharded"), 13)], ids=str)
def test_accumulated_microbatches_agree_with_the_whole_batch(way, accumulate):
  state, terms, _ = trained("dense")
  others, other_terms, _ = trained("dense", *way, accumulate=accumulate)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other_terms, terms)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), others.params, state.params)


AUGMENT = augmentation.build(
  ({"name": "flip"}, {"name": "shift", "pixels": 1}, {"name": "brightness", "level": 0.2}),
  (8, 8, 1),
  "unit",
  ranges.SPANS["unit"],
)


@pytest.mark.parametrize(
  "way", [(1, "jit", "replicated"), (2, "jit", "sharded"), (4, "pmap", "replicated"), (8,)], ids=str
)
def test_augmentation_does_not_depend_on_the_split_of_the_batch(way):
  """The batch is split over devices, and the examples of a device into four microbatches."""
  state, terms, _ = trained("dense", augment=AUGMENT)
  others, other_terms, _ = trained("dense", *way, accumulate=1 if way == (8,) else 4, augment=AUGMENT)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other_terms, terms)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), others.params, state.params)
  plain, _, _ = trained("dense")
  pairs = zip(*map(jax.tree.leaves, (state.params, plain.params)), strict=True)
  assert max(np.abs(a - b).max() for a, b in pairs) > 1e-4


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_gradients_are_clipped_by_their_global_norm(kind):
  state, _, _ = trained("dense", clip_norm=0.1)
  others, _, _ = trained("dense", 4, "jit", kind, clip_norm=0.1)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), others.params, state.params)
  free, _, _ = trained("dense")
  assert any(
    np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (state.params, free.params)), strict=True)
  )


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_number_of_collectives_does_not_depend_on_the_number_of_parameters(name):
  """One all-reduce; with sharding one all-gather, one reduce-scatter, and the all-reduce of the gradient norm."""

  def collectives(kind):
    program = trained(name, 4, "jit", kind)[2].as_text()
    pattern = r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
    return sorted(re.findall(pattern, program))

  assert collectives("replicated") == ["all-reduce"]
  assert collectives("sharded") == ["all-gather", "all-reduce", "reduce-scatter"]


@pytest.mark.parametrize(("replicated_size", "reductions"), [(3, 0), (20, 1), (500, 1)])
def test_reduce_gradients_returns_sums_over_devices(replicated_size, reductions):
  """Arrays are sharded along either axis or replicated; large replicated arrays have an all-reduce of their own."""
  mesh = distributed.mesh(jax.devices()[:4])
  data_parallel = DataParallel(4, cuts=(0, 1, None))
  generator = np.random.default_rng(0)
  sent = [generator.normal(size=(4, *shape)).astype(np.float32) for shape in ((8, 3), (5, 4), (replicated_size,))]
  shardings = [distributed.sharded(mesh, 0), distributed.sharded(mesh, 1), distributed.replicated(mesh)]
  places = (shardings, distributed.replicated(mesh))
  arguments = tuple(distributed.put(array, distributed.sharded(mesh, 0)) for array in sent)
  reduce_gradients = lambda *leaves: data_parallel.reduce_gradients([leaf[0] for leaf in leaves], leaves[2].sum())
  program = distributed.jit(reduce_gradients, arguments, places)
  gradient, total = program(*arguments)
  for leaf, array in zip(gradient, sent, strict=True):
    np.testing.assert_allclose(leaf, array.sum(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(total, sent[2].sum(), rtol=1e-4)
  assert len(re.findall(r" reduce-scatter(?:-start)?\(", program.as_text())) == 1
  assert len(re.findall(r" all-reduce(?:-start)?\(", program.as_text())) == reductions


def test_collectives_agree_with_one_device():
  """Four devices with different weights, one of which has only padding."""
  mesh = distributed.mesh(jax.devices()[:4])
  data_parallel, generator = DataParallel(4, cuts=(0, 1, None)), np.random.default_rng(0)
  params = [generator.normal(size=shape).astype(np.float32) for shape in ((8, 3), (5, 4), (3,))]
  values = generator.normal(size=(12, 2)).astype(np.float32)
  weight = np.float32([1, 2, 1, 0, 0, 0, 3, 0, 1, 1, 1, 1])
  everywhere, rows = distributed.replicated(mesh), distributed.sharded(mesh, 0)
  shardings = [distributed.sharded(mesh, 0), distributed.sharded(mesh, 1), everywhere]
  arguments = (
    [distributed.put(*pair) for pair in zip(params, shardings, strict=True)],
    *(distributed.put(array, rows) for array in (values, weight)),
  )

  def on_device(shards, values, weight):
    mean, back = jax.vjp(lambda values: jnp.square(data_parallel.mean(values, weight)).sum(), values)
    local_weight = weight.sum()
    shared = {
      "params": data_parallel.all_gather_params(shards),
      "norm": data_parallel.norm(shards),
      "total": data_parallel.total(weight @ values),
      "all_gather": data_parallel.all_gather(values),
      "mean": mean,
    }
    numbers = data_parallel.first_row(3) + jnp.arange(3)
    return shared, (numbers, local_weight * back(jnp.ones(()))[0])

  shared, (numbers, slopes) = distributed.jit(on_device, arguments, (everywhere, rows))(*arguments)
  mean = weight @ values / weight.sum()
  expected = {
    "params": params,
    "norm": np.sqrt(sum(np.square(leaf).sum() for leaf in params)),
    "total": weight @ values,
    "all_gather": values,
    "mean": np.square(mean).sum(),
  }
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), shared, expected)
  np.testing.assert_array_equal(numbers, np.arange(12))
  np.testing.assert_allclose(slopes, 2 * weight[:, None] * mean[None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("shape", "axis"),
  [((4, 8), 1), ((8, 8), 0), ((12, 4, 6), 0), ((6, 4, 10), 1), ((3, 5), None), ((), None), ((0, 3), None)],
)
def test_longest_divisible_axis_is_sharded(shape, axis):
  assert distributed.axis_to_shard(shape, 4) == axis


def test_sharding_has_no_effect_on_one_device():
  params = [jax.ShapeDtypeStruct((8, 3), np.float32)]
  one, four = (distributed.mesh(jax.devices()[:count]) for count in (1, 4))
  assert distributed.build_data_parallel(one, params, "sharded") == SINGLE_DEVICE
  assert distributed.build_data_parallel(four, params) == DataParallel(4)
  assert distributed.build_data_parallel(four, params, "sharded") == DataParallel(4, cuts=(0,))


@dataclasses.dataclass
class DeviceData:
  """A fake of a JAX array, for `at_hand`."""

  is_fully_addressable: bool
  platforms: tuple[str, ...]

  def devices(self):
    return [types.SimpleNamespace(platform=platform) for platform in self.platforms]


@pytest.mark.parametrize(
  ("array", "expected"),
  [
    (np.ones(2), True),
    (DeviceData(True, ("cpu", "cpu")), True),
    (DeviceData(False, ("cpu", "cpu")), False),
    (DeviceData(True, ("cuda",)), False),
    (DeviceData(True, ("cpu", "cuda")), False),
  ],
)
def test_at_hand_accepts_numpy_arrays_and_unsharded_cpu_arrays(monkeypatch, array, expected):
  monkeypatch.setattr(jax, "Array", DeviceData)
  assert distributed.is_in_host_memory(array) == expected


@pytest.fixture
def two_processes(monkeypatch):
  """A function that fakes two processes: it sets the index of this one and the number that the other sends."""

  def become(index, other):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", lambda number: np.stack([number, other]))

  return become


@pytest.mark.parametrize("mine", [3.0, 7.0])
def test_least_returns_the_minimum_over_processes(two_processes, mine):
  assert distributed.global_min(mine) == mine
  two_processes(0, np.float32(5))
  assert distributed.global_min(mine) == min(mine, 5)


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_agreed_is_true_only_if_true_in_all_processes(two_processes, mine, other):
  assert distributed.all_processes(mine) is mine
  two_processes(1, np.float32(other))
  assert distributed.all_processes(mine) is (mine and other)


def test_failure_in_the_first_process_fails_in_all(two_processes):
  calls = []

  def fail():
    calls.append("fail")
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    distributed.on_first_process(fail)
  two_processes(0, np.float32(1))
  with pytest.raises(OSError, match="disk full"):
    distributed.on_first_process(fail)
  assert len(calls) == 2
  two_processes(1, np.float32(0))  # the first process reports its failure
  with pytest.raises(distributed.FailedElsewhere):
    distributed.on_first_process(fail)
  two_processes(1, np.float32(1))
  distributed.on_first_process(fail)
  assert len(calls) == 2  # only the first process calls the action


@pytest.mark.parametrize("compile_", [distributed.jit, distributed.auto])
def test_only_donated_arguments_are_deleted(compile_):
  everywhere = distributed.replicated(distributed.mesh(jax.devices()[:2]))
  arguments = tuple(distributed.put(np.ones(3, np.float32), everywhere) for _ in range(2))
  compile_(lambda a, b: a + b, arguments, everywhere, donate=(0,))(*arguments)
  assert [argument.is_deleted() for argument in arguments] == [True, False]


def test_sharded_state_needs_a_fraction_of_the_memory():
  replicated, sharded = (trained("dense", 8, "jit", kind)[0] for kind in ("replicated", "sharded"))
  sizes = [
    sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves((state.params, state.opt_state)))
    for state in (replicated, sharded)
  ]
  assert sizes[1] < 0.25 * sizes[0]


def test_mesh_and_shardings():
  mesh = distributed.mesh(jax.devices())
  assert mesh.axis_names == ("data",)
  assert mesh.size == 8
  assert distributed.sharded(mesh, axis=1).spec == PartitionSpec(None, "data")
  assert distributed.replicated(mesh).is_fully_replicated
  assert distributed.local_rows(distributed.sharded(mesh, axis=1), 16) == slice(0, 16)

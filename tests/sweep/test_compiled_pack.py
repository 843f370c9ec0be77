"""A member is what it would be alone: whatever the others are, however wide the program's code is."""

import functools
import itertools

import jax
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax.models import masking
from ae_jax.sweep import compiled_pack, grid
from ae_jax.system import distributed
from ae_jax.training import compiled_stage as single
from ae_jax.training import setup, steps

pytestmark = pytest.mark.runs_optax

KINDS = {  # all that a code goes into: noise, means over the batch, penalties of each unit
  **FAMILIES,
  "tied": ({"latent": 4, "widths": (16,)}, {"name": "reconstruction"}),
  "contractive": ({"latent": 4, "widths": (16,)}, {"name": "contractive", "weight": 0.1, "probes": 2}),
  "augmented": ({"latent": 4, "widths": (16,)}, FAMILIES["dense"][1]),
  "l1": ({"latent": 4, "widths": (16,), "bottleneck": "sigmoid"}, {**FAMILIES["sparse"][1], "penalty": "l1"}),
}
MAIN = ("dense", "tied", "cnn", "vae")
HEAVY = ("unet", "attention", "sequence")  # a minute each, to compile
FILES = {"contractive": "contractive", "l1": "sparse", "augmented": "dense"}


LR = "optimizer.learning_rate"
BOTH = (("model.latent", (6, 8)), (LR, (1e-3, 4e-3)))
SINGLE_DEVICE = (("model.latent", (6,)), (LR, (1e-3, 4e-3)))  # for a code that cannot be padded


def config(kind):
  """The config of a kind, on digits or heartbeats, small."""
  model, objective = KINDS[kind]
  made = config_of(FILES.get(kind, kind), *(() if kind == "sequence" else ("digits",)))
  made.model.update(model)
  made.objective = {"likelihood": made.objective.likelihood, **objective}
  made.update({"batch_size": 64, "optimizer": {"weight_decay": 0.01, "warmup_epochs": 0.0}})
  if kind == "augmented":
    made.data.augment = ({"name": "flip"}, {"name": "shift", "pixels": 1}, {"name": "brightness", "level": 0.2})
  return made


@functools.cache
def trained(kind, axes, way="in turn"):
  """{name: (own state, losses of the first epoch, its shapes)} of the members, and the state of all."""
  (pack,) = grid.packs(members(kind, axes))
  device_data = compiled_pack.place(pack, distributed.mesh())
  built = compiled_pack.build(pack, device_data, 0, compiled_pack.start(pack, device_data), way)
  chunks = [member.experiment.batch_schedule.chunks(0)[0] for member in pack]
  batches = (np.stack(part) for part in zip(*chunks, strict=True))
  state, terms, finite = built.train_chunk(compiled_pack.start(pack, device_data), *batches)
  assert np.asarray(finite).all()
  _, values = built.evaluate(state)
  found = {}
  for index, own in enumerate(compiled_pack.own_states(pack, state)):
    mine = compiled_pack.own_values(pack[index], {name: np.asarray(rows)[index] for name, rows in values.items()})
    found[pack[index].name] = (own, np.asarray(terms["loss"])[index], mine)
  return found, state


def members(kind, axes):
  """The members of the grid of the axes."""
  keys, values = zip(*axes, strict=True)
  return grid.members(config(kind), list(keys), list(itertools.product(*values)))


def equal(a, b):
  """Whether two trees of arrays are the same bit for bit."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def is_the_masked(kind, latent, wider):
  """Whether members of a latent size are, bit for bit, those that share the program of a wider one."""
  masked, _ = trained(kind, (("model.latent", (latent, wider)), BOTH[1]))
  true, _ = trained(kind, (("model.latent", (latent,)), BOTH[1]))
  return all(equal(masked[name][0], true[name][0]) for name in true)


@pytest.mark.parametrize(
  ("kind", "way"), [*((kind, "in turn") for kind in MAIN), ("dense", "side by side"), ("cnn", "side by side")]
)
def test_a_member_is_the_same_bit_for_bit_whatever_the_others_are(kind, way):
  one, _ = trained(kind, BOTH, way)
  other, _ = trained(kind, (("model.latent", (8, 6)), (LR, (0.3, 1e-3))), way)
  for name in ("latent=6,learning_rate=0.001", "latent=8,learning_rate=0.001"):
    assert equal(one[name], other[name])
    assert not equal(one[name], one[name.replace("0.001", "0.004")])


@pytest.mark.parametrize("kind", MAIN)
def test_a_masked_member_is_the_model_of_its_own_size_bit_for_bit(kind):
  # which widths it multiplies in the same order is the processor's affair (README): some pair of these on any
  assert any(is_the_masked(kind, *widths) for widths in ((6, 8), (4, 8), (2, 4)))


@pytest.mark.parametrize(
  "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in HEAVY else ()) for kind in KINDS]
)
def test_units_that_a_member_has_not_stay_zero_and_the_rest_is_a_single_run_to_rounding(kind):
  found, state = trained(kind, SINGLE_DEVICE if kind == "vqvae" else BOTH)
  own, losses, values = found["latent=6,learning_rate=0.001"]
  whole = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.params)
  assert equal(masking.pad(jax.tree.map(np.asarray, own.params), whole, 6), whole)
  assert all(8 not in rows.shape[2:] for rows in values.values())

  alone = config(kind)
  alone.model.latent, alone.optimizer.learning_rate = 6, 1e-3
  experiment = setup.of(alone, 1)
  (stage,), schedule = experiment.stages, experiment.batch_schedule
  device_data, start = single.begin(experiment, distributed.mesh())
  assert jax.tree.structure(start) == jax.tree.structure(own)
  static = {"model": experiment.model, "objective": stage.objective, "value_range": experiment.dataset.value_range}
  static["augment"] = experiment.augment
  chunk = jax.jit(
    functools.partial(steps.train_chunk, optimizer=stage.optimizer, microbatches=stage.microbatches, **static)
  )
  end, terms, _ = chunk(start, device_data.train, *schedule.chunks(0)[0], *device_data.own)
  np.testing.assert_allclose(losses[:10], terms["loss"][:10], rtol=2e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05), own.model_state, end.model_state)


def test_latent_sizes_of_a_code_that_cannot_be_padded_share_no_program():
  assert [len(pack) for pack in grid.packs(members("vqvae", BOTH))] == [2, 2]
  assert [len(pack) for pack in grid.packs(members("dense", BOTH))] == [4]

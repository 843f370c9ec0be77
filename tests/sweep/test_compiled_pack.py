"""A member's training depends neither on the other members of its pack nor on the padded latent size."""

import functools
import itertools

import jax
import numpy as np
import pytest
from conftest import FAMILIES, config_of

from ae_jax.models import masking
from ae_jax.sweep import compiled_pack, grid
from ae_jax.system import distributed
from ae_jax.training import device_arrays, setup, steps

pytestmark = pytest.mark.runs_optax

KINDS = {  # every use of the latent code: noise, means over the batch, penalties of single units
  **FAMILIES,
  "dense": ({"latent": 4, "widths": (16,), "linear_path": "pca"}, FAMILIES["dense"][1]),  # its state depends on data
  "tied": ({"latent": 4, "widths": (16,)}, {"name": "reconstruction"}),
  "contractive": ({"latent": 4, "widths": (16,)}, {"name": "contractive", "weight": 0.1, "probes": 2}),
  "augmented": ({"latent": 4, "widths": (16,)}, FAMILIES["dense"][1]),
  "l1": ({"latent": 4, "widths": (16,), "bottleneck": "sigmoid"}, {**FAMILIES["sparse"][1], "penalty": "l1"}),
}
MAIN = ("dense", "tied", "cnn", "vae")
HEAVY = ("unet", "attention", "sequence")  # compile for a minute each
FILES = {"contractive": "contractive", "l1": "sparse", "augmented": "dense"}


LR = "optimizer.learning_rate"
BOTH = (("model.latent", (6, 8)), (LR, (1e-3, 4e-3)))
ONE_SIZE = (("model.latent", (6,)), (LR, (1e-3, 4e-3)))  # for a latent code that cannot be padded


def config(kind):
  """Returns a small config of a kind, on digits or heartbeats."""
  model, objective = KINDS[kind]
  result = config_of(FILES.get(kind, kind), *(() if kind == "sequence" else ("digits",)))
  result.model.update(model)
  result.objective = {"likelihood": result.objective.likelihood, **objective}
  result.update({"batch_size": 64, "optimizer": {"weight_decay": 0.01, "warmup_epochs": 0.0}})
  if kind == "augmented":
    result.data.augment = ({"name": "flip"}, {"name": "shift", "pixels": 1}, {"name": "brightness", "level": 0.2})
  return result


@functools.cache
def trained(kind, axes, way="in turn"):
  """Trains one chunk; returns {name: (state, losses, test values)} of the members, and the state of the pack."""
  (pack,) = grid.packs(members(kind, axes))
  device_data = compiled_pack.place_data(pack, distributed.mesh())
  built = compiled_pack.build(pack, device_data, 0, compiled_pack.start(pack, device_data), way)
  chunks = [member.experiment.batch_schedule.chunks(0)[0] for member in pack]
  batches = (np.stack(part) for part in zip(*chunks, strict=True))
  state, terms, finite = built.train_chunk(compiled_pack.start(pack, device_data), *batches)
  assert np.asarray(finite).all()
  _, values = built.evaluate(state)["test"]
  results = {}
  for index, member_state in enumerate(compiled_pack.member_states(pack, state)):
    member_rows = {name: np.asarray(rows)[index] for name, rows in values.items()}
    member_values = compiled_pack.member_values(pack[index], member_rows)
    results[pack[index].name] = (member_state, np.asarray(terms["loss"])[index], member_values)
  return results, state


def members(kind, axes):
  """Returns the members of the grid of the axes."""
  keys, values = zip(*axes, strict=True)
  return grid.members(config(kind), list(keys), list(itertools.product(*values)))


def equal(a, b):
  """Returns whether two pytrees of arrays are bitwise equal."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def masked_equals_unmasked(kind, latent, wider):
  """Returns whether members have bitwise the same states in a pack of their own latent size and in a wider one."""
  masked, _ = trained(kind, (("model.latent", (latent, wider)), BOTH[1]))
  unmasked, _ = trained(kind, (("model.latent", (latent,)), BOTH[1]))
  return all(equal(masked[name][0], unmasked[name][0]) for name in unmasked)


@pytest.mark.parametrize(
  ("kind", "way"),
  [
    *((kind, "in turn") for kind in MAIN),
    ("dense", "side by side"),
    pytest.param("cnn", "side by side", marks=pytest.mark.slow),
  ],
)
def test_member_is_bitwise_independent_of_other_members(kind, way):
  one, _ = trained(kind, BOTH, way)
  other, _ = trained(kind, (("model.latent", (8, 6)), (LR, (0.3, 1e-3))), way)
  for name in ("latent=6,learning_rate=0.001", "latent=8,learning_rate=0.001"):
    assert equal(one[name], other[name])
    assert not equal(one[name], one[name.replace("0.001", "0.004")])


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "cnn" else ()) for kind in MAIN])
def test_masked_member_is_bitwise_the_model_of_its_latent_size(kind):
  # It depends on the CPU which widths it multiplies in the same order (README); at least one of these pairs on any CPU.
  assert any(masked_equals_unmasked(kind, *widths) for widths in ((6, 8), (4, 8), (2, 4)))


@pytest.mark.parametrize(
  "kind",
  [  # those of MAIN share their packs with tests of equal bits
    pytest.param(kind, marks=[pytest.mark.slow] * (kind in HEAVY) + [pytest.mark.quick_compile] * (kind not in MAIN))
    for kind in KINDS
  ],
)
def test_padded_units_stay_zero_and_member_matches_single_run(kind):
  results, state = trained(kind, ONE_SIZE if kind == "vqvae" else BOTH)
  member_state, losses, values = results["latent=6,learning_rate=0.001"]
  padded = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.params)
  assert equal(masking.pad(jax.tree.map(np.asarray, member_state.params), padded, 6), padded)
  assert all(8 not in rows.shape[2:] for rows in values.values())

  single_config = config(kind)
  single_config.model.latent, single_config.optimizer.learning_rate = 6, 1e-3
  experiment = setup.build_experiment(single_config, 1)
  (stage,), batch_schedule = experiment.stages, experiment.batch_schedule
  device_data, start = device_arrays.place_and_init(experiment, distributed.mesh())
  start = device_arrays.fit_to_data(start, experiment)
  assert jax.tree.structure(start) == jax.tree.structure(member_state)
  static = {"model": experiment.model, "objective": stage.objective, "value_range": experiment.dataset.value_range}
  static["augment"] = experiment.augment
  chunk = jax.jit(
    functools.partial(steps.train_chunk, optimizer=stage.optimizer, microbatches=stage.microbatches, **static)
  )
  end, terms, _ = chunk(start, device_data.train, *batch_schedule.chunks(0)[0], *device_data.model_args)
  np.testing.assert_allclose(losses[:10], terms["loss"][:10], rtol=2e-4)
  close = functools.partial(np.testing.assert_allclose, rtol=0.05, atol=0.05)
  jax.tree.map(close, member_state.model_state, end.model_state)


def test_latent_sizes_share_a_program_only_if_the_code_can_be_padded():
  assert [len(pack) for pack in grid.packs(members("vqvae", BOTH))] == [2, 2]
  assert [len(pack) for pack in grid.packs(members("dense", BOTH))] == [4]

"""Grids: names of members, invalid axes, and which members share a program."""

import functools
import math

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors
from ae_jax.models import families
from ae_jax.sweep import grid

RATE = "optimizer.learning_rate"


@functools.cache
def cnn_vae():
  """Returns configs/vae.py:digits with convolutions and one batch of 1,024 examples per epoch."""
  config = config_of("vae", "digits")
  config.model = config_of("cnn", "digits").model
  config.model.update({"latent": 4, "channels": (3, 4), "decoder_kernels": (3, 2), "bottleneck": "gaussian"})
  config.update({"batch_size": 1024, "evaluators": ()})
  return config


def names(config, key, values):
  """Returns the part after "=" of the names of the members with these values."""
  return [member.name.partition("=")[2] for member in grid.members(config, [key], [(value,) for value in values])]


@pytest.mark.parametrize(
  ("key", "values", "texts"),
  [
    ("seed", [0, 17, 3000000001, 3000000002], ["0", "17", "3000000001", "3000000002"]),
    ("seed", [3000000001.0], ["3000000001"]),
    (RATE, [0.001, 1e-05, 2.5e-4, 0.1], ["0.001", "1e-05", "0.00025", "0.1"]),  # folder names of earlier sweeps
    (RATE, [2, 3.0, 2000000000], ["2", "3", "2e+09"]),
    (RATE, [1 / 3, 0.12345678912, 0.12345678913], ["0.3333333333333333", "0.12345678912", "0.12345678913"]),
  ],
)
def test_member_names_have_exact_integers_and_the_shortest_exact_floats(tiny, key, values, texts):
  assert names(tiny, key, values) == texts


def test_text_of_a_float_is_unique():
  values = np.random.default_rng(0).lognormal(0.0, 20.0, 300)
  values = [float(value) for value in (*values, *values.round(3), *np.nextafter(values, math.inf))]
  assert all(float(grid._text(value)) == value for value in values)
  assert all(grid._text(value) == f"{value:.9g}" for value in values if float(f"{value:.9g}") == value)


@pytest.mark.parametrize("values", [[0.5, 0.5], [2**53, 2**53 + 1]])
def test_values_that_are_equal_in_the_config_are_refused(tiny, values):
  with pytest.raises(errors.UserError, match=r"--grid learning_rate=.*: two grid points are equal"):
    names(tiny, RATE, values)


def test_short_keys_are_the_last_part_unless_two_are_the_same():
  keys = ["model.latent", "seed", "objective.level", "other.level"]
  assert grid._short_keys(keys) == ["latent", "seed", "objective.level", "other.level"]


@pytest.mark.parametrize(
  ("text", "axis"),
  [
    ("epochs=1,2", ("epochs", [1, 2])),
    ("config.epochs=1, +2", ("epochs", [1, 2])),
    ("objective.beta=0.5,1e-3,-2", ("objective.beta", [0.5, 0.001, -2])),
  ],
)
def test_axis_parses_a_key_and_numbers(text, axis):
  key, values = grid.parse_axis("grid", text)
  assert (key, values) == axis
  assert list(map(type, values)) == list(map(type, axis[1]))


@pytest.mark.parametrize("text", ["epochs", "epochs=", "epochs=1,,2", "epochs=1,nan", "epochs=inf", "epochs=1,1.0"])
def test_an_invalid_axis_is_refused(text):
  with pytest.raises(errors.UserError, match="--grid epochs"):
    grid.parse_axis("grid", text)


@pytest.mark.parametrize("key", ["checkpoint_every_epochs", "data.budget_gib", "on_nan"])
def test_a_key_that_is_fixed_within_a_sweep_is_refused(tiny, key):
  with pytest.raises(errors.UserError, match=f"--grid {key}: must be the same for all members"):
    names(tiny, key, [1])


def test_the_suggested_key_can_be_an_axis(tiny):
  with pytest.raises(errors.UserError, match="did you mean 'optimizer"):
    names(tiny, "optimizer.learning_rte", [1])
  with pytest.raises(errors.UserError) as refused:
    names(tiny, "date.budget_gib", [1])
  assert "data.budget_gib" not in str(refused.value)


def packed(config, key, values):
  """Returns the values of a key in each pack."""
  return [
    [member.axes[key] for member in pack] for pack in grid.packs(grid.members(config, [key], [(v,) for v in values]))
  ]


@pytest.fixture
def small_microbatches(monkeypatch):
  """Fewer pixels fit in the cache than the batch of `cnn_vae` has."""
  monkeypatch.setitem(families._PIXELS_IN_CACHE, "cnn", 50_176)


@pytest.mark.usefixtures("small_microbatches")
def test_members_with_different_microbatches_share_no_program():
  assert packed(cnn_vae(), "objective.free_bits", [0.0, 0.5, 0.25]) == [[0.0], [0.5, 0.25]]


@pytest.mark.parametrize(
  ("key", "values", "shared"),
  [
    ("seed", [1, 2], True),
    ("model.latent", [2, 3], True),
    (RATE, [1e-3, 2e-3], True),
    ("optimizer.weight_decay", [1e-3, 1e-2], True),
    ("optimizer.weight_decay", [0.0, 1e-2], False),
    ("optimizer.clip_norm", [0.0, 1.0], False),
    ("optimizer.warmup_epochs", [0.0, 1.0], False),
    ("objective.beta", [0.5, 0.0], True),
    ("epochs", [3, 4], False),
    ("batch_size", [128, 256], False),
    ("accumulate", [1, 2], False),
    ("eval_every_epochs", [1, 2], False),
    ("log_every_steps", [5, 10], False),
  ],
)
def test_members_share_a_program_if_only_its_numeric_arguments_differ(key, values, shared):
  assert packed(cnn_vae(), key, values) == ([values] if shared else [[value] for value in values])


def test_members_with_different_augmentation_share_no_program(tiny):
  members = []
  for augment in ((), ({"name": "flip"},), ({"name": "shift", "pixels": 1},), ({"name": "shift", "pixels": 2},)):
    tiny.data.augment = augment
    members += grid.members(tiny, ["seed"], [(1,), (2,)])
  assert [len(pack) for pack in grid.packs(members)] == [2, 2, 2, 2]
  assert all(len({member.experiment.augment for member in pack}) == 1 for pack in grid.packs(members))


@pytest.mark.usefixtures("small_microbatches")
def test_stages_of_a_pack_differ_only_in_numbers():
  config = cnn_vae()
  axes = {"objective.free_bits": [0.0, 0.5], "optimizer.weight_decay": [0.0, 0.1], "objective.beta": [0.0, 2.0]}
  points = [(bits, decay, beta) for bits in (0.0, 0.5) for decay in (0.0, 0.1) for beta in (0.0, 2.0)]
  packs = grid.packs(grid.members(config, list(axes), points))
  assert [len(pack) for pack in packs] == [2, 2, 2, 2]
  for pack in packs:
    kinds = {
      (
        jax.tree.structure(grid.numbers(member.experiment)),
        *((stage.epochs, stage.microbatches) for stage in member.experiment.stages),
      )
      for member in pack
    }
    assert len(kinds) == 1

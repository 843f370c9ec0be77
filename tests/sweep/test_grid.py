"""The members of a grid: their names, and which of them share a program."""

import functools
import math

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import errors
from ae_jax.sweep import grid

RATE = "optimizer.learning_rate"


@functools.cache
def cnn_vae():
  """configs/vae.py:digits with convolutions, whose batch of 256 goes in microbatches on CPU."""
  config = config_of("vae", "digits")
  config.model = config_of("cnn", "digits").model
  config.model.update({"latent": 4, "channels": (3, 4), "decoder_kernels": (3, 2), "bottleneck": "gaussian"})
  config.update({"batch_size": 256, "evaluators": ()})
  return config


def names(config, key, values):
  """Returns the value microbatches of the names of the members with these values."""
  return [member.name.partition("=")[2] for member in grid.members(config, [key], [(value,) for value in values])]


@pytest.mark.parametrize(
  ("key", "values", "texts"),
  [
    ("seed", [0, 17, 3000000001, 3000000002], ["0", "17", "3000000001", "3000000002"]),
    ("seed", [3000000001.0], ["3000000001"]),
    (RATE, [0.001, 1e-05, 2.5e-4, 0.1], ["0.001", "1e-05", "0.00025", "0.1"]),  # the folders of earlier sweeps
    (RATE, [2, 3.0, 2000000000], ["2", "3", "2e+09"]),
    (RATE, [1 / 3, 0.12345678912, 0.12345678913], ["0.3333333333333333", "0.12345678912", "0.12345678913"]),
  ],
)
def test_names_hold_integers_whole_and_floats_as_short_as_they_are_exact(tiny, key, values, texts):
  assert names(tiny, key, values) == texts


def test_floats_have_the_same_text_only_if_they_are_the_same():
  values = np.random.default_rng(0).lognormal(0.0, 20.0, 300)
  values = [float(value) for value in (*values, *values.round(3), *np.nextafter(values, math.inf))]
  assert all(float(grid._text(value)) == value for value in values)
  assert all(grid._text(value) == f"{value:.9g}" for value in values if float(f"{value:.9g}") == value)


@pytest.mark.parametrize("values", [[0.5, 0.5], [2**53, 2**53 + 1]])
def test_numbers_that_are_one_in_the_config_are_refused(tiny, values):
  with pytest.raises(errors.UserError, match=r"--grid learning_rate=.*: is named twice"):
    names(tiny, RATE, values)


def test_names_hold_the_last_part_of_a_key_or_where_two_have_the_same_all_of_it():
  keys = ["model.latent", "seed", "objective.level", "other.level"]
  assert grid._short(keys) == ["latent", "seed", "objective.level", "other.level"]


@pytest.mark.parametrize(
  ("text", "axis"),
  [
    ("epochs=1,2", ("epochs", [1, 2])),
    ("config.epochs=1, +2", ("epochs", [1, 2])),
    ("objective.beta=0.5,1e-3,-2", ("objective.beta", [0.5, 0.001, -2])),
  ],
)
def test_an_axis_is_a_key_and_its_numbers(text, axis):
  key, values = grid.axis("grid", text)
  assert (key, values) == axis
  assert list(map(type, values)) == list(map(type, axis[1]))


@pytest.mark.parametrize("text", ["epochs", "epochs=", "epochs=1,,2", "epochs=1,nan", "epochs=inf", "epochs=1,1.0"])
def test_what_is_no_axis_is_refused(text):
  with pytest.raises(errors.UserError, match="--grid epochs"):
    grid.axis("grid", text)


@pytest.mark.parametrize("key", ["checkpoint_every_epochs", "data.budget_gib", "on_nan"])
def test_what_is_the_same_for_a_whole_sweep_is_no_axis(tiny, key):
  with pytest.raises(errors.UserError, match=f"--grid {key}: is the same for a whole sweep"):
    names(tiny, key, [1])


def test_the_nearest_key_is_one_that_can_be_an_axis(tiny):
  with pytest.raises(errors.UserError, match="did you mean 'optimizer"):
    names(tiny, "optimizer.learning_rte", [1])
  with pytest.raises(errors.UserError) as refused:
    names(tiny, "date.budget_gib", [1])
  assert "data.budget_gib" not in str(refused.value)


def packed(config, key, values):
  """The values of a key of each pack."""
  return [
    [member.axes[key] for member in pack] for pack in grid.packs(grid.members(config, [key], [(v,) for v in values]))
  ]


def test_members_of_other_microbatches_have_other_programs():
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
def test_members_share_a_program_that_differ_in_its_numbers_alone(key, values, shared):
  assert packed(cnn_vae(), key, values) == ([values] if shared else [[value] for value in values])


def test_members_of_other_augmentation_have_other_programs(tiny):
  made = []
  for augment in ((), ({"name": "flip"},), ({"name": "shift", "pixels": 1},), ({"name": "shift", "pixels": 2},)):
    tiny.data.augment = augment
    made += grid.members(tiny, ["seed"], [(1,), (2,)])
  assert [len(pack) for pack in grid.packs(made)] == [2, 2, 2, 2]
  assert all(len({member.experiment.augment for member in pack}) == 1 for pack in grid.packs(made))


def test_members_of_a_pack_have_stages_that_differ_in_numbers_alone():
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

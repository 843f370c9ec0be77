"""Successive halving: the rungs, and the settings that continue after a rung."""

import types

import pytest
from stubs import stub_member

from ae_jax.sweep import halving


def members(latents, rates, seeds, epochs=27):
  stages = [types.SimpleNamespace(epochs=range(epochs))]
  return [
    stub_member(
      f"{latent},{rate},{seed}",
      latent,
      axes={"model.latent": latent, "optimizer.learning_rate": rate, "seed": seed},
      stages=stages,
    )
    for latent in latents
    for rate in rates
    for seed in seeds
  ]


def test_rungs_leave_one_setting_at_the_end():
  assert halving.rungs(members((2,), range(9), (0,)), 3) == [3, 9]
  assert halving.rungs(members((2,), range(2), (0,)), 3) == [9]
  assert halving.rungs(members((2,), range(9), (0,), epochs=2), 3) == []
  assert halving.rungs(members((2,), range(9), (0,)), 0) == []


@pytest.mark.parametrize(("settings", "factor", "left"), [(2, 3, 1), (4, 3, 2), (9, 3, 3), (5, 2, 3)])
def test_the_fraction_that_continues_is_rounded_up(settings, factor, left):
  competing = members((2,), range(settings), (0,))
  scores = {member.name: float(member.axes["optimizer.learning_rate"]) for member in competing}
  stopped = halving.eliminated(competing, scores, factor)
  assert [member.name for member in competing if member.name not in stopped] == [f"2,{rate},0" for rate in range(left)]


def test_settings_compete_within_a_latent_size_by_their_mean_over_seeds():
  competing = members((2, 4), ("a", "b", "c"), (0, 1))
  scores = {member.name: {"a": 5.0, "b": 3.0, "c": 4.0}[member.axes["optimizer.learning_rate"]] for member in competing}
  scores["4,b,1"] = float("inf")  # one seed diverged
  stopped = set(halving.eliminated(competing, scores, 3))
  assert {member.name for member in competing} - stopped == {"2,b,0", "2,b,1", "4,c,0", "4,c,1"}

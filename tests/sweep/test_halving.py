"""Which settings of a sweep go on."""

import types

import pytest

from ae_jax.sweep import halving


def members(latents, rates, seeds, epochs=27):
  made = []
  for latent in latents:
    for rate in rates:
      for seed in seeds:
        experiment = types.SimpleNamespace(stages=[types.SimpleNamespace(epochs=range(epochs))])
        axes = {"model.latent": latent, "optimizer.learning_rate": rate, "seed": seed}
        made.append(
          types.SimpleNamespace(name=f"{latent},{rate},{seed}", latent=latent, axes=axes, experiment=experiment)
        )
  return made


def test_there_are_as_many_rungs_as_leave_one_setting():
  assert halving.rungs(members((2,), range(9), (0,)), 3) == [3, 9]
  assert halving.rungs(members((2,), range(2), (0,)), 3) == [9]
  assert halving.rungs(members((2,), range(9), (0,), epochs=2), 3) == []
  assert halving.rungs(members((2,), range(9), (0,)), 0) == []


@pytest.mark.parametrize(("settings", "factor", "left"), [(2, 3, 1), (4, 3, 2), (9, 3, 3), (5, 2, 3)])
def test_one_in_so_many_goes_on_rounded_up(settings, factor, left):
  made = members((2,), range(settings), (0,))
  scores = {member.name: member.axes["optimizer.learning_rate"] for member in made}
  lost = halving.stopped(made, scores, factor)
  assert [member.name for member in made if member.name not in lost] == [f"2,{rate},0" for rate in range(left)]


def test_settings_compete_within_a_latent_size_by_the_mean_of_their_seeds():
  made = members((2, 4), ("a", "b", "c"), (0, 1))
  scores = {member.name: {"a": 5, "b": 3, "c": 4}[member.axes["optimizer.learning_rate"]] for member in made}
  scores["4,b,1"] = float("inf")  # one seed diverged
  lost = set(halving.stopped(made, scores, 3))
  assert {member.name for member in made} - lost == {"2,b,0", "2,b,1", "4,c,0", "4,c,1"}

"""The answer of a sweep: how large is enough, in words, and what a nat of code buys."""

import math

import pytest

from ae_jax.sweep import answer


def row(latent, error, seed=0, **others):
  return {
    "name": f"latent={latent},seed={seed}" + "".join(f",{key.split('.')[-1]}={value}" for key, value in others.items()),
    "latent": latent,
    "seed": seed,
    "status": "done",
    "squared_error": error,
    **others,
  }


def said(rows):
  return answer.sentence(rows, answer.conclusion(rows, {}))


def test_a_size_is_enough_from_where_doubling_it_gains_little():
  rows = [row(2, 8.0), row(4, 4.0), row(8, 2.0), row(16, 1.96), row(32, 1.96)]
  assert said(rows) == "8 is enough: doubling it gains 2%."
  assert answer.knee({2: [8.0], 8: [4.0], 32: [3.9]})["latent"] == 8  # two doublings: 1 % each


def test_the_interval_of_the_knee_is_that_of_the_seeds():
  errors = {2: (8.0, 8.1, 7.9), 4: (4.0, 4.1, 3.9), 8: (3.7, 4.3, 3.4), 16: (3.6, 3.7, 3.6)}
  rows = [row(latent, error, seed) for latent, seeds in errors.items() for seed, error in enumerate(seeds)]
  found = answer.conclusion(rows, {})["knee"]
  assert found["low"] <= found["latent"] <= found["high"]
  assert found["low"] < found["high"]
  assert "over the seeds" in said(rows)


@pytest.mark.parametrize(
  ("rows", "sentence"),
  [
    ([row(2, 8.0), row(4, 4.0)], "No size is enough: from 2 to 4 the error still falls by 50%; try larger ones."),
    ([row(2, 8.0)], "The squared error per test example at latent 2 is 8.000."),
    ([row(2, 8.0), row(4, 9.0)], "2 is enough: a larger one gains nothing."),
    (
      [{"name": "latent=2", "latent": 2, "status": "diverged at step 3"}],
      "No member ended well: lower the learning rate.",
    ),
  ],
)
def test_other_ends_have_their_words(rows, sentence):
  assert said(rows) == sentence


def test_the_best_of_other_settings_is_the_one_that_is_told_of():
  rows = [row(2, 3.0, beta=0.5), row(4, 2.0, beta=0.5), row(2, 9.0, beta=4), row(4, 8.0, beta=4)]
  assert answer.best(rows) == "beta=0.5"
  assert said(rows).endswith("(with beta=0.5).")


def test_the_frontier_is_there_where_beta_is_an_axis():
  rows = [
    row(2, 3.0, seed, **{"objective.beta": beta, "kl": 8 / beta + seed, "nats": beta})
    for beta in (1, 4)
    for seed in (0, 2)
  ]
  assert answer.frontier(rows) == ({2: {1: (9.0, 1.0), 4: (3.0, 4.0)}}, "nats")
  assert answer.frontier([row(2, 3.0, kl=1.0)]) is None
  assert answer.frontier(rows[:2]) is None


def test_a_member_that_never_came_so_far_has_an_infinite_error(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 3, "epoch": 1.0, "test/squared_error": 2.5}\n')
  member = type("Member", (), {"name": "a"})
  assert answer.error_after(tmp_path, member, 1) == 2.5
  assert answer.error_after(tmp_path, member, 2) == math.inf

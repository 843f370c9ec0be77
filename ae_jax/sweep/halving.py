"""Successive halving (Jamieson & Talwalkar 2016): after each rung one in so many settings of a latent size goes on.

Latent sizes do not compete, since a larger one has the smaller error by its nature, nor do seeds, whose spread is part
of the answer: a setting is what the other axes say, and its score the mean error of its seeds.
"""

import math

import numpy as np

from ae_jax import errors


def rungs(members, factor):
  """The epochs after which settings are compared, rising, the end not among them; UserError where none compete."""
  if factor == 0:
    return []
  ends = {member.experiment.stages[-1].epochs.stop for member in members}
  settings = len({_setting(member) for member in members})
  if factor < 2:
    raise errors.UserError(f"--halving={factor}: must be 2 or more: one in so many goes on")
  if settings < 2:
    raise errors.UserError("--halving: needs a --grid; latent sizes and seeds do not compete with each other")
  if len(ends) > 1:
    raise errors.UserError("--halving: needs as many epochs for all; do not make them an axis")
  (end,) = ends
  count = math.ceil(math.log(settings, factor) - 1e-9)
  return sorted({end // factor**rung for rung in range(1, count + 1)} - {0, end})


def stopped(members, scores, factor):
  """The names of those of the members that do not go on; `scores` are {name: error}, infinite for what diverged."""
  latents = {}
  for member in members:
    settings = latents.setdefault(member.latent, {})
    settings.setdefault(_setting(member), []).append(member.name)
  names = []
  for settings in latents.values():
    ranked = sorted(settings.values(), key=lambda seeds: np.mean([scores[name] for name in seeds]))
    names += [name for seeds in ranked[math.ceil(len(ranked) / factor) :] for name in seeds]
  return names


def _setting(member):
  return tuple(value for key, value in member.axes.items() if key not in ("model.latent", "seed"))

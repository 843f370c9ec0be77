"""Successive halving (Jamieson & Talwalkar 2016): after each rung, the best 1/factor of the settings continue.

A rung is an epoch after which settings are compared. A setting is a combination of hyperparameter values other than
latent size and seed. The score of a setting is its mean error over the seeds. Settings compete only at the same latent
size, because a larger latent size reduces the error by construction. Seeds do not compete, because their spread is part
of the result.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.sweep import grid


def rungs(members: Sequence[grid.Member], factor: int) -> list[int]:
  """Returns the epochs after which settings are compared, in ascending order and without the last epoch.

  Args:
    members: All members of the sweep.
    factor: One in `factor` settings continues after each comparison; 0 for no halving.

  Raises:
    UserError: If `factor` is 1 or negative, if there is only one setting, or if the numbers of epochs differ.
  """
  if factor == 0:
    return []
  ends = {member.experiment.stages[-1].epochs.stop for member in members}
  settings = len({_setting(member) for member in members})
  if factor < 2:
    raise errors.UserError(f"--halving={factor}: must be 2 or more, or 0 for no halving")
  if settings < 2:
    raise errors.UserError(
      "--halving: requires --grid with at least two values; halving compares grid points, not latent sizes or seeds"
    )
  if len(ends) > 1:
    raise errors.UserError("--halving: requires the same number of epochs for all members; remove epochs from --grid")
  (end,) = ends
  count = math.ceil(math.log(settings, factor) - 1e-9)
  return sorted({end // factor**rung for rung in range(1, count + 1)} - {0, end})


def eliminated(members: Iterable[grid.Member], scores: Mapping[str, float], factor: int) -> list[str]:
  """Returns the names of the members that stop after a comparison of settings.

  Args:
    members: The members that compete.
    scores: {member name: error}; the error is infinite for a member that diverged.
    factor: See `rungs`.
  """
  latents: dict[int, dict[tuple, list[str]]] = {}
  for member in members:
    settings = latents.setdefault(member.latent, {})
    settings.setdefault(_setting(member), []).append(member.name)
  names = []
  for settings in latents.values():
    ranked = sorted(settings.values(), key=lambda seeds: np.mean([scores[name] for name in seeds]))
    names += [name for seeds in ranked[math.ceil(len(ranked) / factor) :] for name in seeds]
  return names


def _setting(member: grid.Member) -> tuple[Any, ...]:
  return tuple(value for key, value in member.axes.items() if key not in ("model.latent", "seed"))

"""What a sweep says in the end: a row for each member, and how large a code has to be."""

import csv
import json
import math
import os

import numpy as np

from ae_jax import errors
from ae_jax.runs import logs

FILES = ("sweep.json", "sweep.csv", "sweep.png", "rate_distortion.png", "report.html")
TRAINING = "training"  # the status of a member between two rungs of successive halving
ENOUGH = 0.05  # of the error: what twice the units must gain to be worth it
_RESAMPLED = 2000  # bootstrap samples of the seeds


def row(member, workdir, ended):
  """The row of a member, of which `ended` tells (`packs.MemberResult`): its place in the grid, and what it reached."""
  records = logs.read(workdir / member.name)
  metrics = {name.removeprefix("test/"): value for record in records for name, value in record.items()}
  reached = ("squared_error", "nats", "kl", "pca_squared_error", "nats_floor", "psnr")
  epochs = round(metrics.get("epoch", 0))
  whole = epochs == member.experiment.stages[-1].epochs.stop
  return {
    "name": member.name,
    **member.axes,
    "latent": member.latent,
    "seed": member.experiment.config.seed,
    "status": f"diverged at step {ended.diverged}" if ended.diverged is not None else "done" if whole else TRAINING,
    "epochs": epochs,
    "seconds": round(ended.seconds, 2),
    "way": ended.way,
    "peak_bytes": ended.peak_bytes,
    "parameters": member.experiment.model.parameter_count(),
    **({name: metrics[name] for name in reached if name in metrics} if ended.diverged is None else {}),
  }


def error_after(workdir, member, epochs):
  """Returns the test error of a member at its first evaluation after `epochs` or more; infinity if there is none.

  That evaluation is later than `epochs` only for a member that was trained without halving and evaluated less often.
  """
  for record in logs.stream(workdir / member.name):
    if "test/squared_error" in record and round(record["epoch"]) >= epochs:
      return record["test/squared_error"] if math.isfinite(record["test/squared_error"]) else math.inf
  return math.inf


def read(workdir):
  """The rows that `write` wrote; [] where there are none; UserError where they cannot be read."""
  file = workdir / "sweep.json"
  if not file.exists():
    return []
  try:
    return [dict(each) for each in json.loads(file.read_text())["members"] if isinstance(each["name"], str)]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(f"{file}: cannot be read ({errors.one_line(error)}); remove it, to make it anew") from None


def write(workdir, rows, found):
  """Writes the rows, and what was `found` (see `conclusion`), as sweep.json; the rows also as sweep.csv."""
  names = list(dict.fromkeys(name for each in rows for name in each))
  with errors.writing(workdir / "sweep.json"):
    part = workdir / "sweep.json.part"
    part.write_text(json.dumps({"members": rows, **found}, indent=1) + "\n")
    os.replace(part, workdir / "sweep.json")
    with (workdir / "sweep.csv").open("w", newline="") as file:
      table = csv.DictWriter(file, names)
      table.writeheader()
      table.writerows(rows)


def curves(rows):
  """{what else is an axis, in words: {latent: errors of the seeds}} of the members that ended well."""
  found = {}
  for each in rows:
    if each["status"] == "done":
      others = ", ".join(part for part in each["name"].split(",") if not part.startswith(("latent=", "seed=")))
      found.setdefault(others or "autoencoder", {}).setdefault(each["latent"], []).append(each["squared_error"])
  return {others: dict(sorted(curve.items())) for others, curve in found.items()}


def frontier(rows):
  """The rate-distortion curves of members that differ in beta, and the name of their distortion.

  {latent: {beta: (rate, distortion)}}: KL to the prior in nats, and nats (else the squared error) of the
  reconstruction, both means over all else. None where beta is no axis.
  """
  found = {}
  unit = "nats" if any("nats" in each for each in rows) else "squared_error"
  for each in rows:
    if each["status"] == "done" and "objective.beta" in each and "kl" in each:
      found.setdefault(each["latent"], {}).setdefault(each["objective.beta"], []).append((each["kl"], each[unit]))
  mean = lambda points: tuple(float(value) for value in np.mean(points, 0))
  curves = {k: {beta: mean(points) for beta, points in sorted(betas.items())} for k, betas in sorted(found.items())}
  return (curves, unit) if any(len(betas) > 1 for betas in curves.values()) else None


def table(rows):
  """(names, rows of texts) of what is worth reading, for a page."""
  hidden = {"name", "parameters", "way", "peak_bytes", "nats_floor", "epochs", "model.latent"}
  names = [name for name in dict.fromkeys(name for each in rows for name in each) if name not in hidden]
  return names, [[_text(each.get(name, "")) for name in names] for each in rows]


def _text(value):
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def pca(rows):
  """{latent: the error of PCA of that size}."""
  return dict(sorted((each["latent"], each["pca_squared_error"]) for each in rows if "pca_squared_error" in each))


def best(rows):
  """The name of the curve whose mean error is least at the largest latent size of all; None where none ended well."""
  found = curves(rows)
  return min(found, key=lambda others: (-max(found[others]), np.mean(list(found[others].values())[-1])), default=None)


def knee(curve):
  """Of {latent: errors}: the smallest latent size from which twice as many units gain less than ENOUGH.

  {"latent", "low", "high", "gain"}: `gain` is the share of the error that the next doubling saves, interpolated in the
  logarithm of both; low and high bound 95 % of the bootstrap samples of the seeds. None where no size is enough.
  """
  sizes = sorted(curve)
  if len(sizes) < 2:
    return None
  latent, gain = _knee(sizes, [np.mean(curve[size]) for size in sizes])
  generator = np.random.default_rng(0)
  drawn = [
    _knee(sizes, [generator.choice(curve[size], len(curve[size])).mean() for size in sizes])[0]
    for _ in range(_RESAMPLED)
  ]
  if latent is None:
    return None
  found = [size for size in drawn if size is not None] or [latent]
  low, high = np.percentile(found, [2.5, 97.5], method="nearest")
  return {"latent": int(latent), "low": int(low), "high": int(high), "gain": float(gain)}


def _knee(sizes, means):
  """(the size that is enough, what a doubling of it gains), or (None, the last gain)."""
  gain = math.nan
  for number in range(len(sizes) - 1):
    gain = 1 - (means[number + 1] / means[number]) ** (1 / math.log2(sizes[number + 1] / sizes[number]))
    if gain < ENOUGH:
      return sizes[number], gain
  return None, gain


def conclusion(rows, dimensions):
  """What the rows say together: {"knee", "curve", "dimensions"}, as JSON has it."""
  chosen = best(rows)
  found = None if chosen is None else knee(curves(rows)[chosen])
  keys = ("estimate", "low", "high")
  named = {name: dict(zip(keys, map(float, each), strict=True)) for name, each in dimensions.items()}
  return {"curve": chosen, "knee": found, "dimensions": named}


def sentence(rows, found):
  """The answer in words."""
  chosen = found["curve"]
  if chosen is None:
    return "No member ended well: lower the learning rate."
  curve = curves(rows)[chosen]
  errors_at = {size: float(np.mean(errors)) for size, errors in curve.items()}
  largest = max(errors_at)
  best_words = f" (with {chosen})" if "=" in chosen else ""
  if len(curve) == 1:
    return f"The squared error per test example at latent {largest} is {errors_at[largest]:.3f}{best_words}."
  point = found["knee"]
  if point is None:
    sizes = sorted(errors_at)
    gain = 1 - errors_at[sizes[-1]] / errors_at[sizes[-2]]
    end = f"from {sizes[-2]} to {largest} the error still falls by {gain:.0%}; try larger ones"
    return f"No size is enough: {end}{best_words}."
  interval = "" if point["low"] == point["high"] else f" ({point['low']} to {point['high']} over the seeds)"
  gains = f"doubling it gains {point['gain']:.0%}" if point["gain"] > 0 else "a larger one gains nothing"
  return f"{point['latent']} is enough{interval}: {gains}{best_words}."

"""Results of a sweep: one row per member, and the smallest latent size that is sufficient."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.report import tables
from ae_jax.runs import logs, metric_names
from ae_jax.sweep import grid, trainer
from ae_jax.system import atomic

Row = dict[str, Any]  # results of a member: name, swept values, status and metrics; see `row`
Curve = Mapping[int, Sequence[float]]  # latent size -> error of each seed
RateDistortion = dict[int, dict[int | float, tuple[float, ...]]]  # latent size -> beta -> (rate, distortion)

FILES = ("sweep.json", "sweep.csv", "sweep.png", "rate_distortion.png", "report.html")
TRAINING = "training"  # status of a member that has not reached its last epoch
ENOUGH = 0.05  # a latent size is enough if doubling it reduces the error by less than this fraction
_BOOTSTRAP_SAMPLES = 2000
_VALIDATION = "validation_squared_error"  # column of the error on the validation set
_OF_TEST = ("squared_error", "nats", "kl", "pca_squared_error", "nats_floor", "psnr")  # metrics of the test set
_COLUMNS = {"latent": "latent size", _VALIDATION: tables.readable(_VALIDATION)}  # column -> its header in the report
_COLUMNS |= {name: tables.readable(f"test_{name}") for name in _OF_TEST}


def row(member: grid.Member, workdir: Path, result: trainer.MemberResult) -> Row:
  """Returns the row of a member: its name, swept values, status and last metrics."""
  records = logs.read(workdir / member.name)
  metrics = {name.removeprefix("test/"): value for record in records for name, value in record.items()}
  if "validation/squared_error" in metrics:
    metrics[_VALIDATION] = metrics["validation/squared_error"]
  reported = ("squared_error", _VALIDATION, *_OF_TEST[1:])
  epochs = round(metrics.get("epoch", 0))
  status = "done" if epochs == member.experiment.stages[-1].epochs.stop else TRAINING
  diverged = result.diverged is not None
  return {
    "name": member.name,
    **member.axes,
    "latent": member.latent,
    "seed": member.experiment.config.seed,
    "status": f"diverged at step {result.diverged}" if diverged else status,
    "epochs": epochs,
    "seconds": round(result.seconds, 2),
    "way": result.way,
    "peak_bytes": result.peak_bytes,
    "parameters": member.experiment.model.parameter_count(),
    **({} if diverged else {name: metrics[name] for name in reported if name in metrics}),
  }


def error_after(workdir: Path, member: grid.Member, epochs: int) -> float:
  """Returns the error of a member at its first evaluation after `epochs` or more epochs.

  It is the error on the validation set if there is one, otherwise on the test set. The error is infinite if there is no
  such evaluation. The evaluation is later than `epochs` only if the member was trained without halving and evaluated
  less often.
  """
  for record in logs.stream(workdir / member.name):
    error = record.get(metric_names.selection_key(record))
    if error is not None and round(record["epoch"]) >= epochs:
      return error if math.isfinite(error) else math.inf
  return math.inf


def read(workdir: Path) -> list[Row]:
  """Returns the rows in sweep.json, or [] if the file is missing; raises UserError if the file is invalid."""
  file = workdir / "sweep.json"
  if not file.exists():
    return []
  try:
    return [
      dict(row) for row in json.loads(file.read_text(encoding="utf-8"))["members"] if isinstance(row["name"], str)
    ]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{file}: cannot be read ({errors.one_line(error)}); delete the file, and the sweep writes a new one"
    ) from None


def write(workdir: Path, rows: Sequence[Row], results: Mapping[str, Any]) -> None:
  """Writes `rows` and `results` (see `conclusion`) to sweep.json, and `rows` to sweep.csv."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  with errors.convert_os_errors(workdir / "sweep.json"):
    atomic.write_text(workdir / "sweep.json", json.dumps({"members": rows, **results}, indent=1) + "\n")
    with (workdir / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
      table = csv.DictWriter(file, names)
      table.writeheader()
      table.writerows(rows)


def chosen_by(rows: Sequence[Row]) -> str:
  """Returns the name of the error column by which settings and latent sizes are chosen.

  It is the error on the validation set if there is one, otherwise on the test set.
  """
  return _VALIDATION if any(_VALIDATION in row for row in rows) else "squared_error"


def curves(rows: Sequence[Row], column: str = "squared_error") -> dict[str, dict[int, list[float]]]:
  """Returns {setting: {latent size: errors of the seeds}} of the members with status "done".

  `column` is the column of the errors, by default of the test set. A setting names the values of the --grid keys, such
  as "beta=0.5". Without such keys it is "autoencoder".
  """
  errors_of: dict[str, dict[int, list[float]]] = {}
  for row in rows:
    if row["status"] == "done":
      setting = ", ".join(part for part in row["name"].split(",") if not part.startswith(("latent=", "seed=")))
      errors_of.setdefault(setting or "autoencoder", {}).setdefault(row["latent"], []).append(row[column])
  return {setting: dict(sorted(curve.items())) for setting, curve in errors_of.items()}


def frontier(rows: Sequence[Row]) -> tuple[RateDistortion, str] | None:
  """Returns the rate-distortion curves of the members, and the name of the distortion metric.

  The curves are {latent size: {beta: (rate, distortion)}}, averaged over seeds and other swept keys. The rate is the KL
  divergence from the posterior to the prior in nats. The distortion is the reconstruction term in nats if it was
  measured, otherwise the squared error. The result is None if no latent size has members with
  different betas.
  """
  points: dict[int, dict[int | float, list[tuple[float, float]]]] = {}
  distortion = "nats" if any("nats" in row for row in rows) else "squared_error"
  for row in rows:
    if row["status"] == "done" and "objective.beta" in row and "kl" in row:
      betas = points.setdefault(row["latent"], {})
      betas.setdefault(row["objective.beta"], []).append((row["kl"], row[distortion]))
  mean = lambda pairs: tuple(float(value) for value in np.mean(pairs, 0))
  means = {k: {beta: mean(pairs) for beta, pairs in sorted(betas.items())} for k, betas in sorted(points.items())}
  return (means, distortion) if any(len(betas) > 1 for betas in means.values()) else None


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
  """Returns the column headers and the cell texts of the table of members in the report.

  Metrics have the words of the report of a run; config keys are as in the config.
  """
  hidden = {"name", "parameters", "way", "peak_bytes", "nats_floor", "epochs", "model.latent"}
  names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in hidden]
  text = lambda value: tables.number(value) if isinstance(value, float) else str(value)
  return [_COLUMNS.get(name, name) for name in names], [[text(row.get(name, "")) for name in names] for row in rows]


def pca(rows: Sequence[Row]) -> dict[int, float]:
  """Returns {latent size: squared error of the PCA baseline with the same number of components}."""
  return dict(sorted((row["latent"], row["pca_squared_error"]) for row in rows if "pca_squared_error" in row))


def best(rows: Sequence[Row]) -> str | None:
  """Returns the setting (see `curves`) with the smallest error at the largest latent size, or None without results.

  Errors are read from the column `chosen_by(rows)`.
  """
  by_setting = curves(rows, chosen_by(rows))
  score = lambda setting: (-max(by_setting[setting]), np.mean(list(by_setting[setting].values())[-1]))
  return min(by_setting, key=score, default=None)


def best_member(rows: Sequence[Row]) -> str | None:
  """Returns the name of the member with the smallest error in the column `chosen_by(rows)`, or None without results."""
  column = chosen_by(rows)
  done = [row for row in rows if row["status"] == "done" and math.isfinite(row.get(column, math.nan))]
  return min(done, key=lambda row: (row[column], row["name"]))["name"] if done else None


def knee(curve: Curve) -> dict[str, Any] | None:
  """Finds the smallest sufficient latent size: doubling it reduces the error by less than the fraction ENOUGH.

  Returns:
    {"latent", "low", "high", "gain"}, or None if no size is sufficient. "latent" is the smallest sufficient size. "low"
    and "high" are the ends of its 95 % bootstrap interval over the seeds. "gain" is the relative reduction of the error
    when this size is doubled, interpolated on logarithmic axes.
  """
  sizes = sorted(curve)
  if len(sizes) < 2:
    return None
  latent, gain = _knee(sizes, [float(np.mean(curve[size])) for size in sizes])
  generator = np.random.default_rng(0)
  bootstrap = [
    _knee(sizes, [generator.choice(curve[size], len(curve[size])).mean() for size in sizes])[0]
    for _ in range(_BOOTSTRAP_SAMPLES)
  ]
  if latent is None:
    return None
  samples = [size for size in bootstrap if size is not None] or [latent]
  low, high = np.percentile(samples, [2.5, 97.5], method="nearest")
  return {"latent": int(latent), "low": int(low), "high": int(high), "gain": float(gain)}


def _knee(sizes: Sequence[int], means: Sequence[float]) -> tuple[int | None, float]:
  """Returns (smallest sufficient size, error reduction if it is doubled).

  If no size is sufficient, returns None and the error reduction per doubling between the two largest sizes.
  """
  gain = math.nan
  for number in range(len(sizes) - 1):
    gain = 1 - (means[number + 1] / means[number]) ** (1 / math.log2(sizes[number + 1] / sizes[number]))
    if gain < ENOUGH:
      return sizes[number], gain
  return None, gain


def conclusion(rows: Sequence[Row], dimensions: Mapping[str, Sequence[Any]], unit: str = "") -> dict[str, Any]:
  """Returns the results for sweep.json: {"curve": see `best`, "knee": see `knee`, "dimensions": {name: estimate}, ...}.

  Args:
    rows: Rows of all members.
    dimensions: Estimates of the intrinsic dimension of the data, {name: (estimate, low, high)}.
    unit: Unit of the squared errors, see `standardisation.squared_unit`.
  """
  setting = best(rows)
  keys = ("estimate", "low", "high")
  return {
    "curve": setting,
    "knee": None if setting is None else knee(curves(rows, chosen_by(rows))[setting]),
    "dimensions": {name: dict(zip(keys, map(float, values), strict=True)) for name, values in dimensions.items()},
    "unit": unit,
  }


def sentence(rows: Sequence[Row], results: Mapping[str, Any]) -> str:
  """Returns the result of a sweep as a sentence; `results` is the `conclusion` of the rows."""
  setting = results["curve"]
  if setting is None:
    return "No member was trained to the end without diverging: lower the learning rate."
  means = lambda column: {size: float(np.mean(errors)) for size, errors in curves(rows, column)[setting].items()}
  mean_errors = means(chosen_by(rows))
  largest = max(mean_errors)
  suffix = f" (with {setting})" if "=" in setting else ""
  if len(mean_errors) == 1:
    error = means("squared_error")[largest]
    unit = f" {results['unit']}" if results["unit"] else ""
    return f"The squared error per test example at latent size {largest} is {error:.3f}{unit}{suffix}."
  point = results["knee"]
  if point is None:
    second = sorted(mean_errors)[-2]
    fall = f"from {second} to {largest} the error still falls by {1 - mean_errors[largest] / mean_errors[second]:.0%}"
    return f"No latent size is enough: {fall}; try larger ones{suffix}."
  interval = "" if point["low"] == point["high"] else f" ({point['low']} to {point['high']} over the seeds)"
  gain = f"doubling it reduces the error by {point['gain']:.0%}"
  gain = gain if point["gain"] > 0 else "a larger one does not reduce the error"
  return f"Latent size {point['latent']} is enough{interval}: {gain}{suffix}."

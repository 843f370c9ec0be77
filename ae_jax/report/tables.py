"""Formats the metrics of a run as tables of texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SHORT = "auprc auroc ari dci elbo kl mig mle mse nll nmi pca psnr sap ssim"
_SPELT = {"frechet": "Fréchet", "kmeans": "k-means", "knn": "kNN", "lipschitz": "Lipschitz", "twonn": "TwoNN"}
_WORDS = {name: name.upper() for name in _SHORT.split()} | _SPELT
_LOWER = ("loss", "error", "nats", "mse")  # a metric with one of these in its name is better when it is lower
_HIGHER = ("psnr", "auroc", "auprc")  # and with one of these when it is higher
_RULERS = ("test/pca_", "test/chance_", "test/nats_floor", "test/mean_predictor_")  # prefixes of baselines
NOT_FINITE = "not finite"
_ENDS = ("_low", "_high", "_standard_error")  # suffixes of the bounds of an interval
_NO_METRICS = ("step", "epoch", "stage", "images_per_second", "compile_seconds")

Rows = list[list[str]]  # the first text of each row is its header
Table = tuple[list[str], Rows]  # column headers and rows


def number(value: float | int | None, digits: int = 4) -> str:
  """Returns a number with `digits` significant digits, or more if that avoids an exponent."""
  if value is None or math.isnan(value):
    return NOT_FINITE
  if math.isinf(value):
    return "∞" if value > 0 else "-∞"
  if abs(value) >= 1e15:
    return f"{value:.{digits}g}"
  if float(value).is_integer():
    return f"{int(value):,}"
  if abs(value) >= 1e4:
    return f"{value:,.1f}"
  return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def readable(name: str) -> str:
  """Returns the name of a metric in words: "pca_squared_error" becomes "PCA squared error"."""
  return " ".join(_WORDS.get(word, word) for word in name.replace("/", " / ").replace("_", " ").split(" "))


def over_epochs(measured: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Rows, list[Table]]:
  """Returns rows [name, last value, best value, epoch of the best value] of scalar metrics, and tables of the others.

  `measured` is the result of `logs.curves`.
  """
  lines, details, start = [], {}, _last_stage(measured)
  for name, (epochs, values) in measured.items():
    if name.count("/") > 1:
      details[name.removeprefix("test/")] = number(values[-1])
    elif name not in _NO_METRICS:
      words = readable(name.replace("train/", "training ").replace("/", " "))
      comparable = epochs > start if name.endswith("loss") else np.ones(len(epochs), bool)
      lines.append([words, number(values[-1]), *_best(name, epochs[comparable], values[comparable])])
  return lines, pivots(details)


def _last_stage(measured: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
  """Returns the epoch at which the last stage began: losses of earlier stages belong to other objectives."""
  epochs, stages = measured.get("stage", (np.zeros(0), np.zeros(0)))
  return float(epochs[stages < stages[-1:]].max(initial=-np.inf))


def _best(name: str, epochs: np.ndarray, values: np.ndarray) -> tuple[str, str]:
  """Returns the best value and its first epoch; two empty texts if the name does not say which value is best."""
  sign = 1 if any(part in name for part in _LOWER) else -1 if any(part in name for part in _HIGHER) else 0
  finite = np.isfinite(values)
  if not sign or not finite.any() or name.startswith(_RULERS):
    return "", ""
  best = np.argmin(np.where(finite, sign * values, np.inf))
  return number(values[best]), f"{epochs[best]:.3g}"


def of_values(values: Mapping[str, float | int]) -> tuple[Rows, list[Table]]:
  """Returns rows of values with their intervals, and `pivots` of the values with a "/" in their name."""
  texts = {name: _with_interval(name, values) for name in values if not ends_an_interval(name, values)}
  return [[readable(name), text] for name, text in texts.items() if "/" not in name], pivots(texts)


def ends_an_interval(name: str, values: Mapping[str, Any] | Sequence[str]) -> bool:
  """Returns whether a metric is a bound of another one: its name with _low, _high or _standard_error before any "/"."""
  bases = {end: name.replace(end, "") for end in _ENDS if end in name}
  return any(base in values and _end(base, end) == name for end, base in bases.items())


def _with_interval(name: str, values: Mapping[str, float | int]) -> str:
  low, high, error = (values.get(_end(name, end)) for end in _ENDS)
  known = lambda *ends: all(end is not None and math.isfinite(end) for end in ends)
  interval = f" ({number(low, 3)} to {number(high, 3)})" if known(low, high) else ""
  return number(values[name]) + interval + (f" ± {error:.2g}" if known(error) else "")


def _end(name: str, end: str) -> str:
  metric, slash, part = name.partition("/")
  return f"{metric}{end}{slash}{part}"


def pivots(texts: Mapping[str, str]) -> list[Table]:
  """Returns tables of texts {"METRIC/PART": text}: metrics with the same parts share a table.

  A metric is a column, or a row if the table would have more columns than rows.
  """
  columns = {}
  for name, text in texts.items():
    metric, slash, part = name.rpartition("/")
    if slash:
      columns.setdefault(metric, {})[part] = text
  by_parts = {}
  for metric, column in columns.items():
    by_parts.setdefault(tuple(column), []).append(metric)
  return [_pivot(columns, metrics, parts) for parts, metrics in by_parts.items()]


def _pivot(columns: Mapping[str, Mapping[str, str]], metrics: Sequence[str], parts: Sequence[str]) -> Table:
  grid = [[columns[metric][part] for metric in metrics] for part in parts]
  across, down = metrics, parts
  if len(metrics) > len(parts):
    grid, across, down = list(map(list, zip(*grid, strict=True))), parts, metrics
  lines = [[readable(name), *texts] for name, texts in zip(down, grid, strict=True)]
  return ["", *map(readable, across)], lines


def text(value: Any) -> str:
  """Returns a value of a config as a page shows it."""
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def interval(values: Sequence[float | int] | np.ndarray) -> float | None:
  """Returns the half width of the 95 % t-interval of the mean; None for fewer than three values."""
  if len(values) < 3:
    return None
  from scipy import stats  # takes a second to import

  return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)

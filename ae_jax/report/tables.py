"""Formats metrics as tables of texts.

The name of a metric may end in "/PART", where PART is a subset of the data or a setting, e.g. a class or a noise level.
"""

import math
import re
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any

import numpy as np

from ae_jax.data import dimension, labels
from ae_jax.runs import metric_names

_SHORT = "auprc auroc ari dci elbo f1 kl mig mle mse nll nmi pca psnr rmse sap ssim"
_SPELT = {
  "frechet": "Fréchet",
  "kmeans": "k-means",
  "knn": "kNN",
  "floor": "lower bound",
  "halved": "halvings of the learning rate",
  "lipschitz": "Lipschitz",
  "mahalanobis": "Mahalanobis",
  "pixels": "raw elements",
  "twonn": "TwoNN",
}
_WORDS = {name: name.upper() for name in _SHORT.split()} | _SPELT
_LOWER = ("loss", "error", "nats", "mse")  # lower is better if the name of a metric contains one of these
_HIGHER = ("psnr", "auroc", "auprc")  # higher is better if the name contains one of these
_BASELINES = (
  "test/pca_",
  "test/chance_",
  "test/nats_floor",
  "test/mean_predictor_",
  "test/input_",
)  # prefixes of names of baselines
NOT_FINITE = "not finite"
_CLASS = re.compile(r"\bclass[ _](\d+)$")  # a class at the end of the name of a metric
SUFFIXES = ("_low", "_high", "_standard_error")  # suffixes of the bounds and the standard error of a metric
_NO_METRICS = ("step", "epoch", "stage", "images_per_second", "compile_seconds")

Rows = list[list[str]]  # the first text of each row is its header
Table = tuple[list[str], Rows]  # column headers and rows


def number(value: float | int | None, digits: int = 4) -> str:
  """Formats a number with `digits` significant digits, or with more digits if this avoids an exponent."""
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


def duration(days: float | int) -> str:
  """Formats a number of days as days, hours, minutes or seconds."""
  for unit, per_day in (("days", 1), ("hours", 24), ("minutes", 1440)):
    if not abs(days) * per_day < 1:
      return f"{number(days * per_day)} {unit}"
  return f"{number(days * 86400)} seconds"


def readable(name: str, class_names: Sequence[str] = ()) -> str:
  """Returns the name of a metric in words: "pca_squared_error" becomes "PCA squared error".

  The names of columns and factors are unchanged. `class_names` are the names of the labels 0, 1, ...
  """
  metric, _, part = name.rpartition("/")
  if metric_names.names_data(metric):
    return f"{readable(metric)} / {metric_names.in_words(part)}"
  words = " ".join(_WORDS.get(word, word) for word in name.replace("/", " / ").replace("_", " ").split(" "))
  return _with_class_name(words, class_names)


def exact(name: str, class_names: Sequence[str]) -> str:
  """Returns the name of a metric with the names of columns, factors and classes as they are in the data.

  "auroc/class_0" becomes "auroc/class good" if `class_names`, the names of the labels 0, 1, ..., begin with "good".
  """
  if metric_names.names_data(name.rpartition("/")[0]):
    return metric_names.in_words(name)
  return _with_class_name(name, class_names)


def _with_class_name(name: str, class_names: Sequence[str]) -> str:
  """Replaces a label at the end of `name` by its name: "class 0" or "class_0" becomes "class good"."""
  if not class_names:
    return name
  return _CLASS.sub(lambda match: f"class {labels.class_name(int(match[1]), class_names)}", name)


def over_epochs(
  measured: Mapping[str, tuple[np.ndarray, np.ndarray]], class_names: Sequence[str] = ()
) -> tuple[Rows, list[Table]]:
  """Returns the rows of a table of scalar metrics, and tables of the metrics with parts.

  A row is [name, last value, best value, epoch of the best value]. `measured` is the result of `logs.curves`, and
  `class_names` are the names of the labels 0, 1, ...
  """
  lines, details, start = [], {}, _last_stage(measured)
  for name, (epochs, values) in measured.items():
    if name.count("/") > 1:
      details[name.removeprefix("test/")] = number(values[-1])
    elif name not in _NO_METRICS:
      words = readable(name.replace("train/", "training ").replace("/", " "))
      comparable = epochs > start if name.endswith("loss") else np.ones(len(epochs), bool)
      lines.append([words, number(values[-1]), *_best(name, epochs[comparable], values[comparable])])
  return lines, pivots(details, class_names)


def _last_stage(measured: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
  """Returns the epoch at which the most recent training stage began; -inf if this is the first stage.

  Losses of different stages are not comparable.
  """
  epochs, stages = measured.get("stage", (np.zeros(0), np.zeros(0)))
  return float(epochs[stages < stages[-1:]].max(initial=-np.inf))


def _best(name: str, epochs: np.ndarray, values: np.ndarray) -> tuple[str, str]:
  """Returns the best value and its first epoch as texts.

  Returns ("", "") for baselines, for metrics without a finite value, and for metrics that are neither in `_LOWER` nor
  in `_HIGHER`.
  """
  sign = 1 if any(word in name for word in _LOWER) else -1 if any(word in name for word in _HIGHER) else 0
  finite = np.isfinite(values)
  if not sign or not finite.any() or name.startswith(_BASELINES):
    return "", ""
  best = np.argmin(np.where(finite, sign * values, np.inf))
  return number(values[best]), f"{epochs[best]:.3g}"


def of_values(
  values: Mapping[str, float | int], class_names: Sequence[str] = (), dates: Container[str] = ()
) -> tuple[Rows, list[Table]]:
  """Formats values and their confidence intervals or standard errors as tables.

  Args:
    values: {name: value} of the metrics.
    class_names: Names of the labels 0, 1, ..., which replace the labels; () if they have none.
    dates: Names of the date columns; their errors get a unit of time.

  Returns:
    The rows [name, text] of the scalar values, and the tables of the values with parts; see `pivots`.
  """
  hidden = names_of_bounds(values)
  shown = [name for name in values if name not in hidden]
  in_days = {name: duration(values[name]) for name in shown if metric_names.days(name, dates)}
  texts = {name: in_days.get(name) or _with_interval(name, values) for name in shown}
  return [[readable(name), text] for name, text in texts.items() if "/" not in name], pivots(texts, class_names)


def bounds(name: str, names: Collection[str]) -> dict[str, str]:
  """Returns {suffix: name of the bound} of the bounds and the standard error of a metric that are in `names`.

  A part such as "linear_few" of "probe/linear_few/code" has the suffix, but not the name of a column or a factor.
  """
  parts = name.split("/")
  count = len(parts) - metric_names.names_data(name.rpartition("/")[0])
  suffixed = [
    (suffix, "/".join([*parts[:place], parts[place] + suffix, *parts[place + 1 :]]))
    for suffix in SUFFIXES
    for place in range(count)
  ]
  return {suffix: bound for suffix, bound in suffixed if bound in names}


def names_of_bounds(names: Collection[str]) -> set[str]:
  """Returns the names that are a bound or standard error of another metric, e.g. "knn_low/code" of "knn/code"."""
  known = {*names}
  return {bound for name in known for bound in bounds(name, known).values()}


def _with_interval(name: str, values: Mapping[str, float | int]) -> str:
  found = bounds(name, values)
  low, high, error = (values[found[suffix]] if suffix in found else None for suffix in SUFFIXES)
  known = lambda *numbers: all(each is not None and math.isfinite(each) for each in numbers)
  if known(low, high, values[name]):
    text = with_bounds(values[name], low, high, "_dimension_" in name)
  else:
    text = number(values[name])
  return text + (f" ± {error:.2g}" if known(error) else "")


def with_bounds(value: float | int, low: float | int, high: float | int, is_dimension: bool = False) -> str:
  """Formats a value and its interval with the same number of decimals, such as "0.712 (0.642 to 0.775)".

  The value has at least three significant digits, and the width of the interval two. Of an intrinsic dimension
  (`is_dimension`), the upper end is left out if it is no bound.
  """
  shown = [value, low, high] if not is_dimension or dimension.is_bounded(value, high) else [value, low]
  sizes = [size for size in (abs(value) / 10, max(shown) - min(shown)) if size > 0]
  decimals = max(0, *(1 - math.floor(math.log10(size)) for size in sizes)) if sizes else 0
  while decimals and all(round(each, decimals) == round(each, decimals - 1) for each in shown):
    decimals -= 1
  texts = [f"{each:,.{decimals}f}" for each in shown]
  return f"{texts[0]} ({texts[1]} to {texts[2]})" if len(shown) == 3 else f"{texts[0]} (at least {texts[1]})"


def pivots(texts: Mapping[str, str], class_names: Sequence[str] = ()) -> list[Table]:
  """Groups {"METRIC/PART": text} into tables. Metrics with the same set of parts share one table.

  `class_names` are the names of the labels 0, 1, ...

  Each metric is a column of its table, or a row if there are more metrics than parts.
  """
  columns = {}
  for name, text in texts.items():
    metric, slash, part = name.rpartition("/")
    if slash:
      columns.setdefault(metric, {})[part] = text
  by_parts = {}
  for metric, column in columns.items():
    by_parts.setdefault((metric_names.names_data(metric), *column), []).append(metric)
  return [_pivot(columns, metrics, parts, class_names) for (_, *parts), metrics in by_parts.items()]


def _pivot(
  columns: Mapping[str, Mapping[str, str]], metrics: Sequence[str], parts: Sequence[str], class_names: Sequence[str]
) -> Table:
  grid = [[columns[metric][part] for metric in metrics] for part in parts]
  exact = metric_names.names_data(metrics[0])
  shown = [metric_names.in_words(part) if exact else readable(part, class_names) for part in parts]
  across, down = [*map(readable, metrics)], shown
  if len(metrics) > len(parts):
    grid, across, down = list(map(list, zip(*grid, strict=True))), shown, across
  return ["", *across], [[name, *texts] for name, texts in zip(down, grid, strict=True)]


def text(value: Any) -> str:
  """Formats a config value as text; the elements of a list are joined by commas."""
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def interval(values: Sequence[float | int] | np.ndarray) -> float | None:
  """Returns half the width of the 95 % t-interval of the mean; None for fewer than three values."""
  if len(values) < 3:
    return None
  from scipy import stats  # takes a second to import

  return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)

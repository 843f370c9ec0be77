"""Compares the configs, metrics, learning curves and reconstructions of several runs in an HTML page and a table."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.evaluators import figures
from ae_jax.report import blocks, charts, example_figures, page, run_report, tables
from ae_jax.runs import metric_names

_ERROR = "test/squared_error"
_MAX_NAMED = 3  # maximum number of groups that `answer` names after the best one

Rows = list[list[str]]  # rows of texts; the first text of a row is its header


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs on the same data. Their configs differ only in the seed and in keys that do not change the result."""

  runs: dict[str, Any]  # name -> run_report.RunReport
  config: dict[str, Any]  # dotted key -> value, without the keys in which the runs may differ

  @property
  def name(self) -> str:
    """Name of the first run, followed by the seeds of all runs if there are several."""
    seeds = ", ".join(str(run.config["seed"]) for run in self.runs.values())
    return f"{next(iter(self.runs))} (seeds {seeds})" if len(self.runs) > 1 else next(iter(self.runs))

  @property
  def data(self) -> str:
    """Fingerprint (hash) of the data set."""
    return next(iter(self.runs.values())).description["data"]["fingerprint"]

  def values(self, name: str) -> list[float | int]:
    """Returns the value of a metric in each run; runs without the metric are left out."""
    return [run.metrics[name] for run in self.runs.values() if name in run.metrics]


def read(folders: Sequence[pathlib.Path]) -> list[Group]:
  """Returns the runs in the given folders, grouped by config and data.

  Raises:
    UserError: If there are fewer than two folders, a folder is named twice, or a folder holds no evaluated run.
  """
  if len(folders) < 2:
    raise errors.UserError(f"{folders[0]}: nothing to compare with; name at least two run folders")
  resolved = [folder.resolve() for folder in folders]
  for number, folder in enumerate(resolved):
    if folder in resolved[:number]:
      raise errors.UserError(f"{folders[number]}: is named twice; name each run folder only once")
  names = [folder.name for folder in resolved]
  if len(set(names)) < len(names):
    names = [str(folder) for folder in folders]
  groups = {}
  for name, folder in zip(names, folders, strict=True):
    run = run_report.read(folder)
    if _ERROR not in run.metrics:
      raise errors.UserError(
        f"{folder}: has no evaluation yet ({_ERROR} is missing in metrics.jsonl); resume its training"
      )
    config = {key: value for key, value in configs.flat(run.config).items() if not _may_differ(key)}
    key = repr((sorted(config.items()), run.description["data"]["fingerprint"]))
    groups.setdefault(key, Group({}, config)).runs[name] = run
  return list(groups.values())


def answer(groups: Sequence[Group]) -> str:
  """Returns sentences that rank the groups by mean squared test error and name diverged and unfinished runs."""
  diverged = {group.name: [not math.isfinite(error) for error in group.values(_ERROR)] for group in groups}
  if all(all(runs) for runs in diverged.values()):
    return "All runs diverged."
  finite = [group for group in groups if not any(diverged[group.name])]
  sentences = [_ranking(finite, len(groups))] if finite else []
  if len({group.data for group in groups}) > 1:
    sentences.append("The runs were evaluated on different data.")
  names = [
    name if all(runs) else f"{sum(runs)} of {len(runs)} runs of {name}" for name, runs in diverged.items() if any(runs)
  ]
  if names:
    sentences.append(f"Diverged: {', '.join(names)}.")
  unfinished = [name for group in groups for name, run in group.runs.items() if run.epochs[0] < run.epochs[1]]
  if unfinished:
    sentences.append(f"Training not finished: {', '.join(unfinished)}.")
  return " ".join(sentences)


def _ranking(finite: Sequence[Group], count: int) -> str:
  """Returns sentences that rank the groups `finite`, which have no diverged runs, by mean error.

  `count` is the number of groups including those with diverged runs.
  """
  means = {group.name: float(np.mean(group.values(_ERROR))) for group in finite}
  ranked = sorted(finite, key=lambda group: means[group.name])
  best = [group.name for group in ranked if means[group.name] == means[ranked[0].name]]
  units = {run.result.unit for group in finite for run in group.runs.values()}
  error = _summary(ranked[0].values(_ERROR)) + (f" {units.pop()}" if len(units) == 1 and all(units) else "")
  if count == 1:
    return f"The squared error per test example of {ranked[0].name} is {error}."
  verb = "has" if len(best) == 1 else "have"
  sentence = f"{' and '.join(best)} {verb} the lowest squared error per test example, {error}."
  others = [f"{group.name}, {_summary(group.values(_ERROR))}" for group in ranked[len(best) :]]
  more = f"; and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
  return sentence + (f" Next: {'; '.join(others[:_MAX_NAMED])}{more}." if others else "")


def on_screen(groups: Sequence[Group]) -> str:
  """Returns a table of the scalar metrics as text, with one column for each group."""
  lines = [["", *(group.name for group in groups)], *_metrics(groups)[0]]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  padded = [[text.rjust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
  return "\n".join("  ".join([line[0].ljust(widths[0]), *texts[1:]]) for line, texts in zip(lines, padded, strict=True))


def write(groups: Sequence[Group], path: pathlib.Path) -> None:
  """Writes an HTML page that compares the groups.

  Raises:
    UserError: If the file cannot be written.
  """
  runs = {name: run for group in groups for name, run in group.runs.items()}
  head, (scalars, details) = ["", *(group.name for group in groups)], _metrics(groups)
  metrics = [page.table(head, scalars)]
  if details:
    metrics.append(page.table(head, details, folded=f"{len(details)} detailed metrics, such as errors per class"))
  differences = _differences(groups)
  table = page.table(head, differences, style="words") if differences else page.notes(_nearly_same(list(runs.values())))
  sections = [
    ("Config differences", [table]),
    ("Metrics", metrics),
    ("Learning curves", _curves(groups)),
    ("Reconstructions", _reconstructions(runs)),
  ]
  title = f"{len(runs)} runs, {len(groups)} config{'s' if len(groups) > 1 else ''}"
  page.write(path, title, answer(groups), sections)


def _differences(groups: Sequence[Group]) -> Rows:
  """Returns a table row for each config key, and each property in `_PROPERTIES`, that differs between groups."""
  keys = dict.fromkeys(key for group in groups for key in group.config)
  lines = [[key, *(tables.text(group.config[key]) if key in group.config else "" for group in groups)] for key in keys]
  for name, of_run in _PROPERTIES.items():
    lines.append([name, *("; ".join(dict.fromkeys(map(of_run, group.runs.values()))) for group in groups)])
  return [line for line in lines if len(set(line[1:])) > 1]


_PROPERTIES = {  # properties of a run that are not in its config
  "data": lambda run: run.description["data"]["fingerprint"],
  "parameters": lambda run: f"{run.description['parameters']:,}",
  "devices": lambda run: ", ".join(map(str, run.description["devices"])),
  "commit": lambda run: str(run.description.get("git_commit")),
  "versions": lambda run: ", ".join(f"{key} {value}" for key, value in run.description["versions"].items()),
}


def _may_differ(key: str) -> bool:
  """Returns whether the runs of a group may differ in a dotted key of the config."""
  return key == "seed" or configs.is_free(key)


def _nearly_same(runs: Sequence[run_report.RunReport]) -> str:
  """Returns a sentence that names the differences between the runs of a single group."""
  settings = [configs.flat(run.config) for run in runs]
  keys = sorted(
    {key for config in settings for key in config if _may_differ(key)}, key=lambda key: (key != "seed", key)
  )
  keys = [key for key in keys if len({str(setting.get(key)) for setting in settings}) > 1]
  properties = [name for name, of_run in _PROPERTIES.items() if len(set(map(of_run, runs))) > 1]
  text = f"differ only in {', '.join(keys)}" if keys else "are identical"
  also = f"; the runs also differ in {', '.join(properties)}" if properties else ""
  return f"The configs of these runs {text}{also}."


def _metrics(groups: Sequence[Group]) -> tuple[Rows, Rows]:
  """Returns the rows of the scalar metrics, and the rows of the metrics of subsets, e.g. a class or a noise level."""
  names = dict.fromkeys(name for group in groups for run in group.runs.values() for name in _comparable(run))
  of_runs = {run.class_names for group in groups for run in group.runs.values()}
  class_names = of_runs.pop() if len(of_runs) == 1 else ()
  scalars, details = [], []
  for name in names:
    of_date = any(metric_names.days(name, run.dates) for group in groups for run in group.runs.values())
    texts = [_summary(group.values(name), " days" if of_date else "") for group in groups]
    (details if name.count("/") > 1 else scalars).append([_readable(name, class_names), *texts])
  return scalars, details


def _comparable(run: Any) -> list[str]:
  """Returns the names of a run's metrics, except training metrics and the bounds or standard errors of metrics."""
  by_prefix = {}
  for name in run.metrics:
    prefix, slash, rest = name.partition("/")
    if slash and prefix != "train":
      by_prefix.setdefault(prefix, []).append(rest)
  bounds = {prefix: tables.names_of_bounds(names) for prefix, names in by_prefix.items()}
  return [f"{prefix}/{rest}" for prefix, names in by_prefix.items() for rest in names if rest not in bounds[prefix]]


def _readable(name: str, class_names: Sequence[str]) -> str:
  prefix, _, rest = name.partition("/")
  words = tables.readable(rest, class_names)
  return words if prefix == "test" else f"{tables.readable(prefix)}: {words}"


def _summary(values: Sequence[float | int], unit: str = "") -> str:
  """Returns the mean of the values, the confidence interval of the mean, and the range of the values, as text."""
  if not values:
    return ""
  text = tables.number(float(np.mean(values))) + unit
  if min(values) == max(values):
    return text
  half = tables.interval(values)
  if half is not None and math.isfinite(half):
    text += f" ± {half:.2g}"
  return f"{text} ({tables.number(min(values))} to {tables.number(max(values))})"


def _curves(groups: Sequence[Group]) -> list[blocks.Block]:
  """Returns charts of the learning curves of all runs. The runs of a group have the same colour."""
  runs = [(name, run, number) for number, group in enumerate(groups) for name, run in group.runs.items()]
  colours = [charts.LINES[number % len(charts.LINES)] for _, _, number in runs]
  group_names = {name: groups[number].name for name, _, number in runs}
  baselines = {float(value) for group in groups for value in group.values(metric_names.PCA)}
  labels = {
    _ERROR: ("Squared error on the test set", "squared error per test example"),
    "train/loss": ("Training loss", "loss per example"),
  }
  curve_charts = []
  for metric, (title, y_label) in labels.items():
    baseline = {"baseline: PCA": baselines.pop()} if metric == _ERROR and len(baselines) == 1 else {}
    lines = {name: run.curves.get(metric) for name, run, _ in runs}
    curve_charts.append((title, charts.curves(lines, baseline, y_label, colours, group_names)))
  return [blocks.chart(title, item) for title, item in curve_charts if item]


def _reconstructions(runs: Mapping[str, run_report.RunReport]) -> list[blocks.Block]:
  """Returns a block for each data set that shows how each run reconstructs the same test examples."""
  by_data: dict[tuple[str, ...], figures.ExampleRows] = {}
  for name, run in runs.items():
    figure = run.evaluation and run.evaluation.figures.get("reconstruction/reconstructions")
    if figure and example_figures.reconstructed(figure):
      key = run.description["data"]["fingerprint"], run.config["data"]["range"], run.config["data"]["name"]
      (examples_name, examples), (_, reconstructions) = figure.rows.items()
      shown = by_data.get(key) or dataclasses.replace(figure, rows={examples_name: examples})
      by_data[key] = dataclasses.replace(shown, rows=shown.rows | {name: reconstructions})
  title = "Test examples of {} and their reconstructions by each run"
  return [
    blocks.of_figure(dataclasses.replace(shown, title=title.format(data)), value_range)
    for (_, value_range, data), shown in by_data.items()
  ]

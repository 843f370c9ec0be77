"""What a page tells of several runs: where their configs differ, and what each of them reached."""

import dataclasses
import math

import numpy as np

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.report import blocks, charts, page, pictures, run_report, tables
from ae_jax.runs import metric_names

_ERROR = "test/squared_error"
_MOST_TOLD = 3  # groups that the answer names


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ in the seed alone, {name: story.RunReport}, and what their configs have in common."""

  runs: dict
  config: dict  # dotted key -> value

  @property
  def name(self):
    """That of the first run, and the seeds of all where there are several."""
    seeds = ", ".join(str(told.config["seed"]) for told in self.runs.values())
    return f"{next(iter(self.runs))} (seeds {seeds})" if len(self.runs) > 1 else next(iter(self.runs))

  @property
  def data(self):
    """The fingerprint of their data."""
    return next(iter(self.runs.values())).description["data"]["fingerprint"]

  def values(self, name):
    """Those of a metric, of the runs that have it."""
    return [told.metrics[name] for told in self.runs.values() if name in told.metrics]


def read(folders):
  """The `Group`s of the runs in some folders; UserError for fewer than two of them, and where one tells nothing yet."""
  if len(folders) < 2:
    raise errors.UserError(f"there is nothing to compare {folders[0]} with: name two runs or more")
  places = [folder.resolve() for folder in folders]
  for number, place in enumerate(places):
    if place in places[:number]:
      raise errors.UserError(f"{folders[number]} is named twice")
  names = [folder.resolve().name for folder in folders]
  if len(set(names)) < len(names):
    names = [str(folder) for folder in folders]
  groups = {}
  for name, folder in zip(names, folders, strict=True):
    told = run_report.read(folder)
    if _ERROR not in told.metrics:
      raise errors.UserError(f"{folder}: nothing was measured yet (no {_ERROR} in metrics.jsonl); let the run train on")
    config = {key: value for key, value in configs.flat(told.config).items() if not _may_differ(key)}
    key = repr((sorted(config.items()), told.description["data"]["fingerprint"]))
    groups.setdefault(key, Group({}, config)).runs[name] = told
  return list(groups.values())


def answer(groups):
  """Returns sentences on which group reconstructs best, and by how much."""
  lost = {group.name: [not math.isfinite(error) for error in group.values(_ERROR)] for group in groups}
  diverged = [
    name if all(runs) else f"{sum(runs)} of {len(runs)} runs of {name}" for name, runs in lost.items() if any(runs)
  ]
  if all(all(runs) for runs in lost.values()):
    return "All of these diverged."
  finite = [group for group in groups if not any(lost[group.name])]
  said = [_ranking(finite, len(groups))] if finite else []
  if len({group.data for group in groups}) > 1:
    said.append("They were measured on different data.")
  if diverged:
    said.append(f"Diverged: {', '.join(diverged)}.")
  unfinished = [name for group in groups for name, told in group.runs.items() if told.epochs[0] < told.epochs[1]]
  if unfinished:
    said.append(f"Not trained to the end: {', '.join(unfinished)}.")
  return " ".join(said)


def _ranking(finite, count):
  """The finite groups, the least error first, of `count` groups in all."""
  means = {group.name: float(np.mean(group.values(_ERROR))) for group in finite}
  ranked = sorted(finite, key=lambda group: means[group.name])
  least = [group.name for group in ranked if means[group.name] == means[ranked[0].name]]
  error = _summary(ranked[0].values(_ERROR))
  if count == 1:
    return f"The squared error per test example of {ranked[0].name} is {error}."
  have = "has" if len(least) == 1 else "have"
  said = f"{' and '.join(least)} {have} the least squared error per test example, {error}."
  others = [f"{group.name}, {_summary(group.values(_ERROR))}" for group in ranked[len(least) :]]
  more = f"; and {len(others) - _MOST_TOLD} more" if len(others) > _MOST_TOLD else ""
  return said + (f" Then {'; '.join(others[:_MOST_TOLD])}{more}." if others else "")


def on_screen(groups):
  """The metrics that have no parts, side by side, as lines of text."""
  lines = [["", *(group.name for group in groups)], *_metrics(groups)[0]]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  padded = [[text.rjust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
  return "\n".join("  ".join([line[0].ljust(widths[0]), *texts[1:]]) for line, texts in zip(lines, padded, strict=True))


def write(groups, path):
  """Writes the page of the groups; UserError where it cannot be written."""
  runs = {name: told for group in groups for name, told in group.runs.items()}
  head, (single, many) = ["", *(group.name for group in groups)], _metrics(groups)
  numbers = [page.table(head, single)]
  if many:
    numbers.append(page.table(head, many, folded=f"{len(many)} more, of parts of the data and of the code"))
  differences = _differences(groups)
  table = page.table(head, differences, style="words") if differences else page.notes(_nearly_same(list(runs.values())))
  sections = [
    ("Where they differ", [table]),
    ("What they reached", numbers),
    ("Learning", _curves(groups)),
    ("Reconstructions", _reconstructions(runs)),
  ]
  title = f"{len(runs)} runs, {len(groups)} config{'s' if len(groups) > 1 else ''}"
  page.write(path, title, answer(groups), sections)


def _differences(groups):
  """Lines of the keys that differ from group to group, and of other differences."""
  keys = dict.fromkeys(key for group in groups for key in group.config)
  lines = [[key, *(tables.text(group.config[key]) if key in group.config else "" for group in groups)] for key in keys]
  for name, of_run in _BESIDE.items():
    lines.append([name, *("; ".join(dict.fromkeys(map(of_run, group.runs.values()))) for group in groups)])
  return [line for line in lines if len(set(line[1:])) > 1]


_BESIDE = {  # what else may differ between runs
  "data": lambda told: told.description["data"]["fingerprint"],
  "parameters": lambda told: f"{told.description['parameters']:,}",
  "devices": lambda told: ", ".join(map(str, told.description["devices"])),
  "commit": lambda told: str(told.description.get("git_commit")),
  "versions": lambda told: ", ".join(f"{key} {value}" for key, value in told.description["versions"].items()),
}


def _may_differ(key):
  """Returns whether runs of a group may differ in a dotted key of the config."""
  return key == "seed" or configs.is_free(key)


def _nearly_same(runs):
  """A sentence on what differs between the runs of a single group."""
  settings = [configs.flat(told.config) for told in runs]
  keys = sorted({key for each in settings for key in each if _may_differ(key)}, key=lambda key: (key != "seed", key))
  keys = [key for key in keys if len({str(each.get(key)) for each in settings}) > 1]
  other = [name for name, of_run in _BESIDE.items() if len(set(map(of_run, runs))) > 1]
  said = (
    f"The configs of these runs differ only in {', '.join(keys)}" if keys else "The configs of these runs are equal"
  )
  return f"{said}; the runs differ also in {', '.join(other)}." if other else f"{said}."


def _metrics(groups):
  """Lines of what each group reached: of the metrics that have no parts, and of those that have."""
  names = dict.fromkeys(name for group in groups for told in group.runs.values() for name in _comparable(told))
  single, many = [], []
  for name in names:
    texts = [_summary(group.values(name)) for group in groups]
    (many if name.count("/") > 1 else single).append([_readable(name), *texts])
  return single, many


def _comparable(told):
  """Names of the metrics that say how good a run is: without those of training and without ends of intervals."""
  rooms = {}
  for name in told.metrics:
    room, slash, rest = name.partition("/")
    if slash and room != "train":
      rooms.setdefault(room, []).append(rest)
  return [f"{room}/{rest}" for room, all_ in rooms.items() for rest in all_ if not tables.ends_an_interval(rest, all_)]


def _readable(name):
  room, _, rest = name.partition("/")
  return tables.readable(rest if room == "test" else f"{room}: {rest}")


def _summary(values):
  """The mean of some values, how sure it is, and between what they lie."""
  if not values:
    return ""
  text = tables.number(float(np.mean(values)))
  if min(values) == max(values):
    return text
  half = tables.interval(values)
  if half is not None and math.isfinite(half):
    text += f" ± {half:.2g}"
  return f"{text} ({tables.number(min(values))} to {tables.number(max(values))})"


def _curves(groups):
  """The curves of all runs in the colour of their group."""
  runs = [(name, told, n) for n, group in enumerate(groups) for name, told in group.runs.items()]
  colours = [charts.LINES[number % len(charts.LINES)] for _, _, number in runs]
  named = {name: groups[number].name for name, _, number in runs}
  baselines = {float(value) for group in groups for value in group.values(metric_names.PCA)}
  titles = {
    _ERROR: ("The squared error of the test set", "squared error per test example"),
    "train/loss": ("What each minimised, over the training set", "loss per example"),
  }
  found = []
  for metric, (title, label) in titles.items():
    baseline = {"PCA": baselines.pop()} if metric == _ERROR and len(baselines) == 1 else {}
    lines = {name: told.curves.get(metric) for name, told, _ in runs}
    found.append((title, charts.curves(lines, baseline, label, colours, named)))
  return [blocks.chart(title, item) for title, item in found if item]


def _reconstructions(runs):
  """What each run makes of the same test examples, a block for each data set."""
  blocks = {}
  for name, told in runs.items():
    shown = told.found and told.found.figures.get("reconstruction/reconstructions")
    if shown and pictures.reconstructed(shown):
      key = told.description["data"]["fingerprint"], told.config["data"]["range"], told.config["data"]["name"]
      (first, examples), (_, made) = shown.rows.items()
      blocks.setdefault(key, {first: examples})[name] = made
  return [
    blocks.rows(rows, *pictures.limits(next(iter(rows.values())), value_range))
    | {"title": f"Test examples of {data}, and what each run makes of them"}
    for (_, value_range, data), rows in blocks.items()
  ]

"""What a page tells of a run: a pure function of what lies in its folder."""

import dataclasses
import math
import pathlib

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.data import ranges
from ae_jax.evaluators import figures, results
from ae_jax.report import blocks, charts, messages, page, tables, verdict
from ae_jax.runs import logs, metric_names, run_folder

# the sections that pictures are in: by their kind if that is named here, else by their evaluator
_SECTIONS = {
  "Reconstructions": ("reconstruction", "denoising", "anomaly", "logistic_pca"),
  "The code": (
    *(figures.Points, figures.Explorer),
    *("latent", "codebook", "probe", "posterior", "sparsity", "disentanglement"),
  ),
  "What it can make": ("generation",),
  "Where it looks": (figures.Attention,),
  "When examples are disturbed": ("robustness",),
}
_FIRST = (figures.Points, figures.Explorer, figures.Gallery, figures.ExampleRows, figures.Attention)  # charts are last
_TILES = (  # what is worth a tile: its name and label, and what is said beside it, of which value
  ("test/squared_error", "squared error per example", "PCA: {}", metric_names.PCA),
  ("test/nats", "nats per example", "the floor: {}", "test/nats_floor"),
  ("test/auroc", "AUROC of the anomalies", "PCA's residual: {}", "test/pca_auroc"),
  ("reconstruction/ssim", "structural similarity", "PSNR: {} dB", "reconstruction/psnr"),
  ("probe/linear/code", "accuracy of a linear probe", "of the pixels: {}", "probe/linear/pixels"),
  ("generation/nll", "nats, negative log-likelihood", "negative ELBO: {}", "generation/negative_elbo"),
)
_AGAIN = """import json, pathlib
from ae_jax import config, train

stored = json.loads(pathlib.Path("config.json").read_text())  # the one in the folder of this run
train.train_and_evaluate(config.from_json(stored["config"]), pathlib.Path("runs/again"))"""


@dataclasses.dataclass(frozen=True)
class RunReport:
  """A run, as its folder has it."""

  description: dict  # config.json
  curves: dict  # metrics.jsonl, as `logs.curves` has it
  found: results.Results | None  # evaluation/

  @property
  def config(self):
    """The config as config.json has it."""
    return self.description["config"]

  @property
  def metrics(self):
    """The last value of each metric, and the values of the analyses."""
    last = {name: values[-1].item() for name, (_, values) in self.curves.items()}
    return last | (self.found.values if self.found else {})

  @property
  def epochs(self):
    """(those trained, those asked for)."""
    asked = self.config["epochs"] + sum(stage["epochs"] for stage in self.config["stages"])
    return self.metrics.get("epoch", 0.0), asked

  @property
  def title(self):
    """The model and its data."""
    return f"{self.config['model']['name']} on {self.config['data']['name']}"

  @property
  def answer(self):
    """Sentences on how good the model is, against what."""
    done, asked = self.epochs
    return messages.headline(self._current, self.description, verdict.skipped_steps(self.curves), done >= asked)

  @property
  def _current(self):
    """`metrics`, without the values of analyses of an earlier step."""
    stale = self.found.values if self.found and self._is_stale else {}
    return {name: value for name, value in self.metrics.items() if name in self.curves or name not in stale}

  @property
  def _is_stale(self):
    """True if the run was trained further after its last evaluation."""
    return self.found.step != self.metrics.get("step", self.found.step)

  def _code(self):
    """Returns the size of a latent code; runs of earlier versions describe only the latent size."""
    code = self.description.get("code", {"numbers": self.config["model"]["latent"], "bits": None})
    return f"{code['numbers']:,} numbers of code" if code["bits"] is None else f"{code['bits']:,.0f} bits of code"

  def facts(self):
    """What was trained on what, and how far."""
    data, (done, asked) = self.description["data"], self.epochs
    size = " x ".join(map(str, data["shape"]))
    state = f"after {asked} epochs" if done >= asked else f"still training, or stopped: epoch {done:.3g} of {asked}"
    return [
      f"{self.description['parameters']:,} parameters",
      self._code(),
      f"{data['train']:,} training and {data['test']:,} test examples of {size}",
      state,
    ]

  def tiles(self):
    """The numbers to be seen first, of those that are finite."""
    found, metrics = [], {name: value for name, value in self._current.items() if math.isfinite(value)}
    for name, label, said, baseline in _TILES:
      baseline = metric_names.pca_key(metrics) if baseline == metric_names.PCA else baseline
      if name in metrics:
        beside = said.format(tables.number(metrics[baseline])) if baseline in metrics else ""
        found.append({"name": label, "value": tables.number(metrics[name], 3), "beside": beside})
    return found

  def sections(self):
    """[(title, blocks)] of a page."""
    return [
      ("Learning", self._curves()),
      *self._exhibits(),
      ("All numbers", [{"kind": "groups", "groups": groups}] if (groups := self._groups()) else []),
      ("The run", self._run()),
    ]

  def _curves(self):
    titles = {
      "The loss that is minimised, over the training and the test set": charts.losses(self.curves),
      "The squared error of the test set": charts.errors(self.curves),
    }
    return [blocks.chart(title, item) for title, item in titles.items() if item]

  def _exhibits(self):
    """The sections of the figures; evaluators that are in none of `_SECTIONS` have one of their own."""
    homes = {member: title for title, members in _SECTIONS.items() for member in members}
    sections = {title: [] for title in _SECTIONS}
    if self.found is None:
      return [("Pictures", [page.notes("Pictures, and what the evaluators find, come when the training has ended.")])]
    for name, figure in self.found.figures.items():
      room = name.partition("/")[0]
      home = homes.get(type(figure)) or homes.get(room) or _room(room)
      sections.setdefault(home, []).append(figure)
    if self._is_stale:
      note = page.notes(f"What follows was found at step {self.found.step:,}; the training has gone on since.")
      sections = {"Before the last step": [note]} | sections
    place = lambda figure: _FIRST.index(type(figure)) if type(figure) in _FIRST else len(_FIRST)
    value_range = self.config["data"]["range"]
    made = lambda shown: blocks.of_figure(shown, value_range) if not isinstance(shown, dict) else shown
    return [(title, [made(each) for each in sorted(shown, key=place)]) for title, shown in sections.items()]

  def _groups(self):
    """All numbers and remarks: those of the training, then those of each evaluator."""
    lines, more = tables.over_epochs(self.curves)
    said = [line for head, part in [([], lines), *more] for line in part if tables.NOT_FINITE in line]
    remarks = [f"“{tables.NOT_FINITE}” is infinite or undefined, as the PSNR is where the error is 0"] if said else []
    groups = [_group("While it was trained", ["", "last", "best", "epoch"], lines, more, remarks)] if lines else []
    found = self.found or results.Results(0, {}, {}, {})
    rooms = dict.fromkeys(name.partition("/")[0] for part in (found.values, found.remarks) for name in part)
    for room in rooms:
      own = lambda part, room=room: {
        name.partition("/")[2]: value for name, value in part.items() if name.partition("/")[0] == room
      }
      lines, more = tables.of_values(own(found.values))
      groups.append(_group(_room(room), [], lines, more, own(found.remarks).values()))
    return groups

  def _run(self):
    """The config, the environment, and how to do it again."""
    given, usual = configs.flat(self.config), configs.flat(configs.as_json(configs.base(self.config["data"]["name"])))
    lines = [
      {"cells": (key, tables.text(value)), "changed": key in usual and usual[key] != value}
      for key, value in given.items()
    ]
    environment = [
      *self.description["versions"].items(),
      ("devices", ", ".join(self.description["devices"])),
      ("commit", str(self.description.get("git_commit") or "none: not a checkout")),
      ("data", self.description["data"]["fingerprint"]),
    ]
    folded = "Every key of the config; bold where it is not the default"
    command = self.description.get("command")
    again = {"kind": "code", "title": "The same again", "text": command or _AGAIN}
    return [
      again,
      page.table([], environment, "Made with", style="words"),
      page.table([], lines, "Config", style="words", folded=folded),
    ]


def read(workdir):
  """The `RunReport` of the run in a folder; UserError for a folder without one, or where a file of it is damaged."""
  workdir = pathlib.Path(workdir)
  if not (workdir / "config.json").exists():
    raise errors.UserError(f"{workdir}: there is no run here (no config.json)")
  description = run_folder.read_description(workdir)
  _check(description, f"{workdir}/config.json")
  errors.choose(ranges.INTERVALS, description["config"]["data"]["range"], "data.range")
  return RunReport(description, logs.curves(logs.stream(workdir)), results.read(workdir))


_NEEDED = {
  "config": {
    "seed": int,
    "epochs": int,
    "stages": list,
    "model": {"name": str, "latent": int},
    "data": {"name": str, "range": str},
  },
  "data": {"train": int, "test": int, "fingerprint": str},
  "parameters": int,
  "versions": dict,
  "devices": list,
}


def write(workdir):
  """Writes report.html into the folder of a run, from what else lies there; UserError where it cannot.

  A run that is still being trained has its page too, which says so.
  """
  told = read(workdir)
  page.write(workdir / "report.html", told.title, told.answer, told.sections(), told.facts(), told.tiles())


def _check(found, where, needed=_NEEDED, prefix=""):
  """Raises UserError where config.json lacks what a page needs, as that of another version may."""
  for key, kind in needed.items():
    wanted = dict if isinstance(kind, dict) else kind
    if not isinstance(found.get(key), wanted):
      raise errors.UserError(
        f"{where}: {prefix}{key} is {errors.shown(found.get(key))}, not {wanted.__name__}: it is of another version"
      )
    if isinstance(kind, dict):
      _check(found[key], where, kind, f"{prefix}{key}.")


def _group(title, head, lines, more, remarks):
  rest = [{"head": head, "lines": lines} for head, lines in more]
  said = [f"{remark[:1].upper()}{remark[1:]}." for remark in remarks]
  return {"title": title, "tables": [{"head": head, "lines": lines}, *rest] if lines else rest, "remarks": said}


def _room(name):
  words = tables.readable(name)
  return words[:1].upper() + words[1:]

"""Writes the HTML report of a run, using only the files in the run folder."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.data import labels, ranges
from ae_jax.data import schema as schemas
from ae_jax.evaluators import figures, results
from ae_jax.report import blocks, charts, glossary, measured, messages, page, tables, tiles
from ae_jax.runs import logs, run_folder

# Title of a section -> figure types and names of evaluators. The section shows their figures. If the type and the
# evaluator of a figure belong to different sections, the type decides.
_SECTIONS = {
  "Reconstructions": ("reconstruction", "denoising", "anomaly", "logistic_pca"),
  "Latent codes": (
    *(figures.Points, figures.Explorer),
    *("latent", "codebook", "probe", "posterior", "sparsity", "disentanglement"),
  ),
  "Samples": ("generation",),
  "Attention": (figures.Attention,),
  "Robustness": ("robustness",),
}
# Types of the figures that a section shows first, in this order.
_FIRST = (figures.Timelines, figures.Points, figures.Explorer, figures.Gallery, figures.ExampleRows, figures.Attention)
_SCRIPT = """import json, pathlib
from ae_jax import config, train

stored = json.loads(pathlib.Path("config.json").read_text())  # in the folder of this run
train.train_and_evaluate(config.from_json(stored["config"]), pathlib.Path("runs/reproduced"))"""


@dataclasses.dataclass(frozen=True)
class RunReport:
  """Contents of a run folder, and the texts and sections of its report."""

  description: dict[str, Any]  # config.json
  curves: dict[str, Any]  # metrics.jsonl, as `logs.curves` returns it
  evaluation: results.Results | None  # evaluation/

  @property
  def config(self) -> dict[str, Any]:
    """Config in config.json."""
    return self.description["config"]

  @property
  def metrics(self) -> dict[str, float | int]:
    """Last value of each metric, and the values that the evaluators measured."""
    last = {name: values[-1].item() for name, (_, values) in self.curves.items()}
    return last | (self.evaluation.values if self.evaluation else {})

  @property
  def epochs(self) -> tuple[float | int, int]:
    """Number of trained epochs, and number of epochs in the config."""
    total = self.config["epochs"] + sum(stage["epochs"] for stage in self.config["stages"])
    return self.metrics.get("epoch", 0.0), total

  @property
  def title(self) -> str:
    """Names of the model and the data set."""
    return f"{self.config['model']['name']} on {self.config['data']['name']}"

  @property
  def answer(self) -> str:
    """Headline of the report: test error, PCA baseline and verdict."""
    done, total = self.epochs
    return messages.headline(self._current, self.description, self.curves, done >= total)

  @property
  def result(self) -> measured.Result:
    """The metrics of the run, for sentences about them."""
    return measured.Result(self.metrics, self.description, self.curves)

  @property
  def _current(self) -> dict[str, float | int]:
    """`metrics` without values that the evaluators measured at an earlier step."""
    stale = self.evaluation.values if self.evaluation and self._is_stale else {}
    return {name: value for name, value in self.metrics.items() if name in self.curves or name not in stale}

  @property
  def _is_stale(self) -> bool:
    """True if the run was trained further after its last evaluation."""
    return self.evaluation.step != self.metrics.get("step", self.evaluation.step)

  def _code(self) -> str:
    """Returns the size of a latent code as text. The config.json of earlier versions holds only the latent size."""
    code = self.description.get("code", {"numbers": self.config["model"]["latent"], "bits": None})
    return (
      f"latent code of {code['numbers']:,} values"
      if code["bits"] is None
      else (f"latent code of {code['bits']:,.0f} bits")
    )

  def facts(self) -> list[str]:
    """Returns texts with the sizes of the model and the data, and the progress of training."""
    data, (done, total) = self.description["data"], self.epochs
    state = f"trained for {total} epochs" if done >= total else f"in training or stopped: epoch {done:.3g} of {total}"
    return [
      f"{self.description['parameters']:,} parameters",
      self._code(),
      messages.examples(data),
      state,
    ]

  def tiles(self) -> list[dict[str, str]]:
    """Returns the most important finite metrics, each with a text that compares it, e.g. with the PCA baseline."""
    return tiles.of(measured.Result(self._current, self.description, self.curves))

  def sections(self) -> list[tuple[str, list[blocks.Block]]]:
    """Returns the sections of the page as pairs (title, blocks)."""
    return [
      ("Learning curves", self._curves()),
      *self._figures(),
      ("All metrics", self._all_metrics()),
      ("Reproduce this run", self._run()),
    ]

  def _curves(self) -> list[blocks.Block]:
    losses = charts.losses(self.curves, self.result.loss_examples)
    squared_errors = charts.errors(self.curves, self.result.tested, self.result.unit)
    found = [blocks.chart("Training and test loss", losses)] if losses else []
    if squared_errors:
      found.append(blocks.chart("Squared error on the test set", {**squared_errors, "note": self.result.pca_in_words}))
    return found

  def _figures(self) -> list[tuple[str, list[blocks.Block]]]:
    """Returns the sections that contain figures. An evaluator that is not in `_SECTIONS` gets its own section."""
    if self.evaluation is None:
      return [
        ("Figures", [page.notes("Figures and results of the evaluators will appear here when training has ended.")])
      ]
    section_of = {member: title for title, members in _SECTIONS.items() for member in members}
    sections = {title: [] for title in _SECTIONS}
    for name, figure in self.evaluation.figures.items():
      evaluator = name.partition("/")[0]
      title = section_of.get(type(figure)) or section_of.get(evaluator) or _capitalised(evaluator)
      sections.setdefault(title, []).append(figure)
    order = lambda figure: _FIRST.index(type(figure)) if type(figure) in _FIRST else len(_FIRST)
    value_range = self.config["data"]["range"]
    rendered = [
      (title, [blocks.of_figure(figure, value_range) for figure in sorted(members, key=order)])
      for title, members in sections.items()
    ]
    if not self._is_stale:
      return rendered
    step = f"{self.evaluation.step:,}"
    note = page.notes(f"The results below were measured at step {step}. The run has been trained further since.")
    return [("Earlier evaluation", [note]), *rendered]

  def _all_metrics(self) -> list[blocks.Block]:
    """Returns the metrics: a group of tables and notes for training, one for each evaluator, and definitions."""
    lines, more = tables.over_epochs(self.curves, self.class_names)
    not_finite = any(tables.NOT_FINITE in line for _, rows in [([], lines), *more] for line in rows)
    remark = f"“{tables.NOT_FINITE}” means infinite or undefined, such as the PSNR of a perfect reconstruction"
    result = self.result
    of_error = f"squared errors are {result.unit}" if result.unit else ""
    of_loss = f"the test loss is measured on {result.test_set}" if result.loss_examples else ""
    head, remarks = ["", "last", "best", "best epoch"], [*filter(None, (not_finite and remark, of_error, of_loss))]
    groups = [_group("During training", head, lines, more, remarks)] if lines else []
    evaluation = self.evaluation or results.Results(0, {}, {}, {})
    names = [*evaluation.values, *evaluation.remarks]
    for evaluator in dict.fromkeys(name.partition("/")[0] for name in names):
      lines, more = tables.of_values(_of_evaluator(evaluator, evaluation.values), self.class_names, self.dates)
      remarks = [*_of_evaluator(evaluator, evaluation.remarks).values()]
      remarks += [of_error] if of_error and any("squared error" in line[0] for line in lines) else []
      groups.append(_group(_capitalised(evaluator), [], lines, more, remarks))
    return [{"kind": "groups", "groups": groups}, glossary.block(self.metrics)] if groups else []

  @property
  def dates(self) -> frozenset[str]:
    """Names of the date columns of a table."""
    schema = schemas.from_json(self.description["data"].get("schema"))
    return frozenset() if schema is None else schema.dates

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels 0, 1, ...; () if they have none."""
    return tuple(self.description["data"].get("class_names", ()))

  def _setting(self, key: str, value: Any) -> str:
    """Returns the value of a config key as text; labels are shown with their class name."""
    is_label = key == "data.one_class" and value is not None
    return labels.with_name(value, self.class_names) if is_label else tables.text(value)

  def _run(self) -> list[blocks.Block]:
    """Returns blocks with the command, the environment and the config of the run."""
    settings = configs.flat(self.config)
    defaults = configs.flat(configs.as_json(configs.base(self.config["data"]["name"])))
    lines = [
      {"cells": (key, self._setting(key, value)), "changed": key in defaults and defaults[key] != value}
      for key, value in settings.items()
    ]
    environment = [
      *self.description["versions"].items(),
      ("devices", ", ".join(self.description["devices"])),
      ("commit", str(self.description.get("git_commit") or "none (not a Git checkout)")),
      ("data fingerprint", self.description["data"]["fingerprint"]),
    ]
    folded = "All config keys (bold: differs from the default)"
    command = self.description.get("command")
    code = {"kind": "code", "title": "Command" if command else "Python script", "text": command or _SCRIPT}
    return [
      code,
      page.table([], environment, "Environment", style="words"),
      page.table([], lines, "Config", style="words", folded=folded),
    ]


def read(workdir: pathlib.Path) -> RunReport:
  """Reads the files of a run folder that the report shows.

  Raises:
    UserError: If the folder holds no run, or a file is damaged or was written by an incompatible version of ae_jax.
  """
  workdir = pathlib.Path(workdir)
  description = run_folder.read_description(workdir)
  _check(description, f"{workdir}/config.json")
  errors.choose(ranges.INTERVALS, description["config"]["data"]["range"], "data.range")
  return RunReport(description, logs.curves(logs.stream(workdir)), results.read(workdir))


_REQUIRED = {
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


def write(workdir: pathlib.Path) -> None:
  """Writes report.html into a run folder. The run may still be in training.

  Raises:
    UserError: If a file of the run is damaged, or the report cannot be written.
  """
  report = read(workdir)
  page.write(workdir / "report.html", report.title, report.answer, report.sections(), report.facts(), report.tiles())


def _check(section: Mapping[str, Any], file: str, required: Mapping[str, Any] = _REQUIRED, prefix: str = "") -> None:
  """Raises UserError if config.json lacks a key that the report needs, or if its value has the wrong type."""
  for key, kind in required.items():
    expected = dict if isinstance(kind, dict) else kind
    value = section.get(key)
    if not isinstance(value, expected):
      raise errors.UserError(
        f"{file}: {prefix}{key} is {errors.format_value(value)}, not {expected.__name__}; another version of ae_jax "
        "wrote the file. Read the run with that version"
      )
    if isinstance(kind, dict):
      _check(value, file, kind, f"{prefix}{key}.")


def _of_evaluator(evaluator: str, values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of one evaluator under shorter names: "EVALUATOR/NAME" becomes "NAME"."""
  parts = {name: name.partition("/") for name in values}
  return {parts[name][2]: value for name, value in values.items() if parts[name][0] == evaluator}


def _group(
  title: str, head: list[str], lines: tables.Rows, more: Sequence[tables.Table], remarks: Iterable[str]
) -> dict[str, Any]:
  """Returns one entry of a block of kind "groups": a title, tables, and notes below the tables."""
  further = [{"head": head, "lines": lines} for head, lines in more]
  sentences = [f"{remark[:1].upper()}{remark[1:]}." for remark in remarks]
  return {
    "title": title,
    "tables": [{"head": head, "lines": lines}, *further] if lines else further,
    "remarks": sentences,
  }


def _capitalised(name: str) -> str:
  words = tables.readable(name)
  return words[:1].upper() + words[1:]

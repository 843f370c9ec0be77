"""Evaluates a trained run again and updates its figures and report.

  ae_jax evaluate --workdir=runs/cnn
  ae_jax evaluate --workdir=runs/cnn --only=probe,anomaly
  python -m ae_jax.evaluate --workdir=runs/cnn --which=best
  python -m ae_jax.evaluate --workdir=runs/cnn --data=/other/place/x.npz
  ae_jax evaluate --workdir=runs/cnn --data=new_photos
  ae_jax evaluate --workdir=runs/cnn --data=new.csv --label=defect --normal=none

Without --only, the evaluators in config.evaluators run. With --only, the named evaluators run instead, and the earlier
results of other evaluators are kept. If the data were moved after training, pass the new path with --data. If the
contents of --data differ from the data of the run, they are evaluated as new examples: the results of `Run.evaluate`
are printed, and the report is not updated. If they have labels, the detection of anomalies is measured, too. Labels
are the column config.data.label of a table or the array `y` of a file (--label names another one), or the folders of
images. --normal is the label of the normal examples. In a file of arrays, --array, --target and --mask name the
examples, the targets and the masks.
"""

import functools
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from ae_jax import array_flags, cli
from ae_jax.runs import progress
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_ONLY = flags.DEFINE_list("only", [], "Evaluators to run, NAME,NAME,...; default: config.evaluators of the run.")
_DATA = flags.DEFINE_string("data", "", "Path of the data of the run, or of other data; default: config.data.path.")
_NAMED = array_flags.define("Column or array of --data with the labels; default: config.data.label or y.")
_NORMAL = flags.DEFINE_string(
  "normal",
  "",
  "Label of the normal examples in --data; default: config.data.one_class, or 0 if the labels are 0 and 1.",
)
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to evaluate.")


def main(workdir: pathlib.Path) -> None:
  """Evaluates the run in a folder with the evaluators and the checkpoint in the flags."""
  from ae_jax import api, errors, evaluators
  from ae_jax.report import evaluation
  from ae_jax.runs import run_folder
  from ae_jax.system import cache
  from ae_jax.training import preemption

  with cli.user_errors():
    run = api.load(workdir, _WHICH.value)
    try:
      dataset = run_folder.load_data(workdir, run.config, _DATA.value)
    except errors.UserError as error:
      if not _DATA.value or _ONLY.value:
        raise
      _print_results(run, _on_other_data(run, error))
      return
    if unused := [flag.name for flag in (*_NAMED.values(), _NORMAL) if flag.value]:
      raise errors.UserError(f"--{unused[0]}: is for new examples, not for the data of the run; remove it")
    for line in (*dataset.remarks, *dataset.faults):
      progress.print_line(line)
    cache.keep_compiled_programs()
    chosen = evaluators.build(_ONLY.value or run.config.evaluators, run.model, dataset)
    baselines = dict(evaluators.baselines(chosen, dataset, run.model.code))
    with preemption.catch_signals(preemption.ANALYZING) as received:
      check = functools.partial(preemption.stop_analyses, received, workdir)
      results = evaluation.analyze(run, dataset, chosen, workdir, baselines, check)
    _print_results(run, results.values | results.remarks)


def _print_results(run: Any, results: Mapping[str, Any]) -> None:
  from ae_jax.report import printed
  from ae_jax.types import KINDS

  for line in printed.lines(results, run.schema, run.class_names or (), KINDS[len(run.model.shape)]):
    print(line)


def _on_other_data(run: Any, reason: Exception) -> dict[str, Any]:
  """Evaluates a run on the data at --data as new examples, and returns the results of `Run.evaluate`.

  `reason` is the error that shows that they are not the data of the run.

  Raises:
    UserError: The data cannot be read as new examples either.
  """
  from ae_jax import errors
  from ae_jax.decisions import rows, thresholds

  path = str(paths.local_path("--data", _DATA.value))
  try:
    found = rows.read(run, path, **array_flags.values(_NAMED))
    parts = [*found.parts]
  except errors.UserError as error:
    is_of_other_form = os.path.isdir(path) and not os.path.isdir(run.config.data.path)
    if is_of_other_form or any(flag.value for flag in _NAMED.values()):  # these cannot be meant as the data of the run
      raise
    raise errors.UserError(f"{reason}. The data cannot be read as new examples either: {error}") from None
  differing = f" (other {', '.join(reason.differing)})" if isinstance(reason, errors.DifferentData) else ""
  progress.print_line(
    f"the data are not those of the run{differing}, so they are evaluated as new examples, and the report is not "
    "updated"
  )
  for line in (*found.remarks, *rows.remarks_on_extra(run, found, path, reads_target=True)):
    progress.print_line(line)
  threshold, fault = thresholds.of_run(run, "target" in found.extra)
  if fault:
    progress.print_line(f"the number of flagged examples is not reported: {fault}")
  for part in parts:
    for line in rows.remarks_on(run, part, path):
      progress.print_line(line)
  of_parts = [rows.columns_of(run, part, path) for part in parts]
  columns = {name: rows.joined([each[name] for each in of_parts]) for name in of_parts[0]}
  x = rows.joined([part.x for part in parts])
  for name in found.extra:
    columns[name] = rows.joined([getattr(part, name) for part in parts])
  anomalous = _anomalous(run, found, [*zip(parts, of_parts, strict=True)], path)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".* no value in any column")  # the lines of `rows.remarks_on` say it
    results = run.evaluate(x, labels=anomalous, **columns)
    return results if threshold is None else results | {"flagged": int(run.flag(x, **columns).sum())}


def _anomalous(run: Any, found: Any, parts: Sequence[tuple[Any, Any]], path: str) -> Any:
  """Returns which of the new examples are anomalies; prints which class is normal, or why it is unknown (None).

  `parts` are the examples, each part with its other inputs of the model.

  The labels of a conditional model are inputs, so they tell anomalies only if the normal class is set.

  Raises:
    UserError: --normal is given, and there are no labels.
  """
  import numpy as np

  from ae_jax import errors
  from ae_jax.data import new_labels
  from ae_jax.decisions import rows

  normal = _NORMAL.value or run.config.data.one_class
  if found.no_labels and _NORMAL.value:
    raise errors.UserError(f"--normal={normal}: --data={path} has no labels; {found.no_labels}")
  if found.no_labels or (normal is None and "label" in run.model.columns):
    return None
  try:
    values = np.concatenate([rows.labels_of(run, part, columns, path) for part, columns in parts])
    anomalous, sentence = new_labels.anomalous(values, run.class_names, normal)
  except errors.UserError as error:
    anomalous, sentence = None, str(error)
  progress.print_line(sentence if anomalous is not None else f"detection of anomalies is not measured: {sentence}")
  return anomalous


def run() -> None:
  """Runs `ae_jax evaluate`."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()

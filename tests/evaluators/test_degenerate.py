"""Analyses of constant or very few data: each number is finite, or a note replaces it."""

import math
import re

import made_contexts
import made_runs
import numpy as np
import pytest

from ae_jax import evaluators, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import reconstruction, results
from ae_jax.report import run_report
from ae_jax.runs import logs

pytestmark = pytest.mark.quick_compile

TRAIN, TEST = (12, 4, 4, 1), (5, 4, 4, 1)
ONE = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 1), np.uint8)
CASES = {  # name -> training and test examples, of the same shapes, so that programs are compiled once
  "constant": (np.full(TRAIN, 128, np.uint8), np.full(TEST, 128, np.uint8)),
  "zero": (np.zeros(TRAIN, np.uint8), np.zeros(TEST, np.uint8)),
  "white": (np.full(TRAIN, 255, np.uint8), np.full(TEST, 255, np.uint8)),
  "repeated": (np.repeat(ONE, 12, 0), np.repeat(ONE, 5, 0)),
  "two and one": (np.concatenate([ONE, 255 - ONE]), ONE // 2),
}
ANALYSES = ("reconstruction", "robustness", "latent", "generation", "probe", "sparsity")


def texts(part):
  """Returns all strings in nested lists and dicts."""
  if isinstance(part, dict | list | tuple):
    return [text for each in (part.values() if isinstance(part, dict) else part) for text in texts(each)]
  return [part] if isinstance(part, str) else []


def arrays(figure):
  """Yields the arrays of a figure."""
  for value in vars(figure).values():
    yield from (value.values() if isinstance(value, dict) else [value] if isinstance(value, np.ndarray) else [])


@pytest.mark.parametrize("case", CASES)
def test_a_report_of_degenerate_data_has_no_nan(case, tmp_path):
  train, test = CASES[case]
  context = made_contexts.context_of(train, test)
  analyzed = results.collect(6, evaluators.analyses([evaluators.EVALUATORS[name] for name in ANALYSES], context))
  assert all(map(math.isfinite, analyzed.values.values()))
  for name, figure in analyzed.figures.items():
    assert all(np.isfinite(array).all() for array in arrays(figure) if array.dtype.kind == "f"), name
  metrics = dict(reconstruction.baselines(context.dataset, models.CodeSpec((4,))))
  values = {"squared_error": context.squared_errors, "nats": context.squared_errors}
  records = [{"step": 6, "epoch": 1.0} | metrics | dict(reconstruction.metrics(values, context.dataset))]
  folder = made_runs.make(tmp_path / "run", epochs=1)
  report = run_report.RunReport(run_report.read(folder).description, logs.curves(records), analyzed)
  text = " ".join([report.answer, *texts(report.tiles()), *texts(report._all_metrics()), *report.facts()])
  assert not re.search(r"\b(nan|inf|None)\b|∞", text, re.IGNORECASE)
  assert ("equals the mean training example" in report.answer) == (case != "two and one")


def test_a_number_that_is_not_finite_becomes_a_remark():
  analyze = lambda context: [("a_b/c", math.nan), ("d", math.inf), ("e", 5), ("f", 1.5), ("g", "said")]
  evaluator = evaluators.Evaluator("made", analyses=(evaluators.Analysis(analyze),))
  train, test = CASES["two and one"]
  analyzed = dict(evaluators.analyses([evaluator], made_contexts.context_of(train, test)))
  assert analyzed["made/a_b/c"].startswith("a b/c is not finite: ")
  assert analyzed["made/d"].startswith("d is not finite: ")
  assert (analyzed["made/e"], analyzed["made/f"], analyzed["made/g"]) == (5, 1.5, "said")


def test_latent_codes_that_are_not_finite_in_one_split_are_not_analyzed():
  analyze = lambda context: pytest.fail("it was analyzed")
  evaluator = evaluators.Evaluator("made", analyses=(evaluators.Analysis(analyze),))
  for codes in ("test_codes", "train_codes"):
    context = made_contexts.context_of(*CASES["two and one"])
    assert isinstance(context, contexts.EvalContext)
    vars(context)[codes] = np.full((2, 4), np.inf, np.float32)
    assert "diverged" in dict(evaluators.analyses([evaluator], context))["made/remark"]

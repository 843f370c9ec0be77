"""Studies of data without variance and of hardly any data: numbers are finite, or a sentence says why there is none."""

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

TRAIN, TEST = (12, 4, 4, 1), (5, 4, 4, 1)
ONE = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 1), np.uint8)
CASES = {  # name -> training and test examples; the same shapes, so that programs are compiled once
  "constant": (np.full(TRAIN, 128, np.uint8), np.full(TEST, 128, np.uint8)),
  "zero": (np.zeros(TRAIN, np.uint8), np.zeros(TEST, np.uint8)),
  "white": (np.full(TRAIN, 255, np.uint8), np.full(TEST, 255, np.uint8)),
  "repeated": (np.repeat(ONE, 12, 0), np.repeat(ONE, 5, 0)),
  "two and one": (np.concatenate([ONE, 255 - ONE]), ONE // 2),
}
ANALYSES = ("reconstruction", "robustness", "latent", "generation", "probe", "sparsity")


def texts(part):
  """All strings in nested lists and dicts."""
  if isinstance(part, dict | list | tuple):
    return [text for each in (part.values() if isinstance(part, dict) else part) for text in texts(each)]
  return [part] if isinstance(part, str) else []


def arrays(figure):
  """The arrays of an figure."""
  for value in vars(figure).values():
    yield from (value.values() if isinstance(value, dict) else [value] if isinstance(value, np.ndarray) else [])


@pytest.mark.parametrize("case", CASES)
def test_a_page_of_degenerate_data_has_no_nan(case, tmp_path):
  train, test = CASES[case]
  context = made_contexts.context_of(train, test)
  found = results.of(6, evaluators.analyses([evaluators.EVALUATORS[name] for name in ANALYSES], context))
  assert all(map(math.isfinite, found.values.values()))
  for name, figure in found.figures.items():
    assert all(np.isfinite(array).all() for array in arrays(figure) if array.dtype.kind == "f"), name
  metrics = dict(reconstruction.baselines(context.dataset, models.CodeSpec((4,))))
  values = {"squared_error": context.squared_errors, "nats": context.squared_errors}
  records = [{"step": 6, "epoch": 1.0} | metrics | dict(reconstruction.metrics(values, context.dataset))]
  folder = made_runs.make(tmp_path / "run", epochs=1)
  told = run_report.RunReport(run_report.read(folder).description, logs.curves(records), found)
  said = " ".join([told.answer, *texts(told.tiles()), *texts(told._groups()), *told.facts()])
  assert not re.search(r"\b(nan|inf|None)\b|∞", said, re.IGNORECASE)
  assert ("equals the mean training example" in told.answer) == (case != "two and one")


def test_a_number_that_is_not_finite_becomes_a_remark():
  analyze = lambda context: [("a_b/c", math.nan), ("d", math.inf), ("e", 5), ("f", 1.5), ("g", "said")]
  made = evaluators.Evaluator("made", analyses=(evaluators.Analysis(analyze),))
  train, test = CASES["two and one"]
  found = dict(evaluators.analyses([made], made_contexts.context_of(train, test)))
  assert found["made/a_b/c"].startswith("there is no finite number for a b/c: ")
  assert found["made/d"].startswith("there is no finite number for d: ")
  assert (found["made/e"], found["made/f"], found["made/g"]) == (5, 1.5, "said")


def test_codes_that_are_not_finite_in_one_half_alone_are_not_studied():
  analyze = lambda context: pytest.fail("it was analyzed")
  made = evaluators.Evaluator("made", analyses=(evaluators.Analysis(analyze),))
  for half in ("test_codes", "train_codes"):
    context = made_contexts.context_of(*CASES["two and one"])
    assert isinstance(context, contexts.EvalContext)
    vars(context)[half] = np.full((2, 4), np.inf, np.float32)
    assert "diverged" in dict(evaluators.analyses([made], context))["made/remark"]

"""Studies of data without variance and of hardly any data: numbers are finite, or a sentence says why there is none."""

import math
import re

import made_runs
import made_subjects
import numpy as np
import pytest

from ae_jax import evaluators, logs, models
from ae_jax.evaluators import findings, reconstruction
from ae_jax.evaluators import subject as subjects
from ae_jax.report import story

TRAIN, TEST = (12, 4, 4, 1), (5, 4, 4, 1)
ONE = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 1), np.uint8)
CASES = {  # name -> training and test examples; the same shapes, so that programs are compiled once
  "constant": (np.full(TRAIN, 128, np.uint8), np.full(TEST, 128, np.uint8)),
  "zero": (np.zeros(TRAIN, np.uint8), np.zeros(TEST, np.uint8)),
  "white": (np.full(TRAIN, 255, np.uint8), np.full(TEST, 255, np.uint8)),
  "repeated": (np.repeat(ONE, 12, 0), np.repeat(ONE, 5, 0)),
  "two and one": (np.concatenate([ONE, 255 - ONE]), ONE // 2),
}
STUDIES = ("reconstruction", "robustness", "latent", "generation", "probe", "sparsity")


def texts(part):
  """All strings in nested lists and dicts."""
  if isinstance(part, dict | list | tuple):
    return [text for each in (part.values() if isinstance(part, dict) else part) for text in texts(each)]
  return [part] if isinstance(part, str) else []


def arrays(exhibit):
  """The arrays of an exhibit."""
  for value in vars(exhibit).values():
    yield from (value.values() if isinstance(value, dict) else [value] if isinstance(value, np.ndarray) else [])


@pytest.mark.parametrize("case", CASES)
def test_a_page_of_degenerate_data_has_no_nan(case, tmp_path):
  train, test = CASES[case]
  subject = made_subjects.subject_of(train, test)
  found = findings.of(6, evaluators.studies([evaluators.EVALUATORS[name] for name in STUDIES], subject))
  assert all(map(math.isfinite, found.values.values()))
  for name, exhibit in found.exhibits.items():
    assert all(np.isfinite(array).all() for array in arrays(exhibit) if array.dtype.kind == "f"), name
  metrics = dict(reconstruction.rulers(subject.dataset, models.CodeSpec((4,))))
  values = {"squared_error": subject.squared_errors, "nats": subject.squared_errors}
  records = [{"step": 6, "epoch": 1.0} | metrics | dict(reconstruction.metrics(values, subject.dataset))]
  folder = made_runs.make(tmp_path / "run", epochs=1)
  told = story.Story(story.read(folder).description, logs.curves(records), found)
  said = " ".join([told.answer, *texts(told.tiles()), *texts(told._groups()), *told.facts()])
  assert not re.search(r"\b(nan|inf|None)\b|∞", said, re.IGNORECASE)
  assert ("equals the mean training example" in told.answer) == (case != "two and one")


def test_a_number_that_is_not_finite_becomes_a_remark():
  study = lambda subject: [("a_b/c", math.nan), ("d", math.inf), ("e", 5), ("f", 1.5), ("g", "said")]
  made = evaluators.Evaluator("made", studies=(evaluators.Study(study),))
  train, test = CASES["two and one"]
  found = dict(evaluators.studies([made], made_subjects.subject_of(train, test)))
  assert found["made/a_b/c"].startswith("there is no finite number for a b/c: ")
  assert found["made/d"].startswith("there is no finite number for d: ")
  assert (found["made/e"], found["made/f"], found["made/g"]) == (5, 1.5, "said")


def test_codes_that_are_not_finite_in_one_half_alone_are_not_studied():
  study = lambda subject: pytest.fail("it was studied")
  made = evaluators.Evaluator("made", studies=(evaluators.Study(study),))
  for half in ("test_codes", "train_codes"):
    subject = made_subjects.subject_of(*CASES["two and one"])
    assert isinstance(subject, subjects.Subject)
    vars(subject)[half] = np.full((2, 4), np.inf, np.float32)
    assert "diverged" in dict(evaluators.studies([made], subject))["made/remark"]

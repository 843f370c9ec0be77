"""What the analyses found, kept in the folder of a run."""

import json
import math

import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import figures, results

BARS = figures.Bars("bars", ("a", "b"), np.array([1.0, 2.0]), "x", "y")
FOUND = [("probe/accuracy", 0.5), ("probe/bars", BARS), ("latent/dead", 3), ("latent/remark", "no more than one")]


def test_they_are_told_apart_and_come_back_as_they_were(tmp_path):
  found = results.of(7, [*FOUND, ("latent/nan", math.nan)])
  results.write(tmp_path, found)
  back = results.read(tmp_path)
  assert back.step == 7
  assert back.values["probe/accuracy"] == 0.5
  assert back.values["latent/dead"] == 3
  assert math.isnan(back.values["latent/nan"])
  assert back.remarks == {"latent/remark": "no more than one"}
  np.testing.assert_array_equal(back.figures["probe/bars"].values, BARS.values)
  assert back.figures["probe/bars"].names == ("a", "b")
  assert json.loads((tmp_path / "evaluation" / "values.json").read_text())["values"]["latent/nan"] is None


def test_an_evaluator_that_is_asked_again_replaces_its_own_and_leaves_the_others():
  old = results.of(7, FOUND)
  new = results.of(7, [("probe/other", 0.7)])
  whole = results.merged(old, new)
  assert whole.values == {"latent/dead": 3, "probe/other": 0.7}
  assert whole.figures == {}
  assert whole.remarks == old.remarks
  assert results.merged(None, new) is new


def test_what_was_found_of_other_parameters_is_forgotten(tmp_path):
  results.write(tmp_path, results.of(7, FOUND))
  new = results.of(8, [("latent/dead", 1)])
  assert results.merged(results.read(tmp_path), new) is new
  results.write(tmp_path, new)
  assert not list(tmp_path.glob("evaluation/*.npz"))


def test_nothing_is_found_where_nothing_was_looked_for(tmp_path):
  assert results.read(tmp_path) is None


WRONG = ["", "[]", '{"step": 1}', '{"step": "x", "values": {}, "remarks": {}, "figures": []}']


@pytest.mark.parametrize("text", WRONG)
def test_damaged_ones_are_said(tmp_path, text):
  (tmp_path / "evaluation").mkdir()
  (tmp_path / "evaluation" / "values.json").write_text(text)
  with pytest.raises(errors.UserError, match=r"values\.json: cannot be read"):
    results.read(tmp_path)


@pytest.mark.parametrize("value", [None, np.ones(3), np.float32(1.0), {"a": 1}, results])
def test_what_is_no_number_sentence_or_exhibit_is_refused_by_its_name(value):
  with pytest.raises(TypeError, match=r"probe/made: .* must be an int, a float, a sentence or an figure"):
    results.of(7, [*FOUND, ("probe/made", value)])


def test_of_two_exhibits_with_one_file_neither_is_lost(tmp_path):
  found = results.of(7, [*FOUND, ("latent/bars", BARS)])
  with pytest.raises(ValueError, match=r"the figures probe/bars and latent/bars have the same file, bars\.npz; rename"):
    results.write(tmp_path, found)

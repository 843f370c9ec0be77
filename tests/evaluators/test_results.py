"""Results of the analyses, and their files in the run folder."""

import json
import math

import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import figures, results

BARS = figures.Bars("bars", ("a", "b"), np.array([1.0, 2.0]), "x", "y")
PAIRS = [("probe/accuracy", 0.5), ("probe/bars", BARS), ("latent/dead", 3), ("latent/remark", "no more than one")]


def test_results_are_sorted_by_kind_and_survive_a_round_trip(tmp_path):
  written = results.collect(7, [*PAIRS, ("latent/nan", math.nan)])
  results.write(tmp_path, written)
  read = results.read(tmp_path)
  assert read.step == 7
  assert read.values["probe/accuracy"] == 0.5
  assert read.values["latent/dead"] == 3
  assert math.isnan(read.values["latent/nan"])
  assert read.remarks == {"latent/remark": "no more than one"}
  np.testing.assert_array_equal(read.figures["probe/bars"].values, BARS.values)
  assert read.figures["probe/bars"].names == ("a", "b")
  assert json.loads((tmp_path / "evaluation" / "values.json").read_text())["values"]["latent/nan"] is None


def test_merging_replaces_only_the_results_of_the_new_evaluators():
  old = results.collect(7, PAIRS)
  new = results.collect(7, [("probe/other", 0.7)])
  merged = results.merge(old, new)
  assert merged.values == {"latent/dead": 3, "probe/other": 0.7}
  assert merged.figures == {}
  assert merged.remarks == old.remarks
  assert results.merge(None, new) is new


def test_results_of_another_step_are_discarded(tmp_path):
  results.write(tmp_path, results.collect(7, PAIRS))
  new = results.collect(8, [("latent/dead", 1)])
  assert results.merge(results.read(tmp_path), new) is new
  results.write(tmp_path, new)
  assert not list(tmp_path.glob("evaluation/*.npz"))


def test_a_folder_without_results_gives_none(tmp_path):
  assert results.read(tmp_path) is None


WRONG = ["", "[]", '{"step": 1}', '{"step": "x", "values": {}, "remarks": {}, "figures": []}']


@pytest.mark.parametrize("text", WRONG)
def test_a_damaged_file_raises_a_user_error(tmp_path, text):
  (tmp_path / "evaluation").mkdir()
  (tmp_path / "evaluation" / "values.json").write_text(text)
  with pytest.raises(errors.UserError, match=r"values\.json: cannot be read"):
    results.read(tmp_path)


@pytest.mark.parametrize("value", [None, np.ones(3), np.float32(1.0), {"a": 1}, results])
def test_a_value_of_another_type_is_refused_by_name(value):
  with pytest.raises(TypeError, match=r"probe/made: .* must be an int, float, str or figure"):
    results.collect(7, [*PAIRS, ("probe/made", value)])


def test_two_figures_with_the_same_file_are_refused(tmp_path):
  written = results.collect(7, [*PAIRS, ("latent/bars", BARS)])
  with pytest.raises(ValueError, match=r"the figures probe/bars and latent/bars have the same file, bars\.npz; rename"):
    results.write(tmp_path, written)

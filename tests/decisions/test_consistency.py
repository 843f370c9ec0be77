"""A threshold is used only with scores that mean the same as when it was set; nothing that is given is ignored."""

import dataclasses
import json

import numpy as np
import pytest
from made_exports import made

from ae_jax import data, errors
from ae_jax.data import lazy_arrays
from ae_jax.data.conversion import Converted
from ae_jax.decisions import run_data, scores, store
from ae_jax.run_methods import measures

pytestmark = pytest.mark.quick_compile
RANDOM = np.random.default_rng(0)
X = RANDOM.random((30, 6, 5, 1), np.float32)
OTHERS = RANDOM.random((30, 6, 5, 1), np.float32)


@pytest.fixture
def run(tmp_path):
  """An untrained run with an empty folder."""
  return dataclasses.replace(made(), workdir=tmp_path)


def again(run):
  """Returns the run as it is after it is loaded again."""
  return dataclasses.replace(run)


@pytest.mark.parametrize("kind", ["normalised", "knn"])
def test_a_threshold_for_another_reference_is_refused(run, kind):
  run.set_reference(X)
  run.set_threshold(X, contamination=0.1, kind=kind)
  assert again(run).flag(X).sum() == 3
  with pytest.warns(UserWarning, match="before the reference statistics of the .* scores changed; set it again"):
    run.set_reference(0.1 * X)
  for each in (run, again(run)):
    with pytest.raises(errors.UserError, match=r"threshold\.json: the threshold was set before .*set it again"):
      each.flag(X)
  run.set_threshold(X, contamination=0.1, kind=kind)
  assert again(run).flag(X).sum() == 3


def test_a_threshold_of_an_unstored_run_ends_with_its_reference():
  run = made()
  run.set_reference(X)
  run.set_threshold(X, contamination=0.1, kind="knn")
  run.set_reference(X)
  assert run.flag(X).sum() == 3
  with pytest.warns(UserWarning, match="before the reference statistics"):
    run.set_reference(OTHERS)
  with pytest.raises(errors.UserError, match="has no threshold"):
    run.flag(X)


def test_a_threshold_of_errors_needs_no_reference(run):
  run.set_threshold(X, contamination=0.1)
  fields = json.loads((run.workdir / "threshold.json").read_text())
  older = {name: value for name, value in fields.items() if name not in ("reference", "targets")}
  (run.workdir / "threshold.json").write_text(json.dumps(older))
  run.set_reference(0.1 * X)
  assert again(run).flag(X).sum() == run.flag(X).sum() == 3
  (run.workdir / "threshold.json").write_text(json.dumps(older | {"kind": "knn"}))
  with pytest.raises(errors.UserError, match="before the reference statistics"):
    again(run).flag(X)
  (run.workdir / "threshold.json").write_text(json.dumps(older | {"kind": "cnn"}))
  with pytest.raises(errors.UserError, match="'cnn' is not a kind of score"):
    again(run).flag(X)


def test_flags_have_targets_if_the_threshold_had(run):
  run.set_threshold(X, target=OTHERS, contamination=0.1)
  assert run.flag(X, target=OTHERS).sum() == 3
  with pytest.raises(errors.UserError, match="target= is missing"):
    again(run).flag(X)
  run.set_threshold(X, contamination=0.1)
  with pytest.raises(errors.UserError, match="set for errors without targets"):
    run.flag(X, target=OTHERS)
  value = run.set_threshold(value=2.0).value
  np.testing.assert_array_equal(run.flag(X, target=OTHERS), run.score(X, target=OTHERS) > value)


def test_a_mask_serves_for_a_threshold(run):
  mask = RANDOM.random(X.shape) < 0.5
  found = run.set_threshold(X, mask=mask, contamination=0.1)
  assert run.flag(X, mask).sum() == 3
  assert found.value < run.set_threshold(X, contamination=0.1).value


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda run: run.set_threshold(value=2.5, label=3, contaminaton=0.1), "label and contaminaton would be ignored"),
    (lambda run: run.set_threshold(value=2.5, mask=X > 0), "mask would be ignored"),
    (lambda run: run.set_threshold(value=2.5, kind="negative_elbo"), "not variational"),
    (lambda run: run.set_threshold(value=2.5, kind="knn"), r"call run\.set_reference\(x_train\)"),
    (lambda run: run.set_threshold(contamination=0.1, target=X), "without x: target would be ignored"),
    (
      lambda run: run.set_threshold(X, contamination=0.1, target=X, kind="mahalanobis"),
      "'mahalanobis' reads no targets",
    ),
    (lambda run: run.score(X, target=X, kind="knn"), "'knn' reads no targets"),
    (
      lambda run: run.set_reference(mask=X > 0, target=X, label=3),
      "x: mask and target and label would be ignored",
    ),
  ],
)
def test_arguments_that_nothing_reads_are_refused(run, call, message):
  with pytest.raises(errors.UserError, match=message):
    call(run)
  assert "threshold" not in vars(run)
  assert not [*run.workdir.iterdir()]


def test_a_threshold_that_cannot_be_stored_is_not_set(run, monkeypatch):
  def fail(*arguments):
    raise errors.UserError("the disk is full")

  run.set_reference(X)
  before = run.set_threshold(X, contamination=0.1, kind="knn")
  monkeypatch.setattr(store, "write_reference", fail)
  with pytest.raises(errors.UserError, match="disk"):
    run.set_threshold(X, contamination=0.5, kind="knn")
  with pytest.raises(errors.UserError, match="disk"):
    run.set_reference(OTHERS)
  assert run.threshold is before
  assert again(run).threshold == before
  assert before.reference == store.digest(run.reference)


def test_missing_values_of_a_target_do_not_count(run):
  x, target = X.copy(), OTHERS.copy()
  x[0, 0, 0], target[0, 0, 1] = np.nan, np.nan
  vars(run)["conversion"] = lambda x, mask=None: Converted(np.nan_to_num(x), x, ~np.isnan(x))
  inputs = measures.inputs_of(run, x, None, target, {})
  assert np.argwhere(~inputs.mask).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
  assert run.evaluate(x, target=target)["mse"] == pytest.approx(run.score(x, target=target).sum() / (X.size - 2))


def test_parts_measure_like_the_whole(run, monkeypatch):
  whole = scores.Inputs(X, OTHERS, RANDOM.random(X.shape) < 0.5, {})
  monkeypatch.setattr(
    run_data, "inputs_of", lambda run, dataset, split, rows: scores.Inputs(*(a[rows] for a in whole[:3]), {})
  )
  monkeypatch.setattr(lazy_arrays, "PART_BYTES", 8 * X[0].nbytes)
  dataset = data.Dataset("made", "unit", X, X, None, None, validation=X)
  found, expected = (scores.make_reference(run, p) for p in (run_data.chosen_parts(run, dataset, "train"), [whole]))
  for part, array in zip(found, expected, strict=True):
    np.testing.assert_allclose(part, array, rtol=1e-5)
  anomalous = RANDOM.random(30) < 0.3
  parts = [part.x for part in run_data.chosen_parts(run, dataset, "validation", anomalous)]
  np.testing.assert_array_equal(np.concatenate(parts), X[~anomalous])


def test_codes_that_are_not_finite_have_no_distance():
  codes = np.array([[0.0, 1.0], [np.nan, 1.0], [3.0, np.inf]])
  assert np.isfinite(scores.neighbour_distances(codes, codes[[0, 0]])).tolist() == [True, False, False]

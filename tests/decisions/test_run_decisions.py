"""Scores, thresholds, flags and explanations of a trained run."""

import dataclasses
import json
import pickle
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_score

import ae_jax
from ae_jax import errors
from ae_jax.decisions import run_data, scores, store, thresholds

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]
RANDOM = np.random.default_rng(0)
PLANE = RANDOM.normal(size=(200, 2)) @ RANDOM.normal(size=(2, 24)) + 0.05 * RANDOM.normal(size=(200, 24))
IMAGES = np.float32((PLANE - PLANE.min()) / (PLANE.max() - PLANE.min())).reshape(200, 4, 6, 1)
NOISE = RANDOM.random((40, 4, 6, 1), np.float32)  # far from the plane
LABELS = np.repeat([0, 1], [160, 40])
FRAME = pd.DataFrame(
  {
    "height": 170 + 9 * PLANE[:, 0],
    "age": 40 + 8 * PLANE[:, 0] + PLANE[:, 1],
    "colour": np.where(PLANE[:, 1] > 0, "red", "blue"),
    "member": PLANE[:, 0] > 0,
  }
)
FRAME.loc[::7, "age"] = np.nan
SMALL = {"model": "dense", "latent": 2, "epochs": 2, "evaluators": (), "verbose": False, "model__widths": 16}
KINDS = ("reconstruction", "normalised", "mahalanobis", "knn")


def fit(x, labels=None, **options):
  with jax.numpy_rank_promotion("allow"):
    return ae_jax.fit(x, labels, **SMALL | options)


@pytest.fixture(scope="module")
def run():
  found = fit(IMAGES)
  found.set_reference(IMAGES)
  return found


@pytest.fixture(scope="module")
def table():
  found = fit(FRAME, data__missing="mean")
  found.set_reference(FRAME)
  return found


@pytest.fixture(scope="module")
def variational():
  return fit(IMAGES, model="vae")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
  """A run folder whose data are a file with a labelled validation set; nobody has set a threshold."""
  folder = tmp_path_factory.mktemp("stored")
  x, y = np.concatenate([IMAGES[100:], NOISE]), np.repeat([3, 7], [100, 40])
  arrays = {"x_train": IMAGES[:100], "y_train": np.full(100, 3), "x_val": x, "y_val": y, "x_test": x, "y_test": y}
  np.savez(folder / "data.npz", **arrays)
  fit(str(folder / "data.npz"), workdir=folder / "run", data__one_class=3, model__linear_path="pca")
  return folder / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_of_an_example_does_not_depend_on_the_others(run, kind):
  together = run.score(IMAGES, kind=kind)
  assert together.dtype == np.float32
  np.testing.assert_allclose(run.score(IMAGES[7], kind=kind), together[7:8], rtol=2e-3, atol=1e-4)
  np.testing.assert_allclose(run.score(IMAGES[::-1], kind=kind), together[::-1], rtol=2e-3, atol=1e-4)
  assert run.score(IMAGES[:0], kind=kind).shape == (0,)


def test_normalised_errors_have_mean_one_on_the_reference(run):
  found = run.score(IMAGES, kind="normalised")
  assert found.mean() == pytest.approx(IMAGES[0].size, rel=0.01)
  squares = run.error_map(IMAGES)
  scale = squares.mean(0)
  expected = (squares[:3] / (scale + 1e-3 * scale.mean())).sum((1, 2, 3))
  np.testing.assert_allclose(found[:3], expected, rtol=1e-3)


def test_the_knn_distance_is_that_to_the_fifth_nearest_code(run):
  _, distances = run.nearest(NOISE, IMAGES, count=5)
  np.testing.assert_allclose(run.score(NOISE, kind="knn"), distances[:, -1], rtol=1e-3, atol=1e-4)


def test_the_negative_elbo_agrees_with_the_objective(variational):
  found = variational.score(IMAGES, kind="negative_elbo")
  np.testing.assert_allclose(variational.score(IMAGES[:3], kind="negative_elbo"), found[:3], rtol=1e-4)
  mean, variance = variational.posterior(IMAGES)
  kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
  nats = []
  for seed in range(64):
    z = mean + np.sqrt(variance) * np.random.default_rng(seed).normal(size=mean.shape)
    x_hat = np.clip(variational.decode(z.astype(np.float32)), 1e-7, 1 - 1e-7).astype(np.float64)
    nats.append(-(IMAGES * np.log(x_hat) + (1 - IMAGES) * np.log1p(-x_hat)).sum((1, 2, 3)))
  expected = np.mean(nats, 0) + kl
  assert found.mean() == pytest.approx(expected.mean(), rel=0.02)
  assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_kinds_that_a_run_does_not_have_are_refused(run, variational):
  with pytest.raises(errors.UserError, match="did you mean 'mahalanobis'"):
    run.score(IMAGES, kind="mahalonobis")
  with pytest.raises(errors.UserError, match="not variational"):
    run.score(IMAGES, kind="negative_elbo")
  with pytest.raises(errors.UserError, match="does not support a mask"):
    variational.score(IMAGES, np.ones(IMAGES.shape), kind="negative_elbo")
  with pytest.raises(errors.UserError, match=r"run\.set_reference\(x_train\)"):
    variational.score(IMAGES, kind="knn")
  with pytest.raises(errors.UserError, match="training examples and need at least 2"):
    variational.set_reference(IMAGES[:1])


def test_elements_that_were_never_observed_have_the_mean_error_of_the_others(run):
  mask = np.ones(IMAGES.shape, bool)
  mask[:, 0, 0] = False
  inputs = scores.Inputs(IMAGES, IMAGES, mask, {})
  means = scores.make_reference(run, [inputs]).element_errors
  assert means[0, 0] == pytest.approx(means.reshape(-1)[1:].mean(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_examples_is_flagged(run, kind):
  found = run.set_threshold(IMAGES, contamination=0.1, kind=kind)
  assert found == run.threshold
  assert run.flag(IMAGES).sum() == 20
  np.testing.assert_array_equal(run.flag(NOISE), run.score(NOISE, kind=kind) > found.value)
  run.set_threshold(value=found.value, kind=kind)
  assert run.flag(IMAGES).sum() == 20


def test_labels_give_thresholds_of_a_precision_or_a_recall(run):
  x, labels = np.concatenate([IMAGES, NOISE]), np.repeat([0, 1], [200, 40])
  f1 = run.set_threshold(x, labels)
  assert (f1.rule, f1.half, f1.examples) == ("f1", "given", 240)
  run.set_threshold(x, labels, recall=0.8)
  assert run.flag(NOISE).mean() == pytest.approx(0.8)
  run.set_threshold(x, labels == 1, precision=0.75)
  assert precision_score(labels, run.flag(x)) >= 0.75
  run.set_threshold(x, labels, contamination=0.1)  # known anomalies do not count
  assert run.flag(IMAGES).sum() == 20


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"value": 1.0, "recall": 0.5}, "value and recall are given"),
    ({"x": IMAGES, "value": 1.0}, "needs no examples"),
    ({"value": float("nan")}, "must be a finite number"),
    ({"x": IMAGES}, "'f1' needs labels"),
    ({"x": IMAGES, "recall": 0.5}, "'recall' needs labels"),
    ({"labels": LABELS}, "pass x too"),
    ({"contamination": 0.1}, "pass them again"),
    ({"x": IMAGES, "contamination": 1.5}, r"must be a number in \[0, 1\)"),
    ({"x": IMAGES, "labels": LABELS[1:]}, "199.* for 200 examples"),
    ({"value": 1.0, "kind": "elbo"}, "is not a kind of score"),
  ],
)
def test_thresholds_without_sense_are_refused(run, options, message):
  before = run.threshold
  with pytest.raises(errors.UserError, match=message):
    run.set_threshold(**options)
  assert run.threshold is before


def test_a_threshold_and_a_reference_are_stored_with_the_run(stored):
  run = ae_jax.load(stored)
  with pytest.raises(errors.UserError, match=r"call run\.set_threshold"):
    run.flag(NOISE)
  found = run.set_threshold(contamination=0.05, kind="mahalanobis")
  assert (found.half, found.examples) == ("validation", 100)  # the normal ones
  contents = json.loads((stored / "threshold.json").read_text())
  assert (contents["value"], contents["rule"], contents["level"]) == (found.value, "contamination", 0.05)
  with np.load(stored / "reference.npz") as arrays:
    assert arrays["codes"].shape == (100, 2)
    assert arrays["element_errors"].shape == (4, 6, 1)
  (data,) = stored.parent.glob("*.npz")
  shutil.move(data, data.with_suffix(".moved"))  # the reference does not need the data again
  try:
    again = ae_jax.load(stored)
    assert again.threshold == found
    np.testing.assert_array_equal(again.flag(NOISE), run.flag(NOISE))
  finally:
    shutil.move(data.with_suffix(".moved"), data)
  copy = pickle.loads(pickle.dumps(run))
  np.testing.assert_array_equal(copy.flag(NOISE), run.flag(NOISE))


def test_a_threshold_from_training_examples_warns(stored, monkeypatch):
  run = ae_jax.load(stored)
  dataset = dataclasses.replace(run_data.load(run), validation=None)
  monkeypatch.setattr(run_data, "load", lambda run: dataset)
  with pytest.warns(UserWarning, match=r"uses the training examples; .*config\.data\.validation=0\.2"):
    found = run.set_threshold(contamination=0.05)
  assert (found.half, found.examples) == ("train", 100)
  assert "too many may be flagged" in found.in_words()
  assert run.flag(IMAGES[:100]).sum() == 5


def test_labels_of_the_validation_set_serve_for_thresholds(stored):
  run = ae_jax.load(stored)
  found = run.set_threshold(recall=0.9)
  assert (found.half, found.examples) == ("validation", 140)
  assert run.flag(NOISE).mean() == pytest.approx(0.9)


def test_a_threshold_for_other_weights_is_refused(stored, tmp_path):
  run = ae_jax.load(stored)
  other = thresholds.Threshold(1.0, "reconstruction", "value", None, "", 0, 3, "other")
  store.write_threshold(tmp_path, other)
  assert store.read_threshold(tmp_path, "other") == other
  with pytest.raises(errors.UserError, match="belongs to the weights of step 3"):
    store.read_threshold(tmp_path, run.weights_digest)
  (tmp_path / "threshold.json").write_text("[]")
  with pytest.raises(errors.UserError, match="is not a threshold"):
    store.read_threshold(tmp_path, "other")
  (tmp_path / "threshold.json").write_text("{")
  with pytest.raises(errors.UserError, match="cannot be read"):
    store.read_threshold(tmp_path, "other")
  changed = run.variables._replace(params=jax.tree.map(lambda leaf: leaf + 1e-3, run.params))
  assert store.digest(changed) != run.weights_digest


@pytest.mark.parametrize("kind", ["reconstruction", "normalised"])
def test_shares_sum_to_one_and_name_the_cause(run, kind):
  damaged = IMAGES[:5].copy()
  damaged[:, 2, 3] = 1 - np.round(damaged[:, 2, 3])
  shares = run.explain(damaged, kind=kind)
  np.testing.assert_allclose(shares.sum((1, 2, 3)), 1, rtol=1e-5)
  assert (shares.reshape(5, -1).argmax(1) == 2 * 6 + 3).all()
  with pytest.raises(errors.UserError, match="is not a sum over elements"):
    run.explain(IMAGES, kind="knn")
  with pytest.raises(errors.UserError, match="only for runs on tables"):
    run.explain(IMAGES, count=2)


def test_the_columns_of_a_table_are_explained_in_their_units(table):
  rows = FRAME.iloc[10:13].copy()
  rows.loc[11, "height"] = 400.0
  found = table.explain(rows, kind="normalised")
  assert list(found.columns) == ["row", "column", "value", "reconstruction", "share"]
  np.testing.assert_allclose(found.groupby("row")["share"].sum(), 1, rtol=1e-6)
  first = table.explain(rows.loc[[11]], count=1)
  assert first[["row", "column", "value"]].to_numpy().tolist() == [[11, "height", 400.0]]
  by_column = found[found["column"] == "colour"].set_index("row")
  assert by_column["value"].tolist() == rows["colour"].tolist()
  assert by_column["reconstruction"].tolist() == table.reconstruct(rows)["colour"].tolist()
  with pytest.raises(errors.UserError, match="count=0: must be an integer of at least 1"):
    table.explain(rows, count=0)


def test_missing_values_are_explained_by_their_column(table):
  found = table.explain(FRAME.iloc[:1])
  assert len(found) == 4
  assert found["share"].sum() == pytest.approx(1)
  assert found.set_index("column").loc["age", "value"] is None

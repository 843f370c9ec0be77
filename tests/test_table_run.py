"""One run on a table of every kind of column, from the file to new rows."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import config_of, unstudied

import ae_jax
import ae_jax.data
from ae_jax.evaluators import results
from ae_jax.training import train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


def test_a_run_on_a_table_takes_and_returns_data_frames(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  random, count = np.random.default_rng(0), 80
  city = random.choice(["Rome", "Bonn", "Oslo"], count)
  frame = pd.DataFrame({"city": city, "height": random.normal(170, 10, count), "member": random.random(count) < 0.5})
  frame.loc[random.random(count) < 0.1, "height"] = np.nan
  frame.to_csv(tmp_path / "x.csv", index=False)
  config = unstudied(config_of("table", "csv"))
  config.data.path, config.data.missing = str(tmp_path / "x.csv"), "mean"
  config.objective.likelihood, config.epochs, config.model.latent = "mixed", 2, 2
  train.train_and_evaluate(config, tmp_path / "run")
  run = ae_jax.load(tmp_path / "run")
  stored = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
  assert stored["groups"] == [["category", 0, 4], ["boolean", 5, 6], ["boolean", 6, 7]]
  shuffled = frame[["member", "height", "city"]][::-1]
  z = run.encode(frame)
  np.testing.assert_allclose(run.encode(shuffled)[::-1], z, atol=1e-6)
  np.testing.assert_allclose(run.encode(frame.to_dict("list")), z, atol=1e-6)
  reconstruction = run.reconstruct(shuffled)
  assert list(reconstruction.columns) == list(frame.columns)
  assert set(reconstruction["city"]) <= {"Rome", "Bonn", "Oslo", "(other)"}
  pd.testing.assert_index_equal(reconstruction.index, shuffled.index)
  pd.testing.assert_frame_equal(run.to_frame(run.decode(z)), run.reconstruct(frame), atol=1e-3)
  known = frame["height"].notna()
  expected = {
    "city": (reconstruction["city"] != shuffled["city"]).mean(),
    "height": np.sqrt(np.square(run.reconstruct(frame)["height"] - frame["height"])[known].mean()),
    "member": (reconstruction["member"] != shuffled["member"]).mean(),
  }
  found = run.column_errors(frame)
  assert found.keys() == expected.keys()
  assert all(np.isclose(found[name], expected[name], rtol=1e-4) for name in expected)
  assert run.score(frame).shape == (count,)
  values = results.read(tmp_path / "run").values
  assert {"reconstruction/column_rmse/height", "reconstruction/column_accuracy/city"} <= values.keys()


@pytest.mark.parametrize("missing", ["mean", "mask"])
def test_gaps_of_new_rows_are_treated_as_in_training(tmp_path, monkeypatch, missing):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  random, count = np.random.default_rng(0), 60
  frame = pd.DataFrame(random.normal([170, 5, -3], [10, 2, 1], (count, 3)).round(3), columns=["a", "b", "c"])
  gaps = random.random(frame.shape) < 0.1
  pd.DataFrame(np.where(gaps, np.nan, frame), columns=frame.columns).to_csv(tmp_path / "x.csv", index=False)
  rows = pd.read_csv(tmp_path / "x.csv")
  config = unstudied(config_of("table", "csv"))
  config.data.path, config.data.missing = str(tmp_path / "x.csv"), missing
  config.epochs, config.model.latent = 2, 2
  train.train_and_evaluate(config, tmp_path / "run")
  run = ae_jax.load(tmp_path / "run")
  filled = run.impute(rows)
  assert filled.notna().all(axis=None)
  np.testing.assert_array_equal(filled.to_numpy()[~gaps], rows.to_numpy()[~gaps])
  empty = rows[:8].copy()
  empty.loc[[2, 5]] = np.nan
  for x in (empty, empty.to_numpy(), empty.to_dict("list")):
    with pytest.warns(UserWarning, match=r"score: 2 rows of 8 have no value in any column \(2, 5, counted from 0\): "):
      scores = run.score(x)
    assert (scores[[2, 5]] == 0).all() == (missing == "mask")
  with pytest.warns(UserWarning, match="evaluate: 2 rows of 8 have no value"):
    run.evaluate(empty)
  reconstruction = run.reconstruct(rows)
  np.testing.assert_allclose(filled.to_numpy()[gaps], reconstruction.to_numpy()[gaps], rtol=1e-5)
  mean = pd.Series([column.fill for column in run.schema.columns], frame.columns)
  if missing == "mask":  # a gap is 0 after scaling, which is the mean
    np.testing.assert_allclose(run.encode(rows), run.encode(rows.fillna(mean)), atol=1e-4)
    squares = np.square((reconstruction - rows) / run.conversion.standardisation.deviation)
    np.testing.assert_allclose(run.score(rows), np.nansum(squares, axis=1), rtol=1e-3, atol=1e-4)
  options = {"range": "real", "scale": "standard", "missing": missing}
  dataset = ae_jax.data.load("csv", str(tmp_path / "x.csv"), **options)
  seen = {row.tobytes() for row in np.concatenate([dataset.train, dataset.test])}
  assert {row.tobytes() for row in run.conversion(rows).x} == seen
  if missing == "mask":
    assert (run.conversion(rows).x[gaps] == 0).all()

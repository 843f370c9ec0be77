"""One run on a table of every kind of column, from the file to new rows."""

import json

import numpy as np
import pandas as pd
from conftest import config_of, unstudied

import ae_jax
from ae_jax.evaluators import results
from ae_jax.training import train


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

"""A table of consecutive time steps is recognised and named; other tables are not, in whatever order their rows are."""

import numpy as np
import pandas as pd
import pytest

from ae_jax import data
from ae_jax.data import consecutive, detection, inspection

GENERATOR = np.random.default_rng(0)
STEPS = np.arange(2000)
RECORD = np.stack([np.sin(STEPS / 9), np.cos(STEPS / 13), np.sin(STEPS / 40)], 1)
RECORD += 0.1 * GENERATOR.normal(size=RECORD.shape)
LATENT = GENERATOR.normal(size=(2000, 1))
CORRELATED = LATENT + 0.3 * GENERATOR.normal(size=(2000, 4))  # the columns of a table with one strong factor
CLASSES = np.repeat(np.arange(4.0), 500)[:, None] * [3, -2, 4, 1] + GENERATOR.normal(size=(2000, 4))


@pytest.mark.parametrize(
  "rows",
  [
    RECORD,
    RECORD[:, :1],
    np.column_stack([STEPS, RECORD]),  # with a clock
    np.column_stack([RECORD, GENERATOR.normal(size=2000)]),  # with a channel of noise
    np.where(GENERATOR.random(RECORD.shape) < 0.1, np.nan, RECORD),
    RECORD + np.where(STEPS[:, None] % 500 < 15, 3 * GENERATOR.normal(size=RECORD.shape), 0),  # with anomalies
    np.sin(STEPS[:, None] * [2 * np.pi / 30, 2 * np.pi / 19]),  # with periods that are multiples of a lag
    np.cumsum(GENERATOR.normal(size=(2000, 2)), 0),
  ],
)
def test_recordings_are_recognised(rows):
  assert consecutive.look_consecutive(rows)


@pytest.mark.parametrize(
  "rows",
  [
    GENERATOR.permutation(RECORD),
    RECORD[:200],
    CORRELATED,
    CORRELATED[np.argsort(CORRELATED[:, 0])],  # sorted by a column with which the others are correlated
    CLASSES,  # sorted by class
    np.column_stack([STEPS, GENERATOR.normal(size=(2000, 3))]),  # numbered rows
    np.column_stack([STEPS, np.full(2000, np.nan)]),
    np.zeros((2000, 2)),
  ],
)
def test_tables_are_not_recordings(rows):
  assert not consecutive.look_consecutive(rows)


def noted(remarks):
  return [remark for remark in remarks if "consecutive time steps" in remark]


def test_runs_and_descriptions_name_windows_for_consecutive_rows(tmp_path):
  np.save(tmp_path / "a.npy", RECORD)
  frame = pd.DataFrame(RECORD, columns=["a", "b", "c"]).assign(
    time=pd.date_range("2026-01-01", periods=2000, freq="min")
  )
  frame.to_csv(tmp_path / "a.csv", index=False)
  for name in ("npy", "csv"):
    path = str(tmp_path / f"a.{name}")
    (remark,) = noted(data.load(name, path, "real").remarks)
    assert remark.endswith("config.data.window=50 cuts it into windows")
    found = detection.detect(path)
    result = inspection.inspect(found, path)
    assert noted(result.lines) == [remark.replace(f"config.data.name={name!r} ({path})", path)]
    assert result.recorded == inspection.RECORD_OPTIONS
  path = str(tmp_path / "a.npy")
  assert not noted(data.load("npy", path, "real", window=50).remarks)
  assert not noted(data.load("npy", path, "real", kind="table").remarks)
  np.save(tmp_path / "b.npy", GENERATOR.permutation(RECORD))
  assert not noted(data.load("npy", str(tmp_path / "b.npy"), "real").remarks)


def test_records_of_integers_are_recognised(tmp_path):
  np.save(tmp_path / "a.npy", (1000 * RECORD).astype(np.int16))
  assert noted(data.load("npy", str(tmp_path / "a.npy"), "real").remarks)

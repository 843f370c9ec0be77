"""Several files as one data set: lists and patterns of CSV and .npy files, in memory and streamed."""

import numpy as np
import pandas as pd
import pytest

from ae_jax import data, errors, fitting
from ae_jax.data import detection, several_files

RANDOM = np.random.default_rng(0)
TABLES = [
  pd.DataFrame({"size": RANDOM.normal(size=count), "city": RANDOM.choice(["Rome", "Oslo"], count)}) for count in (9, 6)
]
RECORDS = [RANDOM.normal(size=(steps, 2)) for steps in (40, 55)]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
  """Writes b.csv, a.csv with another order of the columns, b.npy and a.npy; the tests run in their folder."""
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.chdir(tmp_path)
  TABLES[0].to_csv("b.csv", index=False)
  TABLES[1][["city", "size"]].to_csv("a.csv", index=False)
  for name, record in zip("ba", RECORDS, strict=True):
    np.save(f"{name}.npy", record)


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_rows_of_tables_are_concatenated_in_the_order_of_the_list(placement):
  options = {"split": "time", "test": 0.2, "placement": placement, "missing": "mean"}
  found = data.load("csv", "b.csv,a.csv", "real", **options)
  pd.concat(TABLES).to_csv("joined.csv", index=False)
  joined = data.load("csv", "joined.csv", "real", **options)
  np.testing.assert_array_equal(found.train[:], joined.train[:])
  np.testing.assert_array_equal(found.test, joined.test)
  assert any("concatenated in this order: b.csv, a.csv" in remark for remark in found.remarks)


def test_patterns_lists_and_fit_find_the_same_files():
  assert several_files.of_path("[ab].csv") == ["a.csv", "b.csv"]
  assert several_files.of_path("a.csv, *.npy") == ["a.csv", "a.npy", "b.npy"]
  for path in ("b.csv,a.csv", "?.csv"):
    found = detection.detect(path)
    assert (found.name, len(found.arrays["train"])) == ("csv", 15)
  config, dataset = fitting.problem(["b.csv", "a.csv"], None, model="dense", validation=None, test=None, changes={})
  assert config.data.path == "b.csv,a.csv"
  assert len(dataset.train) + len(dataset.test) == 15


def test_arrays_are_concatenated_and_no_window_crosses_a_file():
  rows = data.load("npy", "b.npy,a.npy", "real", split="time")
  np.testing.assert_allclose(np.concatenate([rows.train[:], rows.test]), np.concatenate(RECORDS), rtol=1e-6)
  windows = data.load("npy", "b.npy,a.npy", "real", window=8)
  np.testing.assert_allclose(windows.test, np.stack([RECORDS[0][32:40], RECORDS[1][44:52]]), rtol=1e-6)
  assert windows.test_captions(np.arange(2)) == ("b, from step 32", "a, from step 44")


@pytest.mark.parametrize(
  ("name", "path", "message"),
  [
    ("csv", "a.csv,other.csv", r"other\.csv'?: has (a|no) column .*all files need the same columns"),
    ("csv", "a.csv,none.csv", r"none\.csv: file not found"),
    ("csv", "none*.csv", r"none\*\.csv: no file matches"),
    ("csv", "a.csv,a.csv", r"a\.csv is named twice"),
    ("npy", "a.npy,wide.npy", r"wide\.npy has .*but a\.npy has rows .*same shape and dtype"),
    ("npz", "a.npy,b.npy", r"config\.data\.name='npz' reads one file or folder; .*numpy\.concatenate"),
  ],
)
def test_files_that_do_not_fit_are_named(name, path, message):
  TABLES[0].rename(columns={"size": "height"}).to_csv("other.csv", index=False)
  np.save("wide.npy", np.zeros((9, 3)))
  with pytest.raises(errors.UserError, match=message):
    data.load(name, path, "real")


def test_an_existing_file_with_a_comma_or_a_bracket_is_one_file():
  TABLES[0].to_csv("x,[1].csv", index=False)
  assert several_files.of_path("x,[1].csv") == ["x,[1].csv"]
  assert several_files.as_path(["x,[1].csv"]) == "x,[1].csv"
  with pytest.raises(errors.UserError, match="cannot have a comma in its name"):
    several_files.as_path(["a.csv", "x,[1].csv"])

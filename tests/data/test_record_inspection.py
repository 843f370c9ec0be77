"""Folders of long recordings are described, with the command that cuts them into windows."""

import numpy as np
import pandas as pd
import pytest

from ae_jax import data, errors
from ae_jax.data import detection, inspection, record_inspection

GENERATOR = np.random.default_rng(0)


def record(steps):
  return np.cumsum(GENERATOR.normal(size=(steps, 2)), 0)


def folder(path, **arrays):
  path.mkdir(parents=True)
  for name, values in arrays.items():
    np.save(path / f"{name}.npy", values)
  return str(path)


def test_lengths_channels_labels_and_gaps_are_described(tmp_path):
  arrays = {"a": record(900), "b": record(700), "b_labels": (np.arange(700) > 680).astype(int), "a_labels": [0]}
  arrays["b"][3, 1] = np.nan
  found = record_inspection.inspect(folder(tmp_path / "x", **arrays))
  low, high = arrays["a"][:, 0].min(), arrays["a"][:, 0].max()
  low, high = min(low, arrays["b"][:, 0].min()), max(high, arrays["b"][:, 0].max())
  assert "training recordings: 2 files of 700 to 900 steps, 1,600 in all: a (900), b (700)" in found.lines
  assert any(f"channel 0: {low:,.6g} to {high:,.6g}; channel 1:" in line for line in found.lines)
  assert "labels of the steps: 2 classes: 0 (1,581 train), 1 (19 train)" in found.lines
  assert "missing values: b (1); fill them, because windows must be complete" in found.lines
  assert found.options["one_class"] == "0"


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_the_command_reads_the_recordings(tmp_path, splits):
  for split in splits:
    path = folder(tmp_path / "x" / split, a=record(900)[:, 0], b=record(700)[:, 0])
  path = str(tmp_path / "x")
  found = record_inspection.inspect(path)
  command = inspection.record_command("npy", path, found.options)
  assert f"--config.data.path={path} --config.data.window=50 " in command
  assert "one_class" not in command
  dataset = data.load("npy", path, **found.options)
  assert dataset.train.shape[1:] == found.shape == (50, 1)
  assert ("test recordings: 2 files" in "\n".join(found.lines)) == (len(splits) > 1)


@pytest.mark.parametrize(
  "arrays",
  [
    {"a": record(90), "b": record(70)},  # short: series
    {"x_train": record(900)},
    {"a": GENERATOR.normal(size=(900, 2)), "b": record(50)},  # rows in any order
    {"a": GENERATOR.normal(size=(900, 4, 4)), "b": record(900)},
  ],
)
def test_other_folders_of_arrays_are_not_recordings(tmp_path, arrays):
  assert record_inspection.inspect(folder(tmp_path / "x", **arrays)) is None


def test_folders_of_tables_without_a_training_file_are_explained(tmp_path):
  pd.DataFrame(record(90), columns=["a", "b"]).to_csv(tmp_path / "one.csv", index=False)
  with pytest.raises(errors.UserError, match=r"contains tables .*one\.csv.*the pattern '.*\*\.csv'.*numpy\.save"):
    detection.detect(str(tmp_path))
  assert record_inspection.inspect(str(tmp_path / "one.csv")) is None

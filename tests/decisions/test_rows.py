"""Files of rows: what they must not replace, and the kind and threshold of their scores."""

import dataclasses
import os
import types

import numpy as np
import pytest
from made_exports import made

from ae_jax import errors
from ae_jax.data import new_parts
from ae_jax.decisions import rows, store, thresholds


@pytest.mark.parametrize("name", ["new.csv", "sub/../new.csv", "link.csv", "hard.csv"])
def test_the_data_are_not_replaced(tmp_path, name):
  source = tmp_path / "new.csv"
  source.write_text("a\n1\n")
  (tmp_path / "sub").mkdir()
  (tmp_path / "link.csv").symlink_to(source)
  os.link(source, tmp_path / "hard.csv")
  with pytest.raises(errors.UserError, match="would replace --data"):
    rows.check(tmp_path / name, {"--data": source})
  rows.check(tmp_path / "other.csv", {"--data": source})


def test_files_in_a_folder_of_data_are_not_replaced(tmp_path):
  source, file = tmp_path / "data", tmp_path / "data" / "deep" / "test.parquet"
  file.parent.mkdir(parents=True)
  rows.check(file, {"config.data.path": source})
  file.write_bytes(b"rows")
  with pytest.raises(errors.UserError, match=r"exists in the folder of config\.data\.path"):
    rows.check(file, {"config.data.path": source})


def test_both_data_and_the_reference_are_kept(tmp_path):
  run = dataclasses.replace(made(), workdir=tmp_path)
  assert [*rows.kept_files(run, "")] == ["the reference statistics of the scores"]
  run.config.data.path = "~/train.csv"
  found = rows.kept_files(run, "new.csv")
  assert found["config.data.path"].is_absolute()
  assert found["the reference statistics of the scores"] == tmp_path / store.REFERENCE
  assert str(found["--data"]) == "new.csv"


@pytest.mark.parametrize("path", ["a.csv,b.csv", "*.csv", "gone.csv,b*.csv"])
def test_each_of_several_files_is_kept(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  for name in ("a.csv", "b.csv"):
    (tmp_path / name).write_text("x\n1\n")
  run = dataclasses.replace(made(), workdir=tmp_path)
  run.config.data.path = path
  with pytest.raises(errors.UserError, match=r"b\.csv: would replace file 2 of config\.data\.path \(b\.csv\)"):
    rows.check(tmp_path / "b.csv", rows.kept_files(run, ""))


def test_a_file_in_the_home_folder_with_a_comma_in_its_name_is_kept(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("USERPROFILE", str(tmp_path))  # the home folder on Windows
  (tmp_path / "a,b.csv").write_text("x\n1\n")
  run = dataclasses.replace(made(), workdir=tmp_path)
  run.config.data.path = "~/a,b.csv"
  assert rows.kept_files(run, "")["config.data.path"] == tmp_path / "a,b.csv"


@pytest.mark.parametrize("fault", ["", "other weights", "damaged"])
def test_a_threshold_that_cannot_be_used_costs_only_the_flags(tmp_path, fault):
  run = dataclasses.replace(made("vae"), workdir=tmp_path)
  weights = "other" if fault == "other weights" else run.weights_digest
  store.write_threshold(tmp_path, thresholds.Threshold(1.5, "negative_elbo", "value", None, "", 0, 7, weights))
  if fault == "damaged":
    (tmp_path / store.THRESHOLD).write_text("{}")
  kind, threshold, reason = rows.choose(run, "")
  assert kind == ("reconstruction" if fault == "damaged" else "negative_elbo")
  assert (threshold is None) == bool(fault)
  expected = {"": "", "other weights": "belongs to the weights of step 7", "damaged": "is not a threshold"}
  assert (expected[fault] in reason) if fault else not reason
  measured = rows.Rows({"score": np.ones(2), "flag": np.zeros(2, bool)}, np.zeros((2, 1), np.float32))
  printed = rows.summary(tmp_path, measured, rows.Choice(kind, threshold, reason))[-1]
  assert printed.startswith(
    f"no column flag: {reason}" if fault else "flagged: 0, with a negative_elbo score above 1.5"
  )


def test_a_threshold_of_another_kind_gives_no_flags(tmp_path):
  run = dataclasses.replace(made(), workdir=tmp_path)
  reason = "the run has no threshold of {} scores; run.set_threshold sets one"
  assert rows.choose(run, "") == ("reconstruction", None, reason.format("reconstruction"))
  run.set_threshold(value=1.0)
  assert rows.choose(run, "knn") == ("knn", None, reason.format("knn"))
  assert rows.choose(run, "") == ("reconstruction", run.threshold, "")


def test_a_threshold_against_targets_gives_no_flags_to_examples_without(tmp_path):
  run = dataclasses.replace(made(), workdir=tmp_path)
  stored = thresholds.Threshold(1.5, "reconstruction", "value", None, "", 0, 7, run.weights_digest, targets=True)
  store.write_threshold(tmp_path, stored)
  assert rows.choose(run, "", has_target=True) == ("reconstruction", stored, "")
  kind, threshold, reason = rows.choose(run, "")
  assert (kind, threshold) == ("reconstruction", None)
  assert reason.startswith("target= is missing")


@pytest.mark.parametrize("reads_target", [True, False])
def test_targets_are_named_only_if_the_scores_read_them(reads_target):
  run = types.SimpleNamespace(metrics={"test/input_squared_error": 1.0})
  both = new_parts.NewFiles(iter(()), [], "", {"target": "clean", "mask": "known"})
  of_mask = "--data=x.npz: the mask is the array known"
  of_target = ["--data=x.npz: the target is the array clean"] if reads_target else []
  assert rows.remarks_on_extra(run, both, "x.npz", reads_target) == [*of_target, of_mask]
  without = rows.remarks_on_extra(run, both._replace(extra={}), "x.npz", reads_target)
  assert ["has no targets" in remark for remark in without] == [True] * reads_target

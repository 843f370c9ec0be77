"""Exported files are checked before they are written, and what cannot be written is refused."""

import dataclasses
import importlib.util
import json

import numpy as np
import onnxruntime
import pytest
from made_exports import made

from ae_jax import errors
from ae_jax.exporting import files, onnx_files

pytestmark = pytest.mark.quick_compile


@pytest.fixture(scope="module")
def run():
  return made()


def test_reports_say_what_a_file_takes_and_how_far_it_is_from_the_run(run, tmp_path):
  x = np.random.default_rng(5).integers(0, 256, (70, 6, 5, 1), np.uint8)
  written = run.export(tmp_path / "new" / "folder", "onnx", x=x, dtype="uint8", int8=True)
  names = ["encoder.onnx", "encoder.int8.onnx", "decoder.onnx", "scorer.onnx"]
  assert [file.name for file in written] == names
  reports = [json.loads(file.with_name(f"{file.name}.json").read_text()) for file in written]
  x_report = reports[0]["inputs"]["x"]
  assert (x_report["dtype"], x_report["shape"]) == ("uint8", ["batch", 6, 5, 1])
  assert x_report["axes"] == ["batch", "height", "width", "channel"]
  assert x_report["values"] == "bytes from 0 to 255, not scaled"
  score = {"dtype": "float32", "shape": ["batch"], "meaning": "squared reconstruction error"}
  assert reports[3]["output"] == {"score": score}
  assert all(report["compared_with"] == "64 given examples" for report in reports)
  differences = dict(zip(names, (report["largest_absolute_difference"] for report in reports), strict=True))
  assert 1e-5 < differences.pop("encoder.int8.onnx") < 0.1 * reports[0]["largest_absolute_value"]
  assert max(differences.values()) < 1e-5
  assert [report.get("weights") for report in reports] == [None, "int8", None, None]
  assert all(r["largest_absolute_difference_from_run"] == r["largest_absolute_difference"] for r in reports)
  found = onnx_files.call(written[0].read_bytes(), [x])
  assert np.abs(found - run.encode(x)).max() < 1e-5
  for file in written[:2]:  # the metadata of a file explain it without the report
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    stored = {
      key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items() if key in "xz"
    }
    assert stored["x"]["values"] == x_report["values"]
    assert stored["z"] == {"meaning": "latent code"}


def test_a_model_in_bfloat16_is_exported_in_float32_and_its_report_has_both_differences(run, tmp_path):
  low = dataclasses.replace(run, model=dataclasses.replace(run.model, compute_dtype="bfloat16"))
  x = np.random.default_rng(5).uniform(0, 1, (4, 6, 5, 1)).astype(np.float32)
  file, decoder, scorer = low.export(tmp_path, ["onnx"], x=x)
  found = onnx_files.call(file.read_bytes(), [x])
  assert np.abs(found - run.encode(x)).max() < 1e-5
  reports = [json.loads(each.with_name(f"{each.name}.json").read_text()) for each in (file, decoder, scorer)]
  assert all((each["compared_in"], each["run_compute_dtype"]) == ("float32", "bfloat16") for each in reports)
  assert all(each["largest_absolute_difference"] < 1e-5 for each in reports)
  assert all(1e-4 < each["largest_absolute_difference_from_run"] < 0.1 for each in reports)
  assert reports[0]["largest_absolute_difference_from_run"] == np.abs(found.astype(float) - low.encode(x)).max()


def test_the_description_of_the_weights_has_no_folder_of_the_training_machine(tmp_path):
  run = made()
  run.config.data.path = "/home/jane/secret/scans.npz"
  for file in run.export(tmp_path, "safetensors"):
    assert b"secret" not in file.read_bytes(), file
  stored = json.loads((tmp_path / "weights.config.json").read_text())
  assert stored["config"]["data"]["path"] == "scans.npz"


def test_a_file_that_differs_is_not_written(run, tmp_path, monkeypatch):
  wrong = lambda contents, inputs: onnx_files.call(contents, inputs) + np.float32(1e-3)
  monkeypatch.setitem(files._GRAPHS, "onnx", files._GRAPHS["onnx"]._replace(call=wrong))
  with pytest.raises(errors.UserError, match=r"encoder.onnx: its outputs differ from those of the run by 0.001"):
    run.export(tmp_path / "exported", ["safetensors", "onnx"])
  assert not (tmp_path / "exported").exists()
  assert run.export(tmp_path / "exported", "onnx", tolerance=0.01)


def test_a_result_that_is_nan_is_not_written(run, tmp_path, monkeypatch):
  wrong = lambda contents, inputs: onnx_files.call(contents, inputs) + np.float32(np.nan)
  monkeypatch.setitem(files._GRAPHS, "onnx", files._GRAPHS["onnx"]._replace(call=wrong))
  with pytest.raises(errors.UserError, match="its outputs differ from those of the run by nan"):
    run.export(tmp_path, "onnx", tolerance=1.0)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"to": ["onx"]}, "to='onx': is unknown; did you mean 'onnx'?"),
    ({"to": ["tflite"]}, "SavedModel and TFLite are not written"),
    ({"to": []}, "to: is empty"),
    ({"to": ["safetensors"], "int8": True}, "add onnx"),
    ({"to": ["onnx"], "dtype": "float16"}, "input='float16'"),
    ({"to": ["onnx"], "x": np.zeros((2, 3, 3, 1))}, r"must be \[N, 6, 5, 1\]"),
  ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(run, tmp_path, arguments, message):
  with pytest.raises(errors.UserError, match=message):
    run.export(tmp_path / "exported", **arguments)
  assert not (tmp_path / "exported").exists()


def test_a_missing_package_is_named_with_its_extra(run, tmp_path, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
  with pytest.raises(errors.UserError, match=r"needs onnxruntime; run `pip install 'ae_jax\[export\]'`"):
    run.export(tmp_path, "onnx")

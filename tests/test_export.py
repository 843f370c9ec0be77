"""`ae_jax export`: files that other processes load without JAX or without this package."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_command, tiny_flags

import ae_jax

pytestmark = pytest.mark.quick_compile
IMAGES = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype(np.float32)

# each runs in a process that can import neither of the packages before it
READERS = {
  "onnx": """
import onnxruntime
session = lambda part: onnxruntime.InferenceSession(f"{part}.onnx", providers=["CPUExecutionProvider"])
run = lambda part, **inputs: session(part).run(None, inputs)[0]
z = run("encoder", x=x)
numpy.savez("found", z=z, x_hat=run("decoder", z=z), score=run("scorer", x=x))
""",
  "stablehlo": """
import pathlib
from jax import export
call = lambda part, array: export.deserialize(bytearray(pathlib.Path(f"{part}.stablehlo").read_bytes())).call(array)
z = call("encoder", x)
numpy.savez("found", z=z, x_hat=call("decoder", z), score=call("scorer", x))
""",
  "safetensors": """
import json, safetensors.numpy
weights = safetensors.numpy.load_file("weights.safetensors")
config = json.load(open("weights.config.json"))["config"]
assert config["data"]["range"] == "unit" and config["model"]["activation"] == "relu"
layer = lambda name, h: h @ weights[f"params/{name}/kernel"] + weights[f"params/{name}/bias"]
z = layer("encoder/code", numpy.maximum(layer("encoder/hidden_0", x.reshape(len(x), -1)), 0))
x_hat = 1 / (1 + numpy.exp(-layer("decoder/logits", numpy.maximum(layer("decoder/hidden_0", z), 0))))
x_hat = x_hat.reshape(x.shape)
numpy.savez("found", z=z, x_hat=x_hat, score=numpy.square(x_hat - x).sum((1, 2, 3)))
""",
}
ABSENT = {"onnx": ("jax", "flax", "ae_jax"), "stablehlo": ("flax", "ae_jax"), "safetensors": ("jax", "flax", "ae_jax")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """Returns a trained run and the folder to which the command exported it."""
  folder = tmp_path_factory.mktemp("exported")
  status, _, error = run_command("main", *tiny_flags(epochs=1), f"--workdir={folder / 'run'}")
  assert (status, error) == (0, "")
  status, output, error = run_command("export", f"--workdir={folder / 'run'}", "--int8", f"--out={folder}")
  assert (status, error) == (0, "")
  assert len(output.splitlines()) == 9
  return ae_jax.load(folder / "run"), folder


@pytest.mark.parametrize("form", READERS)
def test_a_process_without_this_package_computes_the_same(exported, form, tmp_path):
  run, folder = exported
  np.save(tmp_path / "x.npy", IMAGES)
  for file in folder.glob("*.*"):
    (tmp_path / file.name).symlink_to(file)
  blocked = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT[form]}))\nimport numpy\nx = numpy.load('x.npy')\n"
  command = [sys.executable, "-c", blocked + READERS[form]]
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  found = np.load(tmp_path / "found.npz")
  np.testing.assert_allclose(found["z"], run.encode(IMAGES), atol=1e-5)
  np.testing.assert_allclose(found["x_hat"], run.reconstruct(IMAGES), atol=1e-5)
  np.testing.assert_allclose(found["score"], run.score(IMAGES), rtol=1e-5)


def test_the_report_names_the_run_the_test_examples_and_the_versions(exported):
  run, folder = exported
  report = json.loads((folder / "encoder.onnx.json").read_text())
  assert report["compared_with"] == "64 test examples"
  assert report["largest_absolute_difference"] < 1e-5
  assert report["run"] == {"workdir": "run", "step": run.step}
  assert {"ae_jax", "jax", "onnxruntime"} <= {*report["versions"]}
  assert (folder / "encoder.int8.onnx").stat().st_size < (folder / "encoder.onnx").stat().st_size


def test_an_unknown_format_is_one_line_before_the_run_is_read(tmp_path):
  status, output, error = run_command("export", f"--workdir={tmp_path}", "--to=onnx,savedmodel")
  assert (status, output) == (1, "")
  assert error.startswith("ae_jax: to='savedmodel': is unknown; SavedModel and TFLite are not written")
  assert not [*pathlib.Path(tmp_path).iterdir()]

"""The example of a server in experiments/serve: its replies are those of the run, and wrong requests get a sentence."""

import asyncio
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from made_exports import made

pytest.importorskip("fastapi", reason="install the extra serve")
pytest.importorskip("onnxruntime", reason="install the extra serve")

NPY = {"content-type": "application/x-npy"}
X = np.random.default_rng(0).uniform(size=(5, 6, 5, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
  """A run, the folder of its exported files, and the module of the server."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from experiments.serve import app
  run, folder = made(), tmp_path_factory.mktemp("deployed")
  run.export(folder, "onnx")
  return run, folder, app


def call(app, path, body=b"", headers=(), method="POST"):
  """Returns (status, body) of a request, without a network."""
  sent, chunks = [], [body[: len(body) // 2], body[len(body) // 2 :]]

  async def receive():
    return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

  async def send(message):
    sent.append(message)

  headers = [(key.encode(), value.encode()) for key, value in dict(headers).items()]
  scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b"", "root_path": ""}
  asyncio.run(app(scope, receive, send))
  return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def as_npy(array):
  stream = io.BytesIO()
  np.save(stream, array)
  return stream.getvalue()


def as_json(**inputs):
  return json.dumps({name: np.asarray(array).tolist() for name, array in inputs.items()}).encode()


@pytest.mark.parametrize(("path", "key", "method"), [("/score", "score", "score"), ("/encode", "z", "encode")])
def test_replies_equal_the_run(served, path, key, method):
  run, folder, module = served
  app, expected = module.create(folder), getattr(run, method)(X)
  for body, headers in ((as_json(x=X), {}), (as_npy(X), NPY), (as_npy(np.asfortranarray(X.astype(">f8"))), NPY)):
    status, reply = call(app, path, body, headers)
    assert (status, list(json.loads(reply))) == (200, [key])
    np.testing.assert_allclose(json.loads(reply)[key], expected, atol=1e-5)
  status, reply = call(app, path, as_json(x=X), {"accept": NPY["content-type"]})
  np.testing.assert_allclose(np.load(io.BytesIO(reply)), expected, atol=1e-5)


def test_a_threshold_of_the_same_step_flags_examples(served, tmp_path):
  run, folder, module = served
  for file in folder.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  threshold = run.set_threshold(X, contamination=0.4)
  stored = tmp_path / "threshold.json"
  stored.write_text(json.dumps(threshold.as_json()))
  app = module.create(tmp_path)
  flags = json.loads(call(app, "/score", as_json(x=X))[1])["flag"]
  assert flags == run.flag(X).tolist()
  assert sum(flags) == 2
  assert json.loads(call(app, "/healthz", method="GET")[1])["threshold"] == threshold.value
  for changes in ({"step": 7}, {"kind": "knn"}, {"targets": True}):
    stored.write_text(json.dumps(threshold.as_json() | changes))
    with pytest.raises(ValueError, match=r"is not for the scores of scorer\.onnx"):
      module.create(tmp_path)


FULL = X.copy()
FULL[[1, 3], 0] = np.nan
HUGE = as_npy(X).replace(b"(5, 6, 5, 1)", b"(9999999, 6)")  # as long, so that the header stays valid


@pytest.mark.parametrize(
  ("body", "headers", "status", "words"),
  [
    (b"", {}, 400, "the body is no JSON"),
    (b"[1]", {}, 422, 'the body is no object; send {"x": [...]}'),
    (as_json(y=X), {}, 422, "the inputs are y; send x"),
    (as_json(x=X, label=[1]), {}, 422, "the inputs are x, label; send x"),
    (as_json(x=X[0]), {}, 422, "x: has shape [6, 5, 1]; send [batch, 6, 5, 1]"),
    (as_json(x=X[:0]).replace(b"[]", b"[[], [1]]"), {}, 422, "the inputs are no arrays of numbers"),
    (as_json(x=FULL), {}, 422, "x: the model refuses 2 of 5 examples, the first in row 1; they have NaN"),
    (as_npy(np.full_like(X, 1e300, dtype=np.float64)), NPY, 422, "x: the model refuses 5 of 5 examples"),
    (as_npy((255 * X).astype(np.uint8)), NPY, 422, "x: has dtype uint8; send floats in the data range of the model"),
    (as_npy(np.repeat(X, 205, 0)), NPY, 413, "x: has 1,025 examples; send 1 to 1,024"),
    (as_npy(X[:0]), NPY, 422, "x: has 0 examples; send 1 to 1,024"),
    (as_npy(X)[:-4], NPY, 400, "the body is no .npy file of numbers"),
    (as_npy(X.astype(object)), NPY, 400, "the body is no .npy file of numbers"),
    (HUGE, NPY, 400, "the body is no .npy file of numbers"),
    (as_npy(X), {}, 400, "for a .npy file, send Content-Type: application/x-npy"),
  ],
)
def test_wrong_requests_get_a_sentence(served, body, headers, status, words):
  app = served[2].create(served[1])
  found, reply = call(app, "/score", body, headers)
  assert (found, words in json.loads(reply)["detail"]) == (status, True), reply


def test_a_large_body_is_refused_while_it_is_read(served, monkeypatch):
  monkeypatch.setattr(served[2], "MOST_BYTES", 100)
  status, reply = call(served[2].create(served[1]), "/score", as_json(x=X))
  assert (status, json.loads(reply)["detail"]) == (413, "the body has more than 100 bytes; send fewer examples")


def test_integers_are_taken_by_models_for_integers(tmp_path, served):
  run, app = made(), served[2]
  run.export(tmp_path, "onnx", dtype="uint8")
  pixels = np.round(255 * X)
  app = app.create(tmp_path)
  expected = run.score((pixels / 255).astype(np.float32))
  np.testing.assert_allclose(json.loads(call(app, "/score", as_json(x=pixels))[1])["score"], expected, atol=1e-4)
  status, reply = call(app, "/score", as_json(x=pixels + 0.5))
  assert (status, "x: has values that are no uint8" in json.loads(reply)["detail"]) == (422, True)


def test_the_readme_has_the_measured_table_and_the_processor():
  folder = ROOT / "experiments" / "serve"
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from experiments.serve import load
  results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
  readme = (folder / "README.md").read_text(encoding="utf-8")
  assert load.table(results) in readme
  assert load.measured_on(results) in readme


def test_the_server_imports_neither_ae_jax_nor_jax():
  code = "import sys, experiments.serve.app; assert not {'ae_jax', 'jax'} & {*sys.modules}"
  subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  )

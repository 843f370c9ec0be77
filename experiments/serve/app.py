"""Serves the ONNX files of `ae_jax export` over HTTP. It needs FastAPI and onnxruntime, but neither ae_jax nor JAX.

  EXPORTED=deployed uvicorn --factory experiments.serve.app:create

POST /score and POST /encode take a batch of examples: JSON {"x": [...], ...} with all inputs of the model, or the bytes
of a .npy file with x (Content-Type: application/x-npy). The reply is {"score": [...]} or {"z": [...]}, or a .npy file
if the header Accept is application/x-npy. GET /healthz describes the inputs. This file can be copied to other projects.
"""

import io
import json
import os
import pathlib
import time
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

MOST_EXAMPLES = 1024  # per request
MOST_BYTES = 2**26
NPY = "application/x-npy"
_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}, NPY: {}}, "required": True}}


def create(folder: str | os.PathLike[str] | None = None) -> FastAPI:
  """Returns the application for a folder that `ae_jax export` wrote; None: $EXPORTED, or else `deployed`.

  With a copy of the run's threshold.json in the folder, the reply of /score also has "flag".
  """
  folder = pathlib.Path(folder or os.environ.get("EXPORTED", "deployed"))
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1  # requests run side by side instead
  sessions = {
    name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    for name in ("scorer", "encoder")
  }
  threshold = read_threshold(folder)
  app = FastAPI(title="ae_jax")

  @app.get("/healthz")
  def healthz() -> dict[str, Any]:
    inputs = {each.name: {"dtype": each.type, "shape": each.shape} for each in sessions["scorer"].get_inputs()}
    used = {"processor_seconds": time.process_time()}
    return {"status": "ok", "inputs": inputs, "most_examples": MOST_EXAMPLES, "threshold": threshold} | used

  @app.post("/score", openapi_extra=_BODY)
  async def score(request: Request) -> Response:
    scores = await run(sessions["scorer"], request)
    flags = {} if threshold is None else {"flag": scores.astype(np.float64) > threshold}
    return reply(request, {"score": scores} | flags)

  @app.post("/encode", openapi_extra=_BODY)
  async def encode(request: Request) -> Response:
    return reply(request, {"z": await run(sessions["encoder"], request)})

  return app


def read_threshold(folder: pathlib.Path) -> float | None:
  """Returns the threshold in threshold.json; None if there is no such file.

  Raises:
    ValueError: The threshold is not for the scores of scorer.onnx.
  """
  file = folder / "threshold.json"
  if not file.exists():
    return None
  stored = json.loads(file.read_text(encoding="utf-8"))
  report = json.loads((folder / "scorer.onnx.json").read_text(encoding="utf-8"))
  if stored["kind"] != "reconstruction" or stored["targets"] or stored["step"] != report["run"]["step"]:
    raise ValueError(
      f"{file}: is not for the scores of scorer.onnx, which are reconstruction errors of step "
      f"{report['run']['step']} without targets; remove the file, or set the threshold of the run again"
    )
  return stored["value"]


async def run(session: onnxruntime.InferenceSession, request: Request) -> np.ndarray:
  """Returns the result of a model for the examples of a request.

  Raises:
    HTTPException: The body is too large, cannot be read, or has examples that the model refuses; it names the fault.
  """
  body = bytearray()
  async for chunk in request.stream():
    body += chunk
    if len(body) > MOST_BYTES:
      raise HTTPException(413, f"the body has more than {MOST_BYTES:,} bytes; send fewer examples")
  is_npy = request.headers.get("content-type", "").startswith(NPY)
  return await run_in_threadpool(_run, session, bytes(body), is_npy)


def _run(session: onnxruntime.InferenceSession, body: bytes, is_npy: bool) -> np.ndarray:
  given = {"x": from_npy(body)} if is_npy else from_json(body)
  needed = {each.name: each for each in session.get_inputs()}
  if {*given} != {*needed}:
    raise HTTPException(422, f"the inputs are {', '.join(given) or 'missing'}; send {', '.join(needed)}")
  inputs = {name: checked(name, given[name], needed[name]) for name in needed}
  counts = {name: len(array) for name, array in inputs.items()}
  if len({*counts.values()}) > 1:
    raise HTTPException(422, f"the inputs have different numbers of examples: {counts}")
  (result,) = session.run(None, inputs)
  refused = np.flatnonzero(~np.isfinite(result.reshape(len(result), -1)).all(1))
  if len(refused):
    raise HTTPException(
      422,
      f"x: the model refuses {len(refused)} of {len(result)} examples, the first in row {refused[0]}; they have NaN, "
      "infinity, or a category or label that it does not know",
    )
  return result


def from_npy(body: bytes) -> np.ndarray:
  """Returns the array of a .npy file. Its header cannot make the server allocate memory, and nothing is unpickled."""
  stream = io.BytesIO(body)
  try:
    if np.lib.format.read_magic(stream) != (1, 0):
      raise ValueError("write format (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    return np.frombuffer(body, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
  except Exception as error:  # NumPy raises many types for damaged headers
    raise HTTPException(400, f"the body is no .npy file of numbers: {error}") from None


def from_json(body: bytes) -> dict[str, np.ndarray]:
  """Returns the arrays of JSON {"x": [...], ...}; null is NaN, a missing value."""
  try:
    given = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise HTTPException(400, f"the body is no JSON: {error}; for a .npy file, send Content-Type: {NPY}") from None
  if not isinstance(given, dict):
    raise HTTPException(422, 'the body is no object; send {"x": [...]}')
  try:
    return {name: np.array(values, np.float64) for name, values in given.items()}
  except (ValueError, TypeError, OverflowError) as error:
    raise HTTPException(422, f"the inputs are no arrays of numbers: {error}") from None


def checked(name: str, array: np.ndarray, needed: Any) -> np.ndarray:
  """Returns an input in the dtype of the model; raises HTTPException if its shape or dtype is not compatible."""
  shape, dtype = needed.shape[1:], _DTYPES[needed.type]
  if array.ndim != len(shape) + 1 or [*array.shape[1:]] != shape:
    raise HTTPException(422, f"{name}: has shape {[*array.shape]}; send {['batch', *shape]}".replace("'", ""))
  if not 0 < len(array) <= MOST_EXAMPLES:
    raise HTTPException(413 if len(array) else 422, f"{name}: has {len(array):,} examples; send 1 to {MOST_EXAMPLES:,}")
  if array.dtype.kind not in ("f" if dtype == np.float32 else "fui"):
    raise HTTPException(422, f"{name}: has dtype {array.dtype}; send floats in the data range of the model")
  with np.errstate(over="ignore", invalid="ignore"):
    converted = array.astype(dtype)
  if dtype != np.float32 and not np.array_equal(converted, array):
    raise HTTPException(422, f"{name}: has values that are no {dtype.__name__}; send integers in its range")
  return converted


def reply(request: Request, results: dict[str, np.ndarray]) -> Response:
  """Returns results as JSON, or the first of them as a .npy file if the client accepts that."""
  if NPY in request.headers.get("accept", ""):
    stream = io.BytesIO()
    np.save(stream, next(iter(results.values())), allow_pickle=False)
    return Response(stream.getvalue(), media_type=NPY)
  return Response(json.dumps({name: each.tolist() for name, each in results.items()}), media_type="application/json")

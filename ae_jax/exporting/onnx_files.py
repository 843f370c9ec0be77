"""Runs and quantises ONNX files with `onnxruntime`."""

import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped


def call(contents: bytes, inputs: Sequence[Shaped[np.ndarray, "examples ..."]]) -> Shaped[np.ndarray, "examples ..."]:
  """Runs an ONNX file; `inputs` are in the order of the inputs of its graph."""
  import onnxruntime

  session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])
  names = [each.name for each in session.get_inputs()]
  (result,) = session.run(None, dict(zip(names, inputs, strict=True)))
  return result


def quantised(contents: bytes) -> bytes:
  """Returns an ONNX file whose matrix products use int8 weights; activations are quantised at run time.

  Convolutions stay in float32: onnxruntime has no int8 kernel for them on CPUs.
  """
  from onnxruntime import quantization

  with tempfile.TemporaryDirectory() as folder:
    before, after = (os.path.join(folder, name) for name in ("float32.onnx", "int8.onnx"))
    pathlib.Path(before).write_bytes(contents)
    options = {"weight_type": quantization.QuantType.QInt8, "op_types_to_quantize": ["MatMul"]}
    quantization.quantize_dynamic(before, after, **options)
    return pathlib.Path(after).read_bytes()

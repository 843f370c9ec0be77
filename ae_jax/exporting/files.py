"""Exports a run to files. Each file is compared with the run, and a report is written beside it."""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

import ae_jax
from ae_jax import errors
from ae_jax.exporting import examples, onnx_convert, onnx_files, parts, stablehlo, weights
from ae_jax.system import atomic, paths

FORMATS = ("stablehlo", "onnx", "safetensors")
TOLERANCE = 1e-5
_PACKAGES = {"stablehlo": (), "onnx": ("onnx", "onnxruntime"), "safetensors": ("safetensors",)}
_VERSIONS = ("jax", "jaxlib", "flax", "numpy", "onnx", "onnxruntime", "safetensors")


class _Format(NamedTuple):
  convert: Callable[[parts.Part], bytes]
  call: Callable[..., np.ndarray]


_GRAPHS = {
  "stablehlo": _Format(stablehlo.convert, stablehlo.call),
  "onnx": _Format(onnx_convert.convert, onnx_files.call),
}


def export(
  run: Any,
  folder: str | os.PathLike[str],
  to: Collection[str] | str = FORMATS,
  *,
  x: Any = None,
  dtype: str = "float32",
  int8: bool = False,
  tolerance: float = TOLERANCE,
) -> list[pathlib.Path]:
  """Writes the model to files that can be used without this package.

  The encoder, the decoder and the scorer are written to separate files: `encoder.onnx`, `encoder.stablehlo`, ... Each
  contains the weights and the preprocessing, and accepts any batch size of at least 1. The format "safetensors" writes
  `weights.safetensors` and `weights.config.json`. Each file has a report `FILE.json` with its inputs, its largest
  difference from this run, and package versions. A model that computes in bfloat16 is exported in float32 and compared
  with this run in float32; its report also contains the difference from this run in bfloat16.

  Example:
    >>> run.export("exported", to=["onnx"], x=test_images)

  Args:
    run: The run.
    folder: Folder for the files. It is created if it does not exist; files with the same names are replaced.
    to: One or more of `FORMATS`.
    x: Examples for the comparison, in any form that the methods of the run accept; at most 64 are used. None: random
      examples.
    dtype: Dtype of the examples that the files accept: "float32" in the data range of the run, "uint8" for bytes, which
      the file scales, or "int32" for other integers in the unit of the training data. Tables are float32, one number
      for each column.
    int8: Whether to also write `encoder.int8.onnx`, whose matrix products have int8 weights. Its report contains its
      difference from the run, which is not limited by `tolerance`.
    tolerance: Largest accepted difference, relative to the largest absolute value of the result, or absolute if this
      value is below 1.

  Returns:
    The paths of the files.

  Raises:
    UserError: An argument is invalid, a package is missing, the model cannot be exported to a format, or a file
      differs from the run by more than `tolerance`. Then no file is written.
  """
  rows = None if x is None else run.conversion(x).x[: examples.COUNT]
  return write(run, folder, to, rows, "given examples", dtype=dtype, int8=int8, tolerance=tolerance)


def write(
  run: Any,
  folder: str | os.PathLike[str],
  to: Collection[str] | str,
  rows: np.ndarray | None,
  source: str,
  *,
  dtype: str,
  int8: bool,
  tolerance: float,
) -> list[pathlib.Path]:
  """Implements `export`.

  `rows` are examples for the comparison as the model receives them (None: random ones), `source` describes them.
  """
  folder, formats = paths.local_path("folder", folder), check_formats(to)
  if int8 and "onnx" not in formats:
    raise errors.UserError("int8: is a form of the ONNX encoder; add onnx to the formats")
  graph_parts = parts.parts_of(examples.in_float32(run), dtype)
  if rows is None or not len(rows):
    rows, source = examples.drawn(run), "random examples"
  checked = examples.checked(run, rows, dtype, source)
  files = [
    each
    for name in formats
    for each in (
      _weight_files(run) if name == "safetensors" else _graph_files(name, graph_parts, checked, tolerance, int8)
    )
  ]
  with errors.convert_os_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for file, contents, report in files:
      with atomic.replace(folder / file) as part:
        part.write_bytes(contents)
      if report is not None:
        atomic.write_text(
          folder / f"{file}.json", f"{json.dumps({'file': file, **report, **_origin(run)}, indent=2)}\n"
        )
  return [folder / file for file, _, _ in files]


def check_formats(to: Collection[str] | str) -> list[str]:
  """Returns the formats as a list; raises UserError if one is unknown or its packages are missing."""
  formats = [to] if isinstance(to, str) else list(to)
  if not formats:
    raise errors.UserError(f"to: is empty; choose one or more of {', '.join(FORMATS)}")
  for name in formats:
    if name not in FORMATS:
      hint = _REFUSED.get(name, errors.list_known(name, FORMATS))
      raise errors.UserError(f"to={errors.format_value(name)}: is unknown; {hint}")
    for package in _PACKAGES[name]:
      if importlib.util.find_spec(package) is None:
        raise errors.UserError(f"to={name!r}: needs {package}; run `pip install 'ae_jax[export]'`")
  return formats


_REFUSED = dict.fromkeys(
  ("tf", "tflite", "savedmodel"), "SavedModel and TFLite are not written (see the documentation); use onnx"
)


def _graph_files(
  name: str, graph_parts: list[parts.Part], checked: examples.Checked, tolerance: float, int8: bool
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
  """Yields (file name, contents, report) for each part."""
  form = _GRAPHS[name]
  for part in graph_parts:
    contents, inputs = form.convert(part), [checked.inputs[each] for each in part.inputs]
    report = _report(part, name, checked, form.call(contents, inputs))
    difference, scale = report["largest_absolute_difference"], max(1.0, report["largest_absolute_value"])
    if not difference <= tolerance * scale:
      raise errors.UserError(
        f"{part.name}.{name}: its outputs differ from those of the run by {difference:.3g} (scale {scale:.3g}), so "
        f"no file is written; raise the tolerance of {tolerance:g}, or choose another format"
      )
    yield f"{part.name}.{name}", contents, report
    if int8 and name == "onnx" and part.name == "encoder":
      small = onnx_files.quantised(contents)
      report = _report(part, name, checked, onnx_files.call(small, inputs))
      yield "encoder.int8.onnx", small, report | {"weights": "int8"}


def _report(part: parts.Part, name: str, checked: examples.Checked, found: np.ndarray) -> dict[str, Any]:
  expected = checked.results[part.name]
  difference, own_difference = (
    np.abs(found.astype(np.float64) - each) for each in (expected, checked.own_results[part.name])
  )
  return {
    "part": part.name,
    "format": name,
    "inputs": {key: _described(part, key, v.dtype, v.shape) for key, v in part.inputs.items()},
    "output": {part.output: _described(part, part.output, found.dtype, found.shape[1:])},
    "compared_with": f"{len(expected)} {checked.source}",
    "compared_in": "float32",
    "largest_absolute_difference": float(difference.max(initial=0)),
    "root_mean_square_difference": float(np.sqrt(np.mean(np.square(difference)))),
    "run_compute_dtype": checked.compute_dtype,
    "largest_absolute_difference_from_run": float(own_difference.max(initial=0)),
    "largest_absolute_value": float(np.abs(expected).max(initial=0)),
  }


def _described(part: parts.Part, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> dict[str, Any]:
  return {"dtype": str(dtype), "shape": ["batch", *shape], **part.meanings.get(name, {})}


def _weight_files(run: Any) -> Iterator[tuple[str, bytes, dict[str, Any] | None]]:
  contents = weights.as_bytes(run)
  difference = weights.largest_difference(run, contents)
  report = {"format": "safetensors", "largest_absolute_difference": difference}
  yield "weights.safetensors", contents, report
  yield "weights.config.json", weights.description_text(run).encode(), None


def _origin(run: Any) -> dict[str, Any]:
  """Returns the entries of a report that describe the run, the time and the package versions."""
  installed = {package: _version(package) for package in _VERSIONS}
  return {
    "run": {"workdir": None if run.workdir is None else run.workdir.name, "step": run.step},
    "model": run.config.model.name,
    "data": run.config.data.name,
    "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "versions": {"ae_jax": ae_jax.__version__} | {key: value for key, value in installed.items() if value},
  }


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None

"""Writes a trained model to files that can be used without this package.

  ae_jax export --workdir=runs/cnn
  ae_jax export --workdir=runs/cnn --to=onnx --int8 --out=deployed
  python -m ae_jax.export --workdir=runs/cnn --to=onnx --input=uint8
  python -m ae_jax.export --workdir=runs/cnn --to=safetensors --which=best

The formats are onnx (for onnxruntime), stablehlo (for JAX without this package, on CPUs, GPUs and TPUs) and safetensors
(the weights, with the config as JSON). The encoder, the decoder and the scorer are written to separate files, which
contain the weights and the preprocessing and accept any batch size of at least 1. Each file is compared on 64 test
examples with the run in float32. Its report, FILE.json, contains the largest difference, and the largest difference
from the run in its own compute dtype.
"""

import json
import pathlib
from typing import Any

from absl import flags

from ae_jax import cli

flags.adopt_module_key_flags(cli)

_TO = flags.DEFINE_list("to", ["stablehlo", "onnx", "safetensors"], "Formats, NAME,NAME,...")
_OUT = flags.DEFINE_string("out", "", "Folder of the files; default: exported in the run folder.")
_INPUT = flags.DEFINE_enum(
  "input",
  "float32",
  ["float32", "uint8", "int32"],
  "Dtype of examples: floats in the data range, or stored integers.",
)
_INT8 = flags.DEFINE_bool("int8", False, "Also write the ONNX encoder with int8 weights.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to export.")
_DATA = flags.DEFINE_string("data", "", "Path of the data of the run; default: config.data.path of the run.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Largest accepted difference from the run; see run.export.")


def main(workdir: pathlib.Path) -> None:
  """Exports the run in a folder, and prints the name, the size and the largest difference from the run of each file."""
  from ae_jax import api
  from ae_jax.exporting import examples, files
  from ae_jax.runs import run_folder
  from ae_jax.system import cache

  with cli.user_errors():
    files.check_formats(_TO.value)
    run = api.load(workdir, _WHICH.value)
    dataset = run_folder.load_data(workdir, run.config, _DATA.value)
    cache.keep_compiled_programs()
    out = _OUT.value or workdir / "exported"
    rows = examples.of_dataset(run, dataset)
    options = {"dtype": _INPUT.value, "int8": _INT8.value, "tolerance": _TOLERANCE.value}
    for file in files.write(run, out, _TO.value, rows, "test examples", **options):
      report = file.with_name(f"{file.name}.json")
      stored = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
      print(f"{file!s:60} {file.stat().st_size:12,} bytes{_differences(stored)}")


def _differences(report: dict[str, Any]) -> str:
  """Returns a string with the largest differences in a report; "" if the report is empty."""
  if not report:
    return ""
  text, dtype = f"  {report['largest_absolute_difference']:.2g}", report.get("run_compute_dtype", "float32")
  if dtype == "float32":
    return text
  return f"{text} in float32, {report['largest_absolute_difference_from_run']:.2g} from the run in {dtype}"


def run() -> None:
  """Runs `ae_jax export`."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()

"""Measures training on a GPU: speed beside PyTorch, `--deterministic`, a sweep, and a run that is killed and resumed.

  python -m experiments.throughput.gpu

Writes <device>.json and <device>.md in this folder after each measurement. The measurements are ordered by importance;
those that do not fit into the time are named in the page. Needs no network; PyTorch is left out if it is not installed.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import sys
import tempfile

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # all processes share the device with this one
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # the sweep and the killed run would use all devices

import jax

from ae_jax.errors import UserError
from experiments.throughput.gpu import budget, plan, tables
from experiments.throughput.gpu.sizes import TINY, Sizes

HERE = pathlib.Path(__file__).parent


def main(arguments=None):
  """Runs the measurements and writes the results; returns the path of the page."""
  flags = parse(arguments)
  sizes = TINY if flags.tiny else Sizes()
  if jax.default_backend() != "gpu" and not flags.tiny:
    raise UserError("JAX finds no GPU; install jax[cuda12], or try all parts with tiny sizes on a CPU: --tiny")
  flags.out.mkdir(parents=True, exist_ok=True)
  device = re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")
  files = [flags.out / f"{device}{suffix}" for suffix in (".json", ".md")]
  results = {"minutes": flags.minutes, "sizes": plan.description(sizes), "missing": {}}
  results |= {"device": [], "speed": [], "sweep": [], "resume": []}

  def save():
    for file, text in zip(files, (json.dumps(results, indent=1) + "\n", tables.markdown(results)), strict=True):
      part = file.with_name(f".{file.name}")
      part.write_text(text, encoding="utf-8")
      os.replace(part, file)

  with tempfile.TemporaryDirectory() as folder:
    budget.run(plan.measurements(sizes, pathlib.Path(folder)), results, save, flags.minutes)
  print(files[1].read_text(encoding="utf-8"))
  return files[1]


def parse(arguments):
  """Returns the parsed flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=8.0, help="time for all measurements")
  parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try all parts on a CPU")
  parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder of the results")
  flags = parser.parse_args(arguments)
  if flags.tiny and flags.out == HERE:
    parser.error("--tiny: give a folder for results without meaning: --out=FOLDER")
  return flags


if __name__ == "__main__":
  signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the other processes, too
  try:
    main()
  except UserError as error:
    sys.exit(f"experiments.throughput.gpu: {error}")

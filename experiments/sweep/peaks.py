"""Compares the predicted peak memory of a sweep's pack with the measured peak of a separate process."""

import ctypes
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

CASES = {  # config -> keys of its model; large models make the memory of the rest of the process negligible
  "dense": {"widths": (2048, 1024)},
  "vae": {"widths": (2048, 1024)},
  "cnn": {"channels": (64, 128)},
}
_RETURN_FREE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc returns freed blocks, so they do not count
WAYS = ("in turn", "side by side")


def compare(folder):
  """Returns {"dense, in turn": {"foretold", "measured", "ratio"}, ...} for packs of six members, in MiB.

  "foretold" is the compiler's prediction.
  """
  del folder
  results = {}
  for name, way in itertools.product(CASES, WAYS):
    command = [sys.executable, "-m", "experiments.sweep.peaks", name, way]
    environment = os.environ | _RETURN_FREE_MEMORY
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=environment).stdout
    results[f"{name}, {way}"] = json.loads(output.splitlines()[-1])
    print(f"{name}, {way}: {results[f'{name}, {way}']}", flush=True)
  return results


def measure(name, way):
  """Prints the predicted peak memory of one case and the largest increase of this process's resident memory, in MiB."""
  from ae_jax.sweep import engines

  engines.use_cores(1)
  import importlib

  import jax
  import numpy as np

  from ae_jax.sweep import compiled_pack, grid
  from ae_jax.system import distributed

  config = importlib.import_module(f"configs.{name}").get_config()
  config.model.update(CASES[name])
  members = grid.members(config.lock(), ["model.latent", "seed"], list(itertools.product((8, 16, 32), (0, 1))))
  mesh = distributed.mesh()
  jax.block_until_ready(jax.jit(lambda x: x @ x)(np.ones((8, 8), np.float32)))  # the backend's own memory
  before = _resident()
  device_data = compiled_pack.place_data(members, mesh)
  state = compiled_pack.start(members, device_data)
  pack = compiled_pack.build(members, device_data, 0, state, way)
  ctypes.CDLL(None).malloc_trim(0)
  compiled = _resident() - before - _bytes(state, device_data)  # memory that compilation has not returned
  pathlib.Path("/proc/self/clear_refs").write_bytes(b"5")  # resets VmHWM
  batches = tuple(
    np.stack(part) for part in zip(*(m.experiment.batch_schedule.chunks(0)[0] for m in members), strict=True)
  )
  for _ in range(2):
    state, *_ = jax.block_until_ready(pack.train_chunk(state, *batches))
    jax.block_until_ready(pack.evaluate(state))
  measured = _resident("VmHWM") - before - compiled
  mebibytes = {"foretold": pack.peak_bytes / 2**20, "measured": measured / 2**20}
  ratio = {"ratio": round(pack.peak_bytes / measured, 2)}
  print(json.dumps({key: round(value, 1) for key, value in mebibytes.items()} | ratio))


def _bytes(state, device_data):
  import jax

  return sum(leaf.nbytes for leaf in jax.tree.leaves((state, device_data.columns)))


def _resident(name="VmRSS"):
  return 1024 * int(re.search(rf"{name}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text(encoding="utf-8"))[1])


if __name__ == "__main__":
  measure(*sys.argv[1:])

"""Is the memory of a pack as the compiler foretells it? Measured by the resident memory of a process of its own."""

import ctypes
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

CASES = {  # name of the config -> keys that make it large, so that the rest of the process weighs little; members
  "dense": {"widths": (2048, 1024)},
  "vae": {"widths": (2048, 1024)},
  "cnn": {"channels": (64, 128)},
}
_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is free is not kept: it is nobody's need
WAYS = ("in turn", "side by side")


def compare(folder):
  """{"dense, in turn": {"foretold", "measured", "ratio"}, ...} in MiB, of six members."""
  del folder
  found = {}
  for name, way in itertools.product(CASES, WAYS):
    command = [sys.executable, "-m", "experiments.sweep.peaks", name, way]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | _GIVEN_BACK).stdout
    found[f"{name}, {way}"] = json.loads(said.splitlines()[-1])
    print(f"{name}, {way}: {found[f'{name}, {way}']}", flush=True)
  return found


def measure(name, way):
  """One case, in this process: MiB that the compiler foretells, and by which the resident memory rises at most."""
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
  device_data = compiled_pack.place(members, mesh)
  state = compiled_pack.start(members, device_data)
  built = compiled_pack.build(members, device_data, 0, state, way)
  ctypes.CDLL(None).malloc_trim(0)
  compiled = _resident() - before - _bytes(state, device_data)  # what compiling has left behind
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
  batches = tuple(
    np.stack(part) for part in zip(*(m.experiment.batch_schedule.chunks(0)[0] for m in members), strict=True)
  )
  for _ in range(2):
    state, *_ = jax.block_until_ready(built.train_chunk(state, *batches))
    jax.block_until_ready(built.evaluate(state))
  measured = _resident("VmHWM") - before - compiled
  mebibytes = {"foretold": built.peak_bytes / 2**20, "measured": measured / 2**20}
  print(
    json.dumps(
      {key: round(each, 1) for key, each in mebibytes.items()} | {"ratio": round(built.peak_bytes / measured, 2)}
    )
  )


def _bytes(state, device_data):
  import jax

  return sum(leaf.nbytes for leaf in jax.tree.leaves((state, device_data.train, device_data.test)))


def _resident(name="VmRSS"):
  return 1024 * int(re.search(rf"{name}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
  measure(*sys.argv[1:])

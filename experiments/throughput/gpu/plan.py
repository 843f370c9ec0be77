"""The measurements on a GPU, in the order of their importance."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import numpy as np

from ae_jax import data
from ae_jax.errors import UserError
from experiments.throughput import measure, peers, problem, processes
from experiments.throughput.gpu import resume, sweep
from experiments.throughput.gpu.budget import Measurement
from experiments.throughput.peers import ours

PEERS = ("PyTorch eager", "PyTorch compile", "PyTorch CUDA graphs")  # each is measured in turn with ae_jax
IMAGES = "images.npy"
# Versions that decide the speed, beside those of `measure.machine`.
PACKAGES = ("jaxlib", *(f"jax-cuda{n}-plugin" for n in (12, 13)), *(f"nvidia-cudnn-cu{n}" for n in (12, 13)), "triton")
TORCH = "import torch; print(torch.version.cuda if torch.cuda.is_available() else 'none')"
SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader")


def measurements(sizes, folder):
  """Returns the measurements; `folder` is for temporary files."""
  mnist = data.load("mnist_5k", "", "unit").train
  np.save(folder / IMAGES, np.resize(mnist, (sizes.examples, *problem.shape("cnn"))))
  alone = [("speed", f"{model}: ae_jax", speed, model, peers.OURS) for model in sizes.models]
  beside = [("speed", f"{model}: {peer}", speed, model, ["ae_jax", peer]) for peer in PEERS for model in sizes.models]
  members, main = len(sizes.latents) * len(sizes.seeds), len(sizes.models) * len(PEERS[:2])
  ordered = [
    ("device", "device and matrix products", device),
    *alone,
    *beside[:main],
    ("resume", "resume with --deterministic", resumed, ("--deterministic",)),
    *(("sweep", f"{model}: sweep of {members} members", swept, model) for model in sizes.models),
    ("resume", "resume", resumed, ()),
    *beside[main:],
  ]
  return [
    Measurement(part, name, functools.partial(function, sizes, folder, *arguments))
    for part, name, function, *arguments in ordered
  ]


def speed(sizes, folder, model, contestants):
  """Yields the images per second of contestants that take turns, one record per batch size.

  Raises:
    UserError: If a package is not installed, or PyTorch would not use the GPU.
  """
  if missing := [package for name in contestants for package in peers.ENTRIES[name].missing()]:
    raise UserError(f"not installed: {', '.join(missing)}")
  if contestants[-1] in PEERS and jax.default_backend() == "gpu" and _torch_cuda() == "none":
    raise UserError("PyTorch finds no GPU")
  turns = sizes.batches, contestants, sizes.rounds, sizes.seconds
  for record in measure.speed(model, *turns, folder / IMAGES, sizes.examples, folder):
    adds = ours.multiply_adds(model, record["batch_size"])
    yield record | {"examples": sizes.examples, "multiply_adds": adds}


def swept(sizes, folder, model):
  """Yields the record of a sweep."""
  keywords = {"model": model, "data": sizes.data, "epochs": sizes.sweep_epochs}
  yield _in_process(sweep, keywords | {"latents": sizes.latents, "seeds": sizes.seeds}, _environment(folder))


def resumed(sizes, folder, flags):
  """Yields the record of a killed run."""
  yield resume.measure(sizes.resumed_model, sizes.data, sizes.resumed_epochs, flags, _environment(folder))


def _environment(folder):
  return processes.QUIET | processes.caches(folder)[0]


def device(sizes, folder):
  """Yields the description of the GPU, with versions of drivers and packages and the rates of its matrix products."""
  del folder
  machine = measure.machine("gpu", sizes.sides)
  machine["packages"] |= {name: version for name in PACKAGES if (version := measure.version(name))}
  yield machine | {
    "driver": _output(SMI),
    "runtime": " ".join(jax.devices()[0].client.platform_version.split()),
    "cuda_of_torch": _torch_cuda(),
    "flags": os.environ.get("XLA_FLAGS", ""),
  }


@functools.cache
def _torch_cuda():
  """Returns the CUDA version of PyTorch, "none" without a GPU and "" without PyTorch."""
  return _output((sys.executable, "-c", TORCH)) if not peers.ENTRIES[PEERS[0]].missing() else ""


def _output(command):
  """Returns the output of a command, "" if it cannot run or fails."""
  try:
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ""


def _in_process(module, keywords, environment):
  """Returns the record that a module prints as its last line."""
  command = [sys.executable, "-m", module.__name__, json.dumps(keywords)]
  done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | environment, check=False)
  if done.returncode:
    raise UserError(done.stderr.strip()[-2000:] or f"exit status {done.returncode}")
  return json.loads(done.stdout.splitlines()[-1])


def description(sizes):
  """Returns the sizes as JSON stores them."""
  return json.loads(json.dumps(dataclasses.asdict(sizes)))
